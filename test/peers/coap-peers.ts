/** The foreign CoAP stacks, each as a program that speaks `protocol.ts`. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import {
  built,
  cacheFolder,
  debianCommand,
  debianPackages,
  once,
  onPath,
  PeerMissing,
  type PeerReport,
  peerSource,
  run,
} from './install.ts'

export interface CoapPeer {
  readonly name: string
  readonly version: string
  readonly path: string
  /** What to start, without `server|client HOST PORT`. */
  readonly command: readonly string[]
}

export type CoapPeerName = 'libcoap' | 'aiocoap' | 'californium' | 'go-coap' | 'npm coap'

const AIOCOAP = '0.4.17'
const CALIFORNIUM = '3.14.0'

/** A C program against libcoap without TLS, for `interop` as for `bench` (its server never sleeps under load). */
async function libcoap(): Promise<CoapPeer> {
  const header = '/usr/include/coap3/coap.h'
  await debianCommand('gcc', ['gcc', 'libc6-dev'])
  await debianPackages(['libcoap3-dev'], () => {
    try {
      return readFileSync(header).length > 0
    } catch {
      return false
    }
  })
  const source = peerSource('libcoap', 'peer.c')
  const path = await built('libcoap', [source], async (into) => {
    await run('gcc', ['-O2', '-o', into, source, '-lcoap-3-notls'])
  })
  const { version } = JSON.parse((await run(path, ['version'])).stdout) as { version: string }
  return { name: 'libcoap', version: version.replace('libcoap ', ''), path, command: [path] }
}

/** The unmodified `coap-client` of libcoap, without TLS. */
export async function coapClient(): Promise<string> {
  return await debianCommand('coap-client-notls', ['libcoap3-bin'])
}

/** A virtual environment in the cache with `requirements`; returns its python. */
export function pythonWith(name: string, requirements: readonly string[]): Promise<string> {
  return once(`python ${name}`, () => makeEnvironment(name, requirements))
}

async function makeEnvironment(name: string, requirements: readonly string[]): Promise<string> {
  const stamp = join(cacheFolder(), `${name}.requirements`)
  const environment = join(cacheFolder(), name)
  const python = join(environment, 'bin', 'python')
  const wanted = requirements.join('\n')
  try {
    if (readFileSync(stamp, 'utf8') === wanted) return python
  } catch {
    // not made yet
  }
  const base = onPath('python3')
  if (base === undefined) throw new PeerMissing('python3 is not installed')
  await run(base, ['-m', 'venv', '--clear', environment])
  await run(python, ['-m', 'pip', 'install', '--quiet', ...requirements])
  writeFileSync(stamp, wanted)
  return python
}

/** The Python that has aiocoap (its `aiocoap-client` stands beside it). */
export async function aiocoapPython(): Promise<string> {
  return await pythonWith('aiocoap', [`aiocoap==${AIOCOAP}`])
}

async function aiocoap(): Promise<CoapPeer> {
  const path = await aiocoapPython()
  return { name: 'aiocoap', version: AIOCOAP, path, command: [path, peerSource('aiocoap', 'peer.py')] }
}

/** Jars of Californium and Scandium, and our classes, in one class path. */
export async function californiumClassPath(): Promise<string> {
  const pom = peerSource('californium', 'pom.xml')
  const sources = ['Peer.java', 'ScandiumPeer.java'].map((file) => peerSource('californium', file))
  const javac = await debianCommand('javac', ['default-jdk-headless'])
  const folder = await built('californium', [pom, ...sources], async (into) => {
    const maven = await debianCommand('mvn', ['maven'])
    mkdirSync(into)
    const copy = 'org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies'
    await run(maven, ['-q', '-B', '-f', pom, copy, `-DoutputDirectory=${into}`])
    await run(javac, ['-nowarn', '-cp', join(into, '*'), '-d', into, ...sources])
  })
  if (!readdirSync(folder).includes(`californium-core-${CALIFORNIUM}.jar`)) {
    throw new PeerMissing(`californium-core ${CALIFORNIUM} is not in ${folder}: remove that folder and run again`)
  }
  return `${join(folder, '*')}:${folder}`
}

async function californium(): Promise<CoapPeer> {
  const path = await californiumClassPath()
  const java = onPath('java') ?? 'java'
  return { name: 'californium', version: CALIFORNIUM, path: java, command: [java, '-Xshare:auto', '-cp', path, 'Peer'] }
}

/** Builds one program of test/peers/go. */
export async function goProgram(program: string): Promise<string> {
  const go = onPath('go')
  if (go === undefined) throw new PeerMissing('go is not installed')
  const sources = [`${program}/main.go`, 'go.mod', 'go.sum'].map((file) => peerSource('go', ...file.split('/')))
  return await built(program, sources, async (into) => {
    // a build takes both cores for half a minute: let others go first
    const nice = onPath('nice')
    const build = [go, 'build', '-o', into, `./${program}`]
    const [command, ...args] = nice === undefined ? build : [nice, ...build]
    await run(command!, args, { cwd: peerSource('go'), timeoutMs: 900_000 })
  })
}

async function goCoap(): Promise<CoapPeer> {
  const path = await goProgram('coap-peer')
  const { version } = JSON.parse((await run(path, ['version'])).stdout) as { version: string }
  return { name: 'go-coap', version, path, command: [path] }
}

async function npmCoap(): Promise<CoapPeer> {
  const require = createRequire(import.meta.url)
  let manifest: { version: string }
  try {
    manifest = require('coap/package.json') as { version: string }
  } catch {
    throw new PeerMissing('the dev dependency coap is not installed')
  }
  const path = join(import.meta.dirname, 'node-coap', 'peer.js')
  return { name: 'npm coap', version: manifest.version, path, command: [process.execPath, path] }
}

const FINDERS: Readonly<Record<CoapPeerName, () => Promise<CoapPeer>>> = {
  libcoap,
  aiocoap,
  californium,
  'go-coap': goCoap,
  'npm coap': npmCoap,
}

export const COAP_PEER_NAMES = Object.keys(FINDERS) as CoapPeerName[]

/** @throws PeerMissing */
export function findCoapPeer(name: CoapPeerName): Promise<CoapPeer> {
  return FINDERS[name]()
}

export async function report(
  name: string,
  find: () => Promise<{ version: string; path: string }>,
): Promise<PeerReport> {
  try {
    const { version, path } = await find()
    return { name, version, path }
  } catch (error) {
    return { name, skipped: error instanceof Error ? error.message : String(error) }
  }
}
