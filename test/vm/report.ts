/** What the virtual-machine suites print: a line for each check with the time, and the closing line. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Unavailable } from './debian.ts'
import { hasProgram } from './initrd.ts'

export class Report {
  passed = 0
  failed = 0
  readonly #begun = Date.now()

  say(text: string): void {
    console.log(`${((Date.now() - this.#begun) / 1000).toFixed(1).padStart(6)} s  ${text}`)
  }

  check(what: string, holds: boolean, seen: string): void {
    if (holds) this.passed++
    else this.failed++
    this.say(`${holds ? 'ok    ' : 'FAILED'}  ${what}: ${seen}`)
  }

  /** Runs a suite to its end. Where a program or a package is missing it says "skipped: why". */
  async run(programs: readonly string[], suite: () => Promise<void>): Promise<number> {
    for (const program of programs) {
      if (await hasProgram(program)) continue
      console.log(`skipped: ${program} is not on this host`)
      return 0
    }
    try {
      await suite()
    } catch (error) {
      if (error instanceof Unavailable && this.failed === 0) {
        console.log(`skipped: ${error.message}`)
        return 0
      }
      this.failed++
      console.error(error instanceof Error ? error.message : error)
    }
    console.log(`${this.passed} passed, ${this.failed} failed`)
    return this.failed === 0 && this.passed > 0 ? 0 : 1
  }
}

/** Repeats `work` until it succeeds; its last error is thrown when the time is up. */
export async function eventually<T>(withinMs: number, work: () => Promise<T>): Promise<T> {
  const until = Date.now() + withinMs
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (Date.now() > until) throw error
      await sleep(500)
    }
  }
}
