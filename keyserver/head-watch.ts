/**
 * Looks at the chain between broadcasts: at each new head the members are read again, so that a revocation is acted
 * on without waiting for the next session. What the pinned read says decides; what is not seen here is seen then.
 */
import type { Head } from '../chain/types.ts'
import type { ChainView } from '../chain/view.ts'
import type { Logger } from '../runtime/log.ts'
import type { Candidates } from './chain-logs.ts'
import { type Enforcement, isChainAway } from './enforcement.ts'
import type { Roster, ServedDevice } from './roster.ts'
import type { Sessions } from './sessions.ts'

/** Devices read at once: their calls travel together. */
const WIDTH = 32

export interface HeadWatchOptions {
  readonly chain: ChainView
  readonly roster: Roster
  readonly enforcement: Enforcement
  readonly sessions: Sessions
  readonly log: Logger
  readonly pollMs: number
  /**
   * Who may have changed since the last head, by the logs; undefined: cannot be told, read everybody. Asked only when
   * there are more members than `readAllBelow`.
   */
  readonly candidates?: ((head: Head) => Promise<Candidates | undefined>) | undefined
  readonly readAllBelow: number
}

export class HeadWatch {
  readonly #o: HeadWatchOptions
  #hash: string | undefined
  /** Whom the logs named was not read to the end: they do not name them again, so that everybody is read. */
  #owed = false
  #stopped = false
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined

  constructor(options: HeadWatchOptions) {
    this.#o = options
  }

  start(): void {
    this.#schedule()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
  }

  /** One look. Never throws. */
  async look(): Promise<void> {
    const { chain, log } = this.#o
    try {
      const head = await chain.head()
      if (head.hash === this.#hash) return
      await this.#newHead(head)
      this.#hash = head.hash
    } catch (error) {
      if (!isChainAway(error)) log.limited('head', 'error', { err: error }, 'the new block could not be acted on')
      else log.limited('head', 'warn', { err: error }, 'the chain cannot be read')
    }
  }

  async #newHead(head: Head): Promise<void> {
    const { roster, enforcement, sessions, candidates, readAllBelow } = this.#o
    const busy = [...roster.devices.values()].filter((d) => d.clients.size > 0 || d.isMember(d.memberId))
    const members = busy.reduce((sum, d) => sum + d.clients.size, 0)
    const named = members <= readAllBelow || this.#owed ? undefined : await candidates?.(head)
    this.#owed = true
    const look = async (device: ServedDevice): Promise<void> => {
      const clients = named === undefined ? 'all' : named.get(device.address)
      if (clients === undefined) return
      sessions.hurry(await (clients === 'all' ? enforcement.refresh(device) : enforcement.refreshSome(device, clients)))
    }
    for (let at = 0; at < busy.length; at += WIDTH) await Promise.all(busy.slice(at, at + WIDTH).map(look))
    this.#owed = false
  }

  #schedule(): void {
    if (this.#stopped) return
    this.#timer = setTimeout(() => {
      this.#running = this.look().finally(() => this.#schedule())
    }, this.#o.pollMs)
  }
}
