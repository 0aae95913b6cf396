/** Tells what happens, with times: for people on a terminal, or nothing but one JSON line at the end. */
export interface StepResult {
  readonly step: string
  readonly ok: boolean
  readonly seconds: number
  readonly detail?: string | undefined
}

export class Narrator {
  readonly #json: boolean
  readonly #begun = performance.now()
  readonly steps: StepResult[] = []
  readonly measured: { readonly what: string; readonly figure: string }[] = []
  #transient = false

  constructor(options: { json: boolean }) {
    this.#json = options.json
  }

  seconds(): number {
    return (performance.now() - this.#begun) / 1000
  }

  heading(text: string): void {
    this.#print(`\n${bold(text)}`)
  }

  line(text: string): void {
    this.#print(`  ${this.#clock()}  ${text}`)
  }

  /** A line without the time. */
  plain(text: string): void {
    this.#print(text)
  }

  /** A line that the next one replaces on a terminal; elsewhere it is not shown. */
  progress(text: string): void {
    if (this.#json || !process.stdout.isTTY) return
    process.stdout.write(`\r\x1b[K  ${this.#clock()}  ${text}`)
    this.#transient = true
  }

  /** Runs one step of the story. A failed step is told and thrown on: the story cannot go on without it. */
  async step<T>(name: string, title: string, work: () => Promise<T>, told?: (result: T) => string): Promise<T> {
    this.heading(title)
    const from = performance.now()
    try {
      const result = await work()
      const detail = told?.(result)
      if (detail !== undefined) this.line(`${green('✓')} ${detail}`)
      this.steps.push({ step: name, ok: true, seconds: since(from), detail })
      return result
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      this.line(`${red('✗')} ${detail}`)
      this.steps.push({ step: name, ok: false, seconds: since(from), detail })
      throw error
    }
  }

  measure(what: string, figure: string): void {
    this.measured.push({ what, figure })
  }

  table(): void {
    const width = Math.max(...this.measured.map((m) => m.what.length))
    this.heading('Measured in this run')
    for (const { what, figure } of this.measured) this.#print(`  ${what.padEnd(width)}  ${figure}`)
  }

  /** The one line of `--json`. */
  result(ok: boolean, error?: string): void {
    if (!this.#json) return
    const measured = Object.fromEntries(this.measured.map((m) => [m.what, m.figure]))
    const seconds = Math.round(this.seconds() * 10) / 10
    console.log(JSON.stringify({ ok, seconds, steps: this.steps, measured, ...(error === undefined ? {} : { error }) }))
  }

  #print(text: string): void {
    if (this.#json) return
    if (this.#transient) process.stdout.write('\r\x1b[K')
    this.#transient = false
    console.log(text)
  }

  #clock(): string {
    return dim(`${this.seconds().toFixed(1).padStart(5)} s`)
  }
}

function since(from: number): number {
  return Math.round(performance.now() - from) / 1000
}

const colours = process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined
const paint = (code: number) => (text: string) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text)
const bold = paint(1)
const dim = paint(2)
const green = paint(32)
const red = paint(31)
