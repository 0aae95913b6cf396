/** Options as a list of (number, value), for what has no field of its own on requests and responses. */
import { fromUtf8, utf8 } from '../../protocol/bytes.ts'
import { decodeUint, encodeUint } from './options.ts'

export interface CoapOption {
  readonly number: number
  readonly value: Uint8Array
}

/** A uint option, e.g. `uintOption(OptionNumber.size2, 4096)`. */
export function uintOption(number: number, value: number): CoapOption {
  return { number, value: encodeUint(value) }
}

export function textOption(number: number, value: string): CoapOption {
  return { number, value: utf8(value) }
}

/** The options of a received message, in the order of their numbers. Values are views of the datagram. */
export class OptionSet implements Iterable<CoapOption> {
  readonly #entries: readonly CoapOption[]

  constructor(entries: readonly CoapOption[]) {
    this.#entries = entries
  }

  [Symbol.iterator](): Iterator<CoapOption> {
    return this.#entries[Symbol.iterator]()
  }

  get size(): number {
    return this.#entries.length
  }

  has(number: number): boolean {
    return this.#entries.some((o) => o.number === number)
  }

  /** The first value, undefined when the option is absent. */
  get(number: number): Uint8Array | undefined {
    return this.#entries.find((o) => o.number === number)?.value
  }

  getAll(number: number): Uint8Array[] {
    return this.#entries.filter((o) => o.number === number).map((o) => o.value)
  }

  getUint(number: number): number | undefined {
    const value = this.get(number)
    return value === undefined ? undefined : decodeUint(value)
  }

  /** @throws `message/bad-utf8` */
  getText(number: number): string | undefined {
    const value = this.get(number)
    return value === undefined ? undefined : fromUtf8(value)
  }
}
