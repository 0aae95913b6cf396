/**
 * The ledger of what was sent: one JSON line per step, appended and synced before the step leaves, so that a command
 * that was cut off goes on where it stopped instead of paying twice. A line that a power cut tore is passed over.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import type { Hex } from '../chain/types.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'

export interface LedgerLine {
  /** ISO 8601 */
  readonly at: string
  /** names the step: the same command makes the same key */
  readonly key: string
  readonly what: string
  readonly chainId: number
  readonly from: Address
  /** signed: about to be sent; mined: in the chain; failed: refused by a contract or overtaken */
  readonly phase: 'signed' | 'mined' | 'failed'
  readonly hash: Hex
  readonly raw?: Hex | undefined
  /** of one that was sent again with a higher fee: the hashes of those before it */
  readonly earlier?: readonly Hex[] | undefined
  readonly block?: number | undefined
  readonly gasUsed?: number | undefined
  /** decimal */
  readonly feeWei?: string | undefined
  readonly contract?: Address | undefined
  readonly error?: string | undefined
}

export class Ledger {
  readonly #file: string
  #lines: LedgerLine[]

  constructor(file: string) {
    this.#file = file
    this.#lines = existsSync(file) ? parse(readFileSync(file, 'utf8')) : []
  }

  get lines(): readonly LedgerLine[] {
    return this.#lines
  }

  /** @throws `owner/ledger`: then nothing may be sent */
  append(line: LedgerLine): void {
    try {
      const file = openSync(this.#file, 'a', 0o600)
      try {
        // begins on a line of its own even after a torn one
        writeSync(file, `${this.#isTorn() ? '\n' : ''}${JSON.stringify(line)}\n`)
        fsyncSync(file)
      } finally {
        closeSync(file)
      }
    } catch (cause) {
      throw new IotchainError('owner/ledger', `cannot write the ledger ${this.#file}`, {
        hint: 'Nothing was sent. Free some disk space, or check owner and mode of the file.',
        cause,
      })
    }
    this.#lines.push(line)
  }

  /** The newest line of a step on this chain by this account. */
  latest(key: string, chainId: number, from: Address): LedgerLine | undefined {
    return this.#lines.findLast((l) => l.key === key && l.chainId === chainId && l.from === from)
  }

  #isTorn(): boolean {
    if (!existsSync(this.#file)) return false
    const text = readFileSync(this.#file)
    return text.length > 0 && text[text.length - 1] !== 0x0a
  }
}

function parse(text: string): LedgerLine[] {
  return text.split('\n').flatMap((line) => {
    if (line.trim() === '') return []
    try {
      const value = JSON.parse(line) as LedgerLine
      return typeof value.key === 'string' && typeof value.phase === 'string' ? [value] : []
    } catch {
      return []
    }
  })
}
