/**
 * What a command says: results on stdout, everything else on stderr, so that output can be piped.
 * With `--json` a result is one line of JSON on stdout and progress is silent.
 */
import { isIotchainError } from '../../protocol/errors.ts'
import { jsonText } from './json.ts'

export interface OutputStreams {
  readonly stdout: { write(text: string): unknown }
  readonly stderr: { write(text: string): unknown; readonly isTTY?: boolean | undefined }
}

const PROGRESS_MS = 1000

export class Output {
  readonly json: boolean
  readonly #streams: OutputStreams
  #progressOpen = false
  #lastProgress = { what: '', ms: 0 }

  constructor(options: { json: boolean; streams?: OutputStreams | undefined }) {
    this.json = options.json
    this.#streams = options.streams ?? { stdout: process.stdout, stderr: process.stderr }
  }

  /** One result: `value` with `--json`, else `text` (which may have several lines). */
  result(value: unknown, text: string): void {
    this.#endProgress()
    this.#streams.stdout.write(this.json ? `${jsonText(value)}\n` : text === '' ? '' : `${text}\n`)
  }

  /** A remark that is no result: on stderr, silent with `--json`. */
  note(text: string): void {
    if (this.json) return
    this.#endProgress()
    this.#streams.stderr.write(`${text}\n`)
  }

  /** A remark that matters: on stderr even with `--json`. */
  warn(text: string): void {
    this.#endProgress()
    this.#streams.stderr.write(`warning: ${text}\n`)
  }

  /** A state that changes: rewritten in place on a terminal; elsewhere a line each, of the same matter one a second. */
  progress(text: string): void {
    if (this.json) return
    if (this.#streams.stderr.isTTY === true) {
      this.#streams.stderr.write(`\r\x1b[K${text}`)
      this.#progressOpen = true
      return
    }
    const what = text.replace(/\d.*$/, '')
    const ms = performance.now()
    if (what === this.#lastProgress.what && ms - this.#lastProgress.ms < PROGRESS_MS) return
    this.#lastProgress = { what, ms }
    this.#streams.stderr.write(`${text}\n`)
  }

  /** The last word of a failed command: one sentence, and the hint where there is one. */
  failure(error: unknown): void {
    this.#endProgress()
    const { code, message, hint } = describeFailure(error)
    if (this.json) {
      this.#streams.stderr.write(`${jsonText({ error: { code, message, ...(hint === undefined ? {} : { hint }) } })}\n`)
      return
    }
    this.#streams.stderr.write(`error: ${message}\n`)
    if (hint !== undefined) this.#streams.stderr.write(`hint: ${hint}\n`)
  }

  #endProgress(): void {
    if (!this.#progressOpen) return
    this.#progressOpen = false
    this.#streams.stderr.write('\n')
  }
}

/** Turns whatever was thrown into a code, one sentence and a hint; never a stack trace. */
export function describeFailure(error: unknown): { code: string; message: string; hint: string | undefined } {
  if (isIotchainError(error)) return { code: error.code, message: oneLine(error.message), hint: error.hint }
  if (error instanceof Error) {
    const code = (error as NodeJS.ErrnoException).code
    return {
      code: typeof code === 'string' ? code : 'unexpected',
      message: oneLine(error.message) || error.name,
      hint: typeof code === 'string' ? undefined : 'this looks like a fault of iotchain itself: please report it',
    }
  }
  return { code: 'unexpected', message: oneLine(String(error)), hint: undefined }
}

function oneLine(text: string): string {
  return text.trim().replaceAll(/\s*[\r\n]+\s*/g, '; ')
}
