/**
 * Fetches the personal key of the next epoch before it begins, at a moment drawn at random, so that the members of a
 * group do not all ask at the border (protocol.md "Group manager policy"). Who misses it fetches the key when the first
 * broadcast of the new epoch comes.
 */
import type { Clock } from '../protocol/clock.ts'
import { refreshMoment } from '../protocol/groups/schedule.ts'
import type { Membership } from './group.ts'

export interface EpochRefreshOptions {
  readonly clock: Clock
  /** Asks the key server; the membership has the key when it resolves. */
  readonly fetch: (membership: Membership) => Promise<void>
  /** In [0, 1). */
  readonly random?: () => number
}

/** The key server had no key of the next epoch yet, or did not answer: again after this. */
const RETRY_SECONDS = 60
/** Longest sleep: a wall clock that was set is noticed, and a key that was fetched otherwise. */
const MAX_SLEEP_MS = 600_000
const DEFAULT_EPOCH_SECONDS = 86_400

interface Plan {
  /** Unix seconds; undefined: this epoch's time is over, and the next key that is held makes the next plan. */
  at: number | undefined
  readonly ends: number | undefined
  timer: NodeJS.Timeout | undefined
}

export class EpochRefresh {
  readonly #options: EpochRefreshOptions
  readonly #plans = new Map<Membership, Plan>()

  constructor(options: EpochRefreshOptions) {
    this.#options = options
  }

  /** Looks after a membership from now on; a process may end all the same. */
  follow(membership: Membership): void {
    this.drop(membership)
    const ends = membership.epochEnds
    const { random = Math.random } = this.#options
    const epochSeconds = membership.policies?.epochSeconds ?? DEFAULT_EPOCH_SECONDS
    const isOver = ends === undefined || ends <= this.#now()
    this.#sleep(membership, {
      ends,
      at: isOver ? undefined : refreshMoment(ends, epochSeconds, random()),
      timer: undefined,
    })
  }

  drop(membership: Membership): void {
    clearTimeout(this.#plans.get(membership)?.timer)
    this.#plans.delete(membership)
  }

  close(): void {
    for (const membership of [...this.#plans.keys()]) this.drop(membership)
  }

  #sleep(membership: Membership, plan: Plan): void {
    this.#plans.set(membership, plan)
    const ms = plan.at === undefined ? MAX_SLEEP_MS : Math.max(0, (plan.at - this.#now()) * 1000)
    plan.timer = setTimeout(() => void this.#wake(membership, plan), Math.min(ms, MAX_SLEEP_MS))
    plan.timer.unref()
  }

  async #wake(membership: Membership, plan: Plan): Promise<void> {
    if (plan.at !== undefined && this.#now() >= plan.at) {
      await this.#options.fetch(membership).catch(() => undefined)
      const again = this.#now() + RETRY_SECONDS
      plan.at = plan.ends !== undefined && again < plan.ends ? again : undefined
    }
    if (this.#plans.get(membership) !== plan) return
    if (membership.epochEnds !== plan.ends) this.follow(membership)
    else this.#sleep(membership, plan)
  }

  #now(): number {
    return this.#options.clock.nowMs() / 1000
  }
}
