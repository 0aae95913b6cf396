/**
 * Reads fixed layouts straight from their octets: deterministic CBOR leaves one encoding for each, so nothing has to
 * be built in between. Tests hold it against the general decoder.
 */
import { type ErrorCode, IotchainError } from './errors.ts'

export class Cursor {
  private readonly bytes: Uint8Array
  private readonly code: ErrorCode
  private at = 0

  /** @param code of the error for anything that does not fit */
  constructor(bytes: Uint8Array, code: ErrorCode) {
    this.bytes = bytes
    this.code = code
  }

  /** The next octets are exactly these. */
  expect(...octets: readonly number[]): void {
    for (const octet of octets) if (this.bytes[this.at++] !== octet) throw this.malformed()
  }

  /** A shortest-form unsigned integer up to 2^53 − 1. */
  uint(): number {
    return this.argument(0)
  }

  /** A byte string of `least` to `most` octets, as a view into the input. */
  bstr(least: number, most: number): Uint8Array {
    const length = this.argument(0x40)
    if (length < least || length > most || length > this.bytes.length - this.at) throw this.malformed()
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }

  /** As `bstr`, as an unsigned big-endian number: at most 6 octets. */
  bstrUint(least: number, most: number): number {
    const length = this.argument(0x40)
    if (length < least || length > most || length > this.bytes.length - this.at) throw this.malformed()
    let value = 0
    for (let i = 0; i < length; i++) value = value * 256 + (this.bytes[this.at + i] as number)
    // a zero in front leaves the same number in a longer form
    if (length > 1 && this.bytes[this.at] === 0) throw this.malformed()
    this.at += length
    return value
  }

  end(): void {
    if (this.at !== this.bytes.length) throw this.malformed()
  }

  private argument(major: number): number {
    const first = this.bytes[this.at++]
    if (first === undefined || (first & 0xe0) !== major) throw this.malformed()
    const minor = first & 31
    if (minor < 24) return minor
    if (minor > 27) throw this.malformed()
    const width = 1 << (minor - 24)
    if (this.at + width > this.bytes.length) throw this.malformed()
    let value = 0
    for (let i = 0; i < width; i++) value = value * 256 + (this.bytes[this.at++] as number)
    const least = minor === 24 ? 24 : 256 ** (width / 2)
    if (value < least || !Number.isSafeInteger(value)) throw this.malformed()
    return value
  }

  private malformed(): IotchainError {
    return new IotchainError(this.code, 'octets that are not laid out as they should be')
  }
}

/** Shortest form of an unsigned integer up to 2^53 − 1. */
export function uintHead(value: number): Uint8Array {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new IotchainError('cbor/unencodable', 'a header number is a whole number, not negative')
  }
  if (value < 24) return Uint8Array.of(value)
  if (value < 0x100) return Uint8Array.of(0x18, value)
  if (value < 0x10000) return Uint8Array.of(0x19, value >> 8, value & 255)
  const out = new Uint8Array(value < 0x100000000 ? 5 : 9)
  const view = new DataView(out.buffer)
  if (out.length === 5) {
    out[0] = 0x1a
    view.setUint32(1, value)
  } else {
    out[0] = 0x1b
    view.setBigUint64(1, BigInt(value))
  }
  return out
}
