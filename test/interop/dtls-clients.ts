/** Foreign DTLS clients against a server of ours: one attempt each, with what the program said about it. */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { DtlsPeer, DtlsPeerName } from '../peers/dtls-peers.ts'
import { PeerProcess } from '../peers/process.ts'
import { LARGE_OCTETS, pattern } from '../peers/protocol.ts'
import type { Identity } from './dtls-pki.ts'

/** Shared by both ends of the PSK cells. libcoap takes keys as text only. */
export const PSK = { identity: 'interop', key: Buffer.from('not a secret: interop') } as const
export const EXPORTER_LABEL = 'EXPORTER-Channel-Binding'

export interface Attempt {
  readonly host: string
  readonly port: number
  readonly identity?: Identity | undefined
  /** PEM file of the CA to trust; absent: PSK. */
  readonly trustFile?: string | undefined
  /** A second association after the first, resumed if the program can. */
  readonly resume?: boolean | undefined
  /** For what a program wants to keep between two runs. */
  readonly folder: string
}

export interface AttemptResult {
  /** The handshake ended well and data went both ways. */
  readonly opened: boolean
  readonly exporter?: string | undefined
  readonly resumed?: boolean | undefined
  /** The last lines of the program, for a failure. */
  readonly said: string
}

type Client = (peer: DtlsPeer, attempt: Attempt) => Promise<AttemptResult>

const PATIENCE_MS = 6000

function lastWords(process: PeerProcess): string {
  const lines = `${process.stdout}\n${process.stderr}`
    .split('\n')
    .filter((line) => /error|alert|fail|refus|\*\*\*/i.test(line))
  return (lines.at(-1) ?? process.stderr.trim().split('\n').at(-1) ?? '').trim().slice(0, 160)
}

/** Starts an interactive client, says hello, and waits for the echo. */
async function interactive(
  command: readonly string[],
  greeting: RegExp,
  exporter: RegExp,
  resumed?: RegExp,
): Promise<AttemptResult> {
  const process = new PeerProcess(command)
  try {
    const connected = await process.shows(greeting, PATIENCE_MS)
    let opened = false
    // the first record may meet a server that is still checking: say it again, the echo comes once per record
    for (let i = 0; connected && !opened && i < 5; i++) {
      process.write('hello\n')
      opened = await process.shows(/^hello$/m, 600)
    }
    const found = exporter.exec(process.stdout)?.[1]?.toLowerCase()
    const { signalCode } = process.child
    return {
      opened,
      exporter: found,
      resumed: resumed?.test(process.stdout),
      said: opened ? '' : signalCode === null ? lastWords(process) : `ended by ${signalCode}`,
    }
  } finally {
    await process.stop()
  }
}

const openssl: Client = async (peer, attempt) => {
  const { identity, trustFile } = attempt
  const session = join(attempt.folder, `openssl-${attempt.port}.session`)
  const common = [
    ...peer.client!,
    '-dtls1_2',
    '-connect',
    `${attempt.host}:${attempt.port}`,
    '-keymatexport',
    EXPORTER_LABEL,
    '-keymatexportlen',
    '32',
    ...(trustFile === undefined
      ? ['-psk_identity', PSK.identity, '-psk', PSK.key.toString('hex'), '-cipher', 'ECDHE-PSK-CHACHA20-POLY1305']
      : ['-CAfile', trustFile, '-verify_return_error', '-verify_ip', attempt.host]),
    ...(identity === undefined
      ? []
      : ['-cert', identity.leafFile, '-cert_chain', identity.chainFile, '-key', identity.keyFile]),
  ]
  const connected = /Verify return code|Reused,/
  const key = /Keying material: ([0-9A-F]{64})/
  const first = await interactive([...common, '-sess_out', session], connected, key)
  if (!attempt.resume || !first.opened || !existsSync(session)) return first
  return await interactive([...common, '-sess_in', session], connected, key, /^Reused,/m)
}

const gnutls: Client = async (peer, attempt) => {
  const { identity, trustFile } = attempt
  return await interactive(
    [
      ...peer.client!,
      '--udp',
      '--port',
      String(attempt.port),
      '--keymatexport',
      EXPORTER_LABEL,
      '--keymatexportsize',
      '32',
      ...(attempt.resume ? ['--resume', '--waitresumption'] : []),
      ...(trustFile === undefined
        ? [
            '--priority',
            'NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+ECDHE-PSK',
            '--pskusername',
            PSK.identity,
            '--pskkey',
            PSK.key.toString('hex'),
          ]
        : ['--x509cafile', trustFile]),
      ...(identity === undefined ? [] : ['--x509certfile', identity.chainFile, '--x509keyfile', identity.keyFile]),
      attempt.host,
    ],
    /Simple Client Mode/,
    /Key material: ([0-9a-f]{64})/,
    /This is a resumed session/,
  )
}

