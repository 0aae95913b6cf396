/**
 * `npm run bench -- TOPIC… [--rounds N] [--raw FILE]`: the bars of each topic, with intervals. Exit code 1 if a whole
 * interval lies under its bar. Absolute times mean nothing on a shared machine: every figure is a ratio within one run.
 */
import { appendFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

interface BenchResult {
  readonly passed: boolean
}
interface BenchOptions {
  readonly rounds?: number | undefined
  readonly log: (line: string) => void
}
interface Topic {
  readonly about: string
  readonly run: (options: BenchOptions) => Promise<BenchResult>
}

/** Loaded when asked for: each brings its own rivals. */
const TOPICS: Readonly<Record<string, Topic>> = {
  objects: {
    about: 'P1, P2, P7: sealing and opening, packs, sizes',
    run: async (options) => (await import('./objects.ts')).benchObjects(options),
  },
  groups: {
    about: 'P6: sizes of broadcasts, work of a member',
    run: async (options) => (await import('./groups.ts')).benchGroups(options),
  },
  coap: {
    about: 'P3, P4: the CoAP server against libcoap, npm coap and a bare echo',
    run: async (options) => (await import('./coap.ts')).benchCoap(options),
  },
  dtls: {
    about: 'P5: handshakes against pion, libcoap and Scandium',
    run: async (options) => (await import('./dtls.ts')).benchDtls(options),
  },
  device: {
    about: 'P8: memory and start of the device daemon',
    run: async (options) => (await import('./device.ts')).benchDevice(options),
  },
  chain: {
    about: 'P9: re-checking members on chain',
    run: async (options) => (await import('./chain.ts')).benchChain(options),
  },
}

function usage(complaint?: string): void {
  if (complaint !== undefined) console.error(complaint)
  const lines = Object.entries(TOPICS).map(([name, { about }]) => `  ${name.padEnd(8)} ${about}`)
  console.error(
    `usage: npm run bench -- TOPIC… [--rounds N] [--raw FILE]\n${lines.join('\n')}\n  all      every one of them`,
  )
  process.exitCode = 2
}

async function main(): Promise<void> {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse()
  } catch (error) {
    usage(error instanceof Error ? error.message : String(error))
    return
  }
  const { positionals, values } = parsed
  const names = positionals.includes('all') ? Object.keys(TOPICS) : positionals
  const unknown = names.find((name) => !Object.hasOwn(TOPICS, name))
  const rounds = values.rounds === undefined ? undefined : Number(values.rounds)
  if (names.length === 0 || unknown !== undefined) {
    usage(unknown === undefined ? undefined : `there is no bench called ${unknown}`)
    return
  }
  if (rounds !== undefined && !(Number.isSafeInteger(rounds) && rounds >= 1)) {
    usage('--rounds takes a whole number, at least 1')
    return
  }
  for (const name of names) {
    console.log(`${name}: ${TOPICS[name]?.about}`)
    const started = Date.now()
    const result = await (TOPICS[name] as Topic).run({ rounds, log: (line) => console.log(`  ${line}`) })
    console.log(
      `  ${result.passed ? 'every bar holds' : 'a bar is MISSED'} (${((Date.now() - started) / 1000).toFixed(0)} s)`,
    )
    if (values.raw !== undefined)
      appendFileSync(values.raw, `${JSON.stringify({ topic: name, node: process.version, ...result })}\n`)
    if (!result.passed) process.exitCode = 1
  }
}

function parse() {
  return parseArgs({ allowPositionals: true, options: { rounds: { type: 'string' }, raw: { type: 'string' } } })
}

await main()
