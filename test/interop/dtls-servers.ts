/** Foreign DTLS servers for a client of ours: one server per cell, and what it saw. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { DtlsPeer, DtlsPeerName } from '../peers/dtls-peers.ts'
import { freePort, PeerProcess } from '../peers/process.ts'
import { EXPORTER_LABEL, PSK } from './dtls-clients.ts'
import type { Identity } from './dtls-pki.ts'

export interface ServerOptions {
  readonly host: string
  /** Absent: PSK. */
  readonly identity?: Identity | undefined
  readonly trustFile?: string | undefined
  /** Demand a certificate of the client; otherwise none is asked for. */
  readonly requireClient?: boolean | undefined
  /** For files that a program wants. */
  readonly folder: string
}

export interface TheirServer {
  readonly port: number
  readonly process: PeerProcess
  /** Data goes both ways: `echo` sends back, `console` shows what came and sends what it is told, `coap` is a CoAP server. */
  readonly kind: 'echo' | 'console' | 'coap'
  /** Exporter values that the server printed, hex, newest last. */
  exporters(): string[]
  stop(): Promise<void>
}

/** Whether a UDP port is bound on this machine (Linux). */
function bound(port: number): boolean {
  const hex = `:${port.toString(16).toUpperCase().padStart(4, '0')} `
  return ['/proc/net/udp', '/proc/net/udp6'].some((table) => {
    try {
      return readFileSync(table, 'latin1').includes(hex)
    } catch {
      return false
    }
  })
}

async function start(
  kind: TheirServer['kind'],
  command: readonly string[],
  port: number,
  exporter: RegExp,
): Promise<TheirServer> {
  const process = new PeerProcess(command)
  const end = performance.now() + 10_000
  while (!bound(port) && performance.now() < end && process.child.exitCode === null) await delay(20)
  if (!bound(port)) {
    await process.stop()
    throw new Error(`${command[0]} did not come up: ${process.stderr.trim().split('\n').at(-1) ?? ''}`)
  }
  return {
    port,
    process,
    kind,
    exporters: () => [...process.stdout.matchAll(exporter)].map((match) => match[1]!.toLowerCase()),
    stop: () => process.stop(),
  }
}

const openssl = (peer: DtlsPeer, options: ServerOptions, port: number): Promise<TheirServer> => {
  const { identity, trustFile } = options
  return start(
    'console',
    [
      ...peer.server!,
      '-dtls1_2',
      '-accept',
      `${options.host}:${port}`,
      '-keymatexport',
      EXPORTER_LABEL,
      '-keymatexportlen',
      '32',
      ...(identity === undefined
        ? ['-nocert', '-psk_identity', PSK.identity, '-psk', PSK.key.toString('hex'), '-cipher', 'PSK']
        : ['-cert', identity.leafFile, '-cert_chain', identity.chainFile, '-key', identity.keyFile]),
      ...(trustFile === undefined ? [] : ['-CAfile', trustFile]),
      ...(options.requireClient ? ['-Verify', '4', '-verify_return_error'] : []),
    ],
    port,
    /Keying material: ([0-9A-F]{64})/g,
  )
}

const gnutls = (peer: DtlsPeer, options: ServerOptions, port: number): Promise<TheirServer> => {
  const { identity, trustFile } = options
  const passwords = join(options.folder, 'psk.txt')
  writeFileSync(passwords, `${PSK.identity}:${PSK.key.toString('hex')}\n`)
  return start(
    'echo',
    [
      ...peer.server!,
      '--udp',
      '--echo',
      '--port',
      String(port),
      '--keymatexport',
      EXPORTER_LABEL,
      '--keymatexportsize',
      '32',
      ...(identity === undefined
        ? ['--pskpasswd', passwords, '--priority', 'NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+ECDHE-PSK']
        : ['--x509certfile', identity.chainFile, '--x509keyfile', identity.keyFile]),
      ...(trustFile === undefined ? [] : ['--x509cafile', trustFile]),
      ...(options.requireClient ? ['--require-client-cert', '--verify-client-cert'] : ['--disable-client-cert']),
    ],
    port,
    /Key material: ([0-9a-f]{64})/g,
  )
}

/** Its coaps port is the coap port plus one. */
const libcoap = (peer: DtlsPeer, options: ServerOptions, port: number): Promise<TheirServer> => {
  const { identity, trustFile } = options
  return start(
    'coap',
    [
      ...peer.server!,
      '-A',
      options.host,
      '-p',
      String(port - 1),
      '-d',
      '10',
      ...(identity === undefined ? ['-k', PSK.key.toString()] : ['-c', identity.chainFile, '-j', identity.keyFile]),
      ...(trustFile === undefined ? [] : ['-R', trustFile]),
      ...(options.requireClient || identity === undefined ? [] : ['-n']),
    ],
    port,
    /(?!)/g,
  )
}

const pion = (peer: DtlsPeer, options: ServerOptions, port: number): Promise<TheirServer> => {
  const { identity, trustFile } = options
  return start(
    'echo',
    [
      ...peer.server!,
      options.host,
      String(port),
      ...(identity === undefined
        ? ['-psk', `${PSK.identity}@${PSK.key.toString('hex')}`]
        : ['-cert', identity.chainFile, '-key', identity.keyFile]),
      ...(trustFile === undefined ? [] : ['-ca', trustFile]),
      '-auth',
      options.requireClient ? 'require' : 'none',
    ],
    port,
    /"exporter":"([0-9a-f]{64})"/g,
  )
}

const scandium = (peer: DtlsPeer, options: ServerOptions, port: number): Promise<TheirServer> =>
  start(
    'echo',
    [
      ...peer.server!,
      options.host,
      String(port),
      '-cred',
      options.identity!.credentialsFile,
      '-ca',
      options.trustFile!,
      '-auth',
      options.requireClient ? 'require' : 'none',
    ],
    port,
    /(?!)/g,
  )

const SERVERS: Partial<Record<DtlsPeerName, typeof openssl>> = {
  openssl,
  gnutls,
  'libcoap-openssl': libcoap,
  'libcoap-gnutls': libcoap,
  pion,
  scandium,
}

/** @throws Error when the program does not come up */
export async function startDtlsServer(
  name: DtlsPeerName,
  peer: DtlsPeer,
  options: ServerOptions,
): Promise<TheirServer> {
  return await SERVERS[name]!(peer, options, await freePort(options.host))
}
