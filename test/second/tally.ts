/** Counts what two implementations agree on, and keeps where they do not. */

import type { Random } from '../adversary/random.ts'
import type { Second } from './peer.ts'

const SHOWN = 300

export class Tally {
  readonly counts = new Map<string, number>()
  readonly failures: string[] = []

  get passed(): number {
    return [...this.counts.values()].reduce((sum, n) => sum + n, 0)
  }

  check(title: string, good: boolean, detail: () => string): void {
    if (good) this.counts.set(title, (this.counts.get(title) ?? 0) + 1)
    else this.failures.push(`${title}: ${detail()}`)
  }

  /** Both gave the same, to the octet or the code. */
  same(title: string, ours: unknown, theirs: unknown, of: unknown): void {
    const [a, b] = [JSON.stringify(ours), JSON.stringify(theirs)]
    const cut = (text: string | undefined): string => String(text).slice(0, SHOWN)
    this.check(title, a === b, () => `ours ${cut(a)}, theirs ${cut(b)}, of ${cut(JSON.stringify(of))}`)
  }
}

/** What a part of the comparison gets. */
export interface Stand {
  readonly second: Second
  readonly tally: Tally
  readonly random: Random
  /** About how many random inputs of each kind. */
  readonly rounds: number
}
