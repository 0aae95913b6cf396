/** Lets one piece of asynchronous work through at a time, in the order of the calls; a failure holds up nobody. */
export class Gate {
  #last: Promise<unknown> = Promise.resolve()

  run<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work, work)
    this.#last = mine.catch(() => undefined)
    return mine
  }
}

/** Lets at most `width` through at a time and turns the rest away. */
export class Turnstile {
  readonly #width: number
  #inside = 0

  constructor(width: number) {
    this.#width = width
  }

  get full(): boolean {
    return this.#inside >= this.#width
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    this.#inside++
    try {
      return await work()
    } finally {
      this.#inside--
    }
  }
}