/** A CoAP client: data both ways is GET of 10 KB, in blocks, over the association. */
const libcoap: Client = async (peer, attempt) => {
  const { identity } = attempt
  // the OpenSSL build sends of a chain file the leaf alone, and adds what its store of trusted certificates has
  const { trustFile = undefined } =
    peer.name === 'libcoap-openssl' && identity !== undefined ? { trustFile: identity.storeFile } : attempt
  const body = join(attempt.folder, `${peer.name}-${attempt.port}.body`)
  const process = new PeerProcess([
    ...peer.client!,
    '-B',
    '5',
    '-v',
    '4',
    '-o',
    body,
    ...(trustFile === undefined ? ['-u', PSK.identity, '-k', PSK.key.toString()] : ['-R', trustFile]),
    ...(identity === undefined ? [] : ['-c', identity.chainFile, '-j', identity.keyFile]),
    `coaps://${attempt.host}:${attempt.port}/large`,
  ])
  await Promise.race([process.exited, delay(PATIENCE_MS)])
  await process.stop()
  const opened = existsSync(body) && readFileSync(body).equals(pattern(LARGE_OCTETS, 1))
  return { opened, said: opened ? '' : lastWords(process) }
}

interface ProgramLine {
  readonly event?: string
  readonly echo?: string
  readonly exporter?: string
  readonly resumed?: boolean
  readonly error?: string
}

/** Our programs on pion and Scandium: one JSON line per association. */
async function program(command: readonly string[], associations: number): Promise<AttemptResult> {
  const process = new PeerProcess(command)
  try {
    let last: ProgramLine = {}
    for (let i = 0; i < associations; i++) {
      if (i > 0) process.write('\n')
      const line = await process.line(PATIENCE_MS + 6000)
      if (line === undefined) return { opened: false, said: lastWords(process) }
      last = JSON.parse(line) as ProgramLine
    }
    return {
      opened: last.echo === 'hello',
      exporter: last.exporter,
      resumed: last.resumed,
      said: last.error ?? '',
    }
  } finally {
    await process.stop()
  }
}

const pion: Client = (peer, attempt) => {
  const { identity, trustFile } = attempt
  return program(
    [
      ...peer.client!,
      attempt.host,
      String(attempt.port),
      '-servername',
      attempt.host,
      '-times',
      attempt.resume ? '2' : '1',
      ...(trustFile === undefined ? ['-psk', `${PSK.identity}@${PSK.key.toString('hex')}`] : ['-ca', trustFile]),
      ...(identity === undefined ? [] : ['-cert', identity.chainFile, '-key', identity.keyFile]),
    ],
    attempt.resume ? 2 : 1,
  )
}

const scandium: Client = (peer, attempt) =>
  program(
    [
      ...peer.client!,
      attempt.host,
      String(attempt.port),
      '-ca',
      attempt.trustFile!,
      ...(attempt.identity === undefined ? [] : ['-cred', attempt.identity.credentialsFile]),
    ],
    1,
  )

interface NodeDtlsSocket {
  on(event: string, listener: (...args: unknown[]) => void): NodeDtlsSocket
  send(data: Buffer): void
  close(): void
}

const nodeDtlsClient: Client = (_peer, attempt) => {
  const { dtls } = createRequire(import.meta.url)('node-dtls-client') as {
    dtls: { createSocket(options: unknown): NodeDtlsSocket }
  }
  return new Promise((resolve) => {
    const socket = dtls.createSocket({
      type: 'udp4',
      address: attempt.host,
      port: attempt.port,
      psk: { [PSK.identity]: PSK.key },
      timeout: PATIENCE_MS,
    })
    const settle = (result: AttemptResult): void => {
      clearTimeout(giveUp)
      resolve(result)
      try {
        socket.close()
      } catch {
        // it is closed already
      }
    }
    const giveUp = setTimeout(() => settle({ opened: false, said: 'no answer' }), PATIENCE_MS)
    socket.on('connected', () => socket.send(Buffer.from('hello')))
    socket.on('message', (data) => settle({ opened: String(data) === 'hello', said: '' }))
    socket.on('error', (error) => settle({ opened: false, said: (error as Error).message }))
  })
}

export const CLIENTS: Readonly<Record<DtlsPeerName, Client>> = {
  openssl,
  gnutls,
  'libcoap-openssl': libcoap,
  'libcoap-gnutls': libcoap,
  pion,
  scandium,
  'node-dtls-client': nodeDtlsClient,
}
