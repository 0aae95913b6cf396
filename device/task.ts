/** Work that is done again and again: at times that it chooses itself, when it is kicked, and with back-off after a failure. */
import { isIotchainError } from '../protocol/errors.ts'
import type { Logger } from '../runtime/log.ts'

export interface TaskOptions {
  readonly name: string
  readonly log: Logger
  readonly initialMs: number
  readonly maxMs: number
  /** [0, 1), for jitter. */
  readonly random?: () => number
}

/** @returns milliseconds until the next turn; undefined: when kicked */
export type Work = (signal: AbortSignal) => Promise<number | undefined>

export class Task {
  readonly #options: TaskOptions
  readonly #work: Work
  readonly #abort = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #kicked = false
  #failures = 0
  #lastError: unknown

  constructor(options: TaskOptions, work: Work) {
    this.#options = options
    this.#work = work
  }

  /** The error of the last turn, undefined when it went well. */
  get lastError(): unknown {
    return this.#lastError
  }

  start(): void {
    this.#run()
  }

  /** A turn now, or one more after the one that runs. Cuts a back-off short. */
  kick(): void {
    if (this.#abort.signal.aborted) return
    if (this.#running !== undefined) this.#kicked = true
    else this.#run()
  }

  /** Like `kick`, but leaves a running back-off alone: for news that do not tell whether the fault is gone. */
  nudge(): void {
    if (this.#failures === 0) this.kick()
  }

  async stop(): Promise<void> {
    this.#abort.abort()
    clearTimeout(this.#timer)
    await this.#running
  }

  #run(): void {
    clearTimeout(this.#timer)
    this.#kicked = false
    this.#running = this.#turn().then((waitMs) => {
      this.#running = undefined
      if (this.#abort.signal.aborted) return
      if (this.#kicked) this.#run()
      else if (waitMs !== undefined)
        this.#timer = setTimeout(() => this.#run(), Math.min(Math.max(waitMs, 0), 2 ** 31 - 1))
    })
  }

  async #turn(): Promise<number | undefined> {
    const { name, log, initialMs, maxMs, random = Math.random } = this.#options
    try {
      const waitMs = await this.#work(this.#abort.signal)
      if (this.#failures > 0) log.info({ task: name, failures: this.#failures }, 'works again')
      this.#failures = 0
      this.#lastError = undefined
      return waitMs
    } catch (error) {
      if (this.#abort.signal.aborted) return undefined
      this.#lastError = error
      const backOffMs = Math.min(maxMs, initialMs * 2 ** Math.min(this.#failures++, 30))
      const askedMs = isIotchainError(error) ? (error.retryAfterSeconds ?? 0) * 1000 : 0
      const waitMs = Math.min(maxMs, Math.max(backOffMs, askedMs)) * (0.8 + 0.4 * random())
      log.limited(
        `task ${name}`,
        'warn',
        { task: name, err: error, againInMs: Math.round(waitMs) },
        'failed, will be tried again',
      )
      return waitMs
    }
  }
}
