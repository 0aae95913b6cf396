/**
 * `npm run bench -- coap`: bars P3 and P4. GETs of an object of 178 octets per CPU second of the server, each server
 * in its own process, in alternating order, paired ratios with a bootstrap 95 % interval.
 */
import { type Contender, cpuSeconds, residentOctets, startLibcoap, startNode } from './coap-contenders.ts'
import { LoadGenerator } from './coap-load.ts'
import { formatInterval, type Interval, pairedRatio, verdict } from './coap-statistics.ts'

export interface CoapBenchOptions {
  readonly rounds?: number | undefined
  /** Of each contender in each half of a round. */
  readonly requests?: number | undefined
  readonly log?: ((line: string) => void) | undefined
}

export interface CoapBenchResult {
  readonly passed: boolean
  readonly ratios: Readonly<Record<string, Interval>>
  readonly residentRatio: number
  readonly lost: number
  readonly samples: Readonly<Record<string, readonly number[]>>
}

const WINDOW = 32
const OBJECT_OCTETS = 178
const P3_BARS: Readonly<Record<string, number>> = { libcoap: 1.0, 'npm coap': 3, 'bare dgram echo': 0.8 }
const P4_REQUESTS = 60_000
const P4_RESIDENT_BAR = 1.2
const P4_WINDOW = 256
const P4_BURST_REQUESTS = 20_480

export async function benchCoap(options: CoapBenchOptions = {}): Promise<CoapBenchResult> {
  const { rounds = 11, requests = 4000, log = (line) => process.stdout.write(`${line}\n`) } = options
  if (process.platform !== 'linux') throw new Error('the CPU time of a server is read from /proc: run this on Linux')
  const object = Uint8Array.from({ length: OBJECT_OCTETS }, (_, i) => (i * 89) & 255)
  const ours = await startNode('this engine', 'engine', 'sealed')
  const contenders: Contender[] = [ours]
  try {
    contenders.push(await startNode('this engine, no reply kept ready', 'handler', 'handler'))
    contenders.push(await startNode('bare dgram echo', 'echo', 'sealed'))
    contenders.push(await startNode('npm coap', 'node-coap', 'sealed'))
    const libcoap = await startLibcoap(object)
    if (typeof libcoap === 'string') log(`libcoap: skipped: ${libcoap}`)
    else contenders.push(libcoap)
    const samples = await sample(contenders, rounds, requests, log)
    const ratios: Record<string, Interval> = {}
    let passed = true
    for (const rival of contenders.slice(1)) {
      const ratio = pairedRatio(samples[ours.name] ?? [], samples[rival.name] ?? [])
      ratios[rival.name] = ratio
      const bar = P3_BARS[rival.name]
      if (bar === undefined) {
        log(`     GET/CPU-s ÷ ${rival.name}: ${formatInterval(ratio)}`)
      } else {
        passed = verdict(ratio, bar) && passed
        log(
          `P3   GET/CPU-s ÷ ${rival.name}: ${formatInterval(ratio)}  bar ≥ ${bar}  ${verdict(ratio, bar) ? 'holds' : 'MISSED'}`,
        )
      }
    }
    const memory = await benchMemory(log)
    return { passed: passed && memory.passed, ratios, residentRatio: memory.residentRatio, lost: memory.lost, samples }
  } finally {
    for (const contender of contenders) contender.stop()
  }
}

/** Requests per CPU second of each contender, one figure a round: there and back again, so that drift cancels out. */
async function sample(
  contenders: readonly Contender[],
  rounds: number,
  requests: number,
  log: (line: string) => void,
): Promise<Record<string, number[]>> {
  const samples: Record<string, number[]> = {}
  // from a new port each time: a message ID that comes back to a server that deduplicates is answered from its cache
  const run = async (contender: Contender, count: number) => {
    const load = await LoadGenerator.open(contender.port, contender.path)
    await load.run(count, WINDOW)
    await load.close()
  }
  for (const contender of contenders) {
    samples[contender.name] = []
    // compiled, tables filled
    await run(contender, Math.min(requests * 2, 10_000))
  }
  for (let round = 0; round < rounds; round++) {
    const cpu = new Map<Contender, number>()
    for (const contender of [...contenders, ...contenders.toReversed()]) {
      const before = cpuSeconds(contender.pid)
      await run(contender, requests)
      cpu.set(contender, (cpu.get(contender) ?? 0) + cpuSeconds(contender.pid) - before)
    }
    for (const [contender, seconds] of cpu) samples[contender.name]?.push((2 * requests) / seconds)
    const shown = contenders.map((c) => `${c.name} ${Math.round(samples[c.name]?.at(-1) ?? 0)}`).join(' · ')
    log(`     round ${round + 1}/${rounds}, GET per CPU second: ${shown}`)
  }
  return samples
}

async function benchMemory(
  log: (line: string) => void,
): Promise<{ passed: boolean; residentRatio: number; lost: number }> {
  const server = await startNode('this engine', 'engine', 'sealed')
  try {
    const load = await LoadGenerator.open(server.port, server.path)
    await load.run(1000, WINDOW)
    const before = residentOctets(server.pid)
    await load.run(P4_REQUESTS, WINDOW)
    const residentRatio = residentOctets(server.pid) / before
    const small = residentRatio <= P4_RESIDENT_BAR
    const megabytes = (octets: number) => (octets / 1e6).toFixed(1)
    log(
      `P4   resident after ${P4_REQUESTS} GETs ÷ before: ${residentRatio.toFixed(2)} (from ${megabytes(before)} MB)  ` +
        `bar ≤ ${P4_RESIDENT_BAR}  ${small ? 'holds' : 'MISSED'}`,
    )
    const { lost } = await load.run(P4_BURST_REQUESTS, P4_WINDOW)
    log(
      `P4   lost of ${P4_BURST_REQUESTS} with ${P4_WINDOW} at once: ${lost}  bar 0  ${lost === 0 ? 'holds' : 'MISSED'}`,
    )
    await load.close()
    const puts = await LoadGenerator.open(server.port, 'handler', 3)
    await puts.run(P4_REQUESTS, WINDOW)
    log(`     resident after ${P4_REQUESTS} PUTs more, deduplicated: ${megabytes(residentOctets(server.pid))} MB`)
    await puts.close()
    return { passed: small && lost === 0, residentRatio, lost }
  } finally {
    server.stop()
  }
}
