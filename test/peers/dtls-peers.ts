/** The foreign DTLS stacks: command-line programs as Debian ships them, and our small programs on pion and Scandium. */
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { californiumClassPath, goProgram } from './coap-peers.ts'
import { debianCommand, onPath, PeerMissing, run } from './install.ts'

export interface DtlsPeer {
  readonly name: string
  readonly version: string
  readonly path: string
  /** Programs of the stack, as argument lists to which options are added. */
  readonly client: readonly string[] | undefined
  readonly server: readonly string[] | undefined
}

export type DtlsPeerName =
  | 'openssl'
  | 'gnutls'
  | 'libcoap-openssl'
  | 'libcoap-gnutls'
  | 'pion'
  | 'scandium'
  | 'node-dtls-client'

async function openssl(): Promise<DtlsPeer> {
  const path = await debianCommand('openssl', ['openssl'])
  const version = (await run(path, ['version'])).stdout.split(' ')[1] ?? ''
  return { name: 'openssl', version, path, client: [path, 's_client'], server: [path, 's_server'] }
}

async function gnutls(): Promise<DtlsPeer> {
  const client = await debianCommand('gnutls-cli', ['gnutls-bin'])
  const server = await debianCommand('gnutls-serv', ['gnutls-bin'])
  const version = (await run(client, ['--version'])).stdout.split('\n')[0]?.split(' ').at(-1) ?? ''
  return { name: 'gnutls', version, path: client, client: [client], server: [server] }
}

async function libcoapTls(build: 'openssl' | 'gnutls'): Promise<DtlsPeer> {
  const client = await debianCommand(`coap-client-${build}`, ['libcoap3-bin'])
  const server = await debianCommand(`coap-server-${build}`, ['libcoap3-bin'])
  // the usage text says the version and which TLS library it stands on; the exit code is 1
  const usage = await run('/bin/sh', ['-c', `${client} -h 2>&1 || true`])
  const version = /v(\d+\.\d+\.\d+)/.exec(usage.stdout)?.[1] ?? 'unknown'
  return { name: `libcoap-${build}`, version, path: client, client: [client], server: [server] }
}

async function pion(): Promise<DtlsPeer> {
  const path = await goProgram('dtls-peer')
  const { version } = JSON.parse((await run(path, ['version'])).stdout) as { version: string }
  return { name: 'pion', version, path, client: [path, 'client'], server: [path, 'server'] }
}

async function scandium(): Promise<DtlsPeer> {
  const classPath = await californiumClassPath()
  const path = onPath('java') ?? 'java'
  const program = [path, '-Xshare:auto', '-cp', classPath, 'ScandiumPeer']
  return { name: 'scandium', version: '3.14.0', path, client: [...program, 'client'], server: [...program, 'server'] }
}

/** A library for Node, client only and PSK only; loaded into the suite's own process. */
async function nodeDtlsClient(): Promise<DtlsPeer> {
  const require = createRequire(import.meta.url)
  let entry: string
  try {
    entry = require.resolve('node-dtls-client')
  } catch {
    throw new PeerMissing('the dev dependency node-dtls-client is not installed')
  }
  const manifest = require(`${dirname(entry).replace(/\/(build|dist)\/?.*$/, '')}/package.json`) as { version: string }
  return { name: 'node-dtls-client', version: manifest.version, path: entry, client: undefined, server: undefined }
}

const FINDERS: Readonly<Record<DtlsPeerName, () => Promise<DtlsPeer>>> = {
  openssl,
  gnutls,
  'libcoap-openssl': () => libcoapTls('openssl'),
  'libcoap-gnutls': () => libcoapTls('gnutls'),
  pion,
  scandium,
  'node-dtls-client': nodeDtlsClient,
}

export const DTLS_PEER_NAMES = Object.keys(FINDERS) as DtlsPeerName[]

/** @throws PeerMissing */
export function findDtlsPeer(name: DtlsPeerName): Promise<DtlsPeer> {
  return FINDERS[name]()
}
