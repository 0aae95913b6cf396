/**
 * `npm run bench -- dtls`: bar P5. Full mutual P-256 handshakes per CPU second of the server, 8 at once, ours and the
 * foreign servers each in its own process under the same load, in alternating order, paired ratios with a bootstrap
 * 95 % interval; then 1 000 at once.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type DtlsPki, makeDtlsPki } from '../test/interop/dtls-pki.ts'
import { startDtlsServer } from '../test/interop/dtls-servers.ts'
import { type DtlsPeerName, findDtlsPeer } from '../test/peers/dtls-peers.ts'
import type { ConnectOptions } from '../transport/dtls/types.ts'
import { cpuSeconds } from './coap-contenders.ts'
import { formatInterval, type Interval, pairedRatio, verdict } from './coap-statistics.ts'
import { handshakes } from './dtls-load.ts'

export interface DtlsBenchOptions {
  readonly rounds?: number | undefined
  /** Of each contender in each half of a round. */
  readonly handshakes?: number | undefined
  readonly log?: ((line: string) => void) | undefined
}

export interface DtlsBenchResult {
  readonly passed: boolean
  readonly ratios: Readonly<Record<string, Interval>>
  readonly lost: number
  readonly samples: Readonly<Record<string, readonly number[]>>
}

interface Contender {
  readonly name: string
  readonly port: number
  readonly pid: number
  stop(): void
}

const WINDOW = 8
const HOST = '127.0.0.1'
const P5_BARS: readonly (readonly [DtlsPeerName, number])[] = [
  ['pion', 0.8],
  ['libcoap-openssl', 1],
  ['scandium', 3],
]
const BURST = 1000
const OURS = 'this binding'

export async function benchDtls(options: DtlsBenchOptions = {}): Promise<DtlsBenchResult> {
  const { rounds = 11, log = (line) => process.stdout.write(`${line}\n`) } = options
  const count = options.handshakes ?? 150
  if (process.platform !== 'linux') throw new Error('the CPU time of a server is read from /proc: run this on Linux')
  const pki = await makeDtlsPki(HOST)
  const secure: ConnectOptions = { ca: pki.root, cert: pki.device.chain, key: pki.device.key }
  const contenders: Contender[] = []
  try {
    contenders.push(await startOurs(pki))
    const bars = new Map<string, number>()
    for (const [name, bar] of P5_BARS) {
      const started = await startForeign(name, pki)
      if (typeof started === 'string') log(`${name}: skipped: ${started}`)
      else {
        contenders.push(started)
        bars.set(name, bar)
      }
    }
    const samples = await sample(contenders, secure, rounds, count, log)
    let passed = true
    const ratios: Record<string, Interval> = {}
    for (const [name, bar] of bars) {
      const ratio = pairedRatio(samples[OURS] ?? [], samples[name] ?? [])
      ratios[name] = ratio
      const holds = verdict(ratio, bar)
      passed = holds && passed
      log(`P5   handshakes/CPU-s ÷ ${name}: ${formatInterval(ratio)}  bar ≥ ${bar}  ${holds ? 'holds' : 'MISSED'}`)
    }
    const lost = await burst(contenders[0] as Contender, secure, log)
    return { passed: passed && lost === 0, ratios, lost, samples }
  } finally {
    for (const contender of contenders) contender.stop()
    pki.remove()
  }
}

/** Handshakes per CPU second of each contender, one figure a round: there and back again, so that drift cancels out. */
async function sample(
  contenders: readonly Contender[],
  secure: ConnectOptions,
  rounds: number,
  count: number,
  log: (line: string) => void,
): Promise<Record<string, number[]>> {
  const samples: Record<string, number[]> = {}
  for (const { name, port } of contenders) {
    samples[name] = []
    // compiled in full (V8 and the JVM go on for a while), tables filled
    await handshakes(port, secure, 2000, WINDOW)
  }
  for (let round = 0; round < rounds; round++) {
    const cpu = new Map<Contender, { seconds: number; completed: number }>()
    for (const contender of [...contenders, ...contenders.toReversed()]) {
      const before = cpuSeconds(contender.pid)
      const { completed } = await handshakes(contender.port, secure, count, WINDOW)
      const so = cpu.get(contender) ?? { seconds: 0, completed: 0 }
      so.seconds += cpuSeconds(contender.pid) - before
      so.completed += completed
      cpu.set(contender, so)
    }
    for (const [{ name }, { seconds, completed }] of cpu) samples[name]?.push(completed / seconds)
    const shown = contenders.map(({ name }) => `${name} ${Math.round(samples[name]?.at(-1) ?? 0)}`).join(' · ')
    log(`     round ${round + 1}/${rounds}, handshakes per CPU second: ${shown}`)
  }
  return samples
}

async function burst(ours: Contender, secure: ConnectOptions, log: (line: string) => void): Promise<number> {
  const from = performance.now()
  const { lost, milliseconds } = await handshakes(ours.port, secure, BURST, BURST)
  const sorted = [...milliseconds].sort((a, b) => a - b)
  const at = (part: number): string => ((sorted[Math.floor(part * (sorted.length - 1))] ?? 0) / 1000).toFixed(2)
  const seconds = ((performance.now() - from) / 1000).toFixed(1)
  log(
    `P5   lost of ${BURST} handshakes at once: ${lost} (all after ${seconds} s, median ${at(0.5)} s, p99 ${at(0.99)} s)  ` +
      `bar 0  ${lost === 0 ? 'holds' : 'MISSED'}`,
  )
  return lost
}

async function startOurs(pki: DtlsPki): Promise<Contender> {
  const script = fileURLToPath(new URL('./dtls-server.js', import.meta.url))
  const { chainFile, keyFile } = pki.server
  const child = spawn(process.execPath, [script, chainFile, keyFile, pki.rootFile], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const port = await new Promise<number>((resolve, reject) => {
    child.once('exit', () => reject(new Error('the server ended at once')))
    createInterface(child.stdout).once('line', (line) => resolve(Number(line.replace('ready ', ''))))
  })
  return contender(OURS, port, child, () => void child.kill('SIGKILL'))
}

async function startForeign(name: DtlsPeerName, pki: DtlsPki): Promise<Contender | string> {
  try {
    const server = await startDtlsServer(name, await findDtlsPeer(name), {
      host: HOST,
      identity: pki.server,
      trustFile: pki.rootFile,
      requireClient: true,
      folder: pki.folder,
    })
    return contender(name, server.port, server.process.child, () => void server.stop())
  } catch (error) {
    return (error as Error).message
  }
}

function contender(name: string, port: number, child: ChildProcess, stop: () => void): Contender {
  process.once('exit', () => child.kill('SIGKILL'))
  return { name, port, pid: child.pid as number, stop }
}
