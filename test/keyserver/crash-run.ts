/** Kills a key server again and again and holds what left it against what must never happen. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { addressOf, certify } from './harness.ts'
import { TestClock } from './test-clock.ts'

export interface CrashReport {
  kills: number
  broadcasts: number
  joins: number
  /** kills while the store was being taken up */
  early: number
  violations: string[]
}

export interface CrashOptions {
  /** The program, as `node FILE` runs it. */
  readonly child: string
  readonly kills: number
  readonly seed: number
  /** `lying`: the disk says "written" before it has; what follows must be found out. */
  readonly disk?: 'lying'
  readonly onKill?: (report: CrashReport) => void
}

class Ledger {
  readonly report: CrashReport = { kills: 0, broadcasts: 0, joins: 0, early: 0, violations: [] }
  /** gid/session → hash of the body */
  readonly #bodies = new Map<string, string>()
  /** epoch/leaf → member */
  readonly #leaves = new Map<string, string>()
  /** who was told that he is in, and has not asked to leave since */
  readonly #members = new Set<string>()
  readonly #sids = new Set<string>()
  #held = new Set<string>()
  #loading = true

  begin(): void {
    this.#held = new Set()
    this.#loading = true
  }

  get loading(): boolean {
    return this.#loading
  }

  read(line: string): void {
    const [kind, a = '', b = '', c = ''] = line.split(' ')
    switch (kind) {
      case 'broadcast':
        this.#once(this.#bodies, `${a}/${b}`, c, 'two bodies for one session')
        this.report.broadcasts++
        break
      case 'held':
        this.#held.add(a)
        break
      case 'loaded':
        this.#loading = false
        for (const id of this.#members) {
          if (!this.#held.has(id)) this.report.violations.push(`member lost: ${id}`)
        }
        break
      case 'joined':
        this.#once(this.#leaves, `${b}/${c}`, a, 'a leaf of two members')
        this.#members.add(a)
        this.report.joins++
        break
      case 'leaving':
        this.#members.delete(a)
        break
      case 'sid':
        if (this.#sids.has(a)) this.report.violations.push(`a Sender ID issued twice: ${a}`)
        this.#sids.add(a)
        break
      default:
        this.report.violations.push(`unexpected output: ${line.slice(0, 200)}`)
    }
  }

  #once(seen: Map<string, string>, key: string, value: string, what: string): void {
    const before = seen.get(key)
    if (before !== undefined && before !== value) this.report.violations.push(`${what}: ${key}`)
    seen.set(key, value)
  }
}

/** `kills` lives over one folder, each ended by SIGKILL at a random moment, and a last one that must come up whole. */
export async function runCrashes(options: CrashOptions): Promise<CrashReport> {
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-crash-'))
  const ledger = new Ledger()
  const random = generator(options.seed)
  const start = Date.now()
  const address = addressOf(new Uint8Array(32).fill(1))
  writeFileSync(join(folder, 'device.pem'), await certify(address, new TestClock(Math.floor(start / 1000)), 3650))
  try {
    for (let life = 0; life <= options.kills; life++) {
      const last = life === options.kills
      const wasLoading = await live(
        options.child,
        [folder, String(options.seed + life), String(start), options.disk ?? ''],
        ledger,
        {
          // One in four dies while it takes up the store or right after, the others somewhere in their work.
          ...(random() < 0.25
            ? { afterLines: 1, afterMs: 0 }
            : { afterLines: 2 + Math.floor(random() * 30), afterMs: 20 * random() }),
          last,
        },
      )
      if (last) break
      ledger.report.kills++
      if (wasLoading) ledger.report.early++
      options.onKill?.(ledger.report)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return ledger.report
}

function live(
  child: string,
  args: readonly string[],
  ledger: Ledger,
  death: { readonly afterMs: number; readonly afterLines: number; readonly last: boolean },
): Promise<boolean> {
  ledger.begin()
  return new Promise((resolve, reject) => {
    const process_ = spawn(process.execPath, [child, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let loading = true
    let said = ''
    let timer: NodeJS.Timeout | undefined
    const arm = (ms: number): void => {
      timer ??= setTimeout(() => {
        loading = ledger.loading
        process_.kill('SIGKILL')
      }, ms)
    }
    const lines = createInterface({ input: process_.stdout })
    let joins = 0
    let progress = 0
    lines.on('line', (line) => {
      ledger.read(line)
      if (line.startsWith('joined')) joins++
      if (!line.startsWith('held')) progress++
      if (death.last ? joins === 3 : progress >= death.afterLines) arm(death.afterMs)
    })
    process_.stderr.on('data', (text) => {
      said = `${said}${text}`.slice(-2000)
    })
    process_.once('error', reject)
    process_.once('close', (code) => {
      clearTimeout(timer)
      if (code === null) resolve(loading)
      else reject(new Error(`the key server ended by itself (${code}): ${said}`))
    })
  })
}

/** mulberry32: the same seed gives the same moments. */
function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
