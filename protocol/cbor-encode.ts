/**
 * Deterministic CBOR encoding (RFC 8949 §4.2.1). Our own: cborg 6.1.5 writes half-precision subnormals in five octets
 * instead of three, turns whole numbers beyond 2^53 into floats without a word, and encodes a key twice when two keys
 * of a Map have the same encoding.
 */
import { Tagged } from 'cborg'
import { compareBytes } from './bytes.ts'
import { CBOR_TAGS, isFloat16 } from './cbor-scan.ts'
import { IotchainError } from './errors.ts'

const text = new TextEncoder()
const LONE_SURROGATE = /\p{Surrogate}/u
/** Cyclic arrays end here too. */
const ENCODE_DEPTH = 64

/** Grows as needed; what is written is copied out once, at the end. */
export class CborWriter {
  private bytes = new Uint8Array(256)
  private view = new DataView(this.bytes.buffer)
  private at = 0

  /** Makes room for `length` more octets. @returns where they go */
  private reserve(length: number): number {
    const start = this.at
    this.at += length
    if (this.at > this.bytes.length) {
      const larger = new Uint8Array(Math.max(2 * this.bytes.length, this.at))
      larger.set(this.bytes)
      this.bytes = larger
      this.view = new DataView(larger.buffer)
    }
    return start
  }

  head(major: number, argument: number | bigint): void {
    const first = major << 5
    if (argument < 24) {
      this.octet(first | Number(argument))
      return
    }
    const size = argument < 0x100 ? 1 : argument < 0x10000 ? 2 : argument < 0x100000000 ? 4 : 8
    // the buffer may move: reserve before touching it
    const at = this.reserve(1 + size)
    this.bytes[at] = first | (24 + Math.log2(size))
    if (size === 1) this.bytes[at + 1] = Number(argument)
    else if (size === 2) this.view.setUint16(at + 1, Number(argument))
    else if (size === 4) this.view.setUint32(at + 1, Number(argument))
    else this.view.setBigUint64(at + 1, BigInt(argument))
  }

  octet(value: number): void {
    const at = this.reserve(1)
    this.bytes[at] = value
  }

  octets(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length)
    this.bytes.set(bytes, at)
  }

  /** Short text without any character beyond ASCII. @returns false, and nothing written, for any other */
  ascii(value: string): boolean {
    const { length } = value
    if (length > 40) return false
    for (let i = 0; i < length; i++) if (value.charCodeAt(i) > 0x7f) return false
    this.head(3, length)
    const at = this.reserve(length)
    for (let i = 0; i < length; i++) this.bytes[at + i] = value.charCodeAt(i)
    return true
  }

  /** Shortest of half, single and double precision that keeps the value. */
  float(value: number): void {
    if (isFloat16(value)) {
      const at = this.reserve(3)
      this.bytes[at] = 0xf9
      this.view.setUint16(at + 1, toFloat16(value))
    } else if (Math.fround(value) === value) {
      const at = this.reserve(5)
      this.bytes[at] = 0xfa
      this.view.setFloat32(at + 1, value)
    } else {
      const at = this.reserve(9)
      this.bytes[at] = 0xfb
      this.view.setFloat64(at + 1, value)
    }
  }

  /** Any value that CBOR has a place for here. @throws `cbor/unencodable` */
  value(value: unknown): void {
    write(this, value, 0)
  }

  finish(): Uint8Array {
    return this.bytes.slice(0, this.at)
  }

  /** Forgets what was written, keeps the room. */
  reset(): void {
    this.at = 0
  }
}

/** Encoding ends where it began, so one buffer serves most calls. */
const shared = new CborWriter()

/** @throws `cbor/unencodable` */
export function encodeValue(value: unknown): Uint8Array {
  shared.reset()
  write(shared, value, 0)
  return shared.finish()
}

function write(w: CborWriter, value: unknown, depth: number): void {
  if (depth > ENCODE_DEPTH) refuse('nesting deeper than 64')
  if (typeof value === 'number') writeNumber(w, value)
  else if (typeof value === 'string') writeText(w, value)
  else if (value instanceof Uint8Array) {
    w.head(2, value.length)
    w.octets(value)
  } else if (typeof value === 'bigint') writeBigint(w, value)
  else if (typeof value === 'boolean') w.octet(value ? 0xf5 : 0xf4)
  else if (value === null) w.octet(0xf6)
  else if (Array.isArray(value)) {
    w.head(4, value.length)
    for (const item of value) write(w, item, depth + 1)
  } else if (value instanceof Map) writeMap(w, value, depth)
  else if (value instanceof Tagged) {
    if (!CBOR_TAGS.has(value.tag)) refuse('another tag than 16, 17, 18 and 61')
    w.head(6, value.tag)
    write(w, value.value, depth + 1)
  } else refuse(value === undefined ? 'undefined' : `a value of type ${typeof value}`)
}

function writeNumber(w: CborWriter, value: number): void {
  if (Number.isSafeInteger(value)) {
    if (value >= 0) w.head(0, value)
    else w.head(1, -1 - value)
  } else if (!Number.isFinite(value)) refuse('a number that is not finite')
  else if (Number.isInteger(value)) refuse('an integer beyond 2^53 as number')
  else w.float(value)
}

function writeBigint(w: CborWriter, value: bigint): void {
  if (value >= 2n ** 64n || value < -(2n ** 64n)) refuse('an integer beyond 64 bits')
  if (value >= 0n) w.head(0, value)
  else w.head(1, -1n - value)
}

function writeText(w: CborWriter, value: string): void {
  if (w.ascii(value)) return
  if (LONE_SURROGATE.test(value)) refuse('text with a lone surrogate')
  if (value.startsWith('\uFEFF')) refuse('text with a byte order mark')
  const bytes = text.encode(value)
  w.head(3, bytes.length)
  w.octets(bytes)
}

function writeMap(w: CborWriter, map: ReadonlyMap<unknown, unknown>, depth: number): void {
  const entries = [...map].map(([key, value]) => ({ key: encodeKey(key), value }))
  entries.sort((a, b) => compareBytes(a.key, b.key))
  w.head(5, entries.length)
  let previous: Uint8Array | undefined
  for (const { key, value } of entries) {
    // equal byte strings, or a number and the bigint of its value, are different keys to a Map
    if (previous !== undefined && compareBytes(previous, key) === 0) refuse('a map key twice')
    previous = key
    w.octets(key)
    write(w, value, depth + 1)
  }
}

/** Keys of one octet: 0 to 23 and −1 to −24. */
const SHORT_KEYS = Array.from({ length: 0x38 }, (_, octet) => Uint8Array.of(octet))

function encodeKey(key: unknown): Uint8Array {
  if (typeof key === 'number' && key > -25 && key < 24 && Number.isInteger(key)) {
    return SHORT_KEYS[key < 0 ? 0x1f - key : key] as Uint8Array
  }
  const simple =
    Number.isInteger(key) || typeof key === 'bigint' || typeof key === 'string' || key instanceof Uint8Array
  if (!simple) refuse('a map key that is neither integer nor string')
  const writer = new CborWriter()
  write(writer, key, 0)
  return writer.finish()
}

/** IEEE 754 half precision of a value that has one. */
function toFloat16(value: number): number {
  const sign = value < 0 ? 0x8000 : 0
  const magnitude = Math.abs(value)
  if (magnitude < 2 ** -14) return sign | (magnitude * 2 ** 24)
  const exponent = Math.floor(Math.log2(magnitude))
  return sign | ((exponent + 15) << 10) | ((magnitude / 2 ** exponent - 1) * 1024)
}

function refuse(what: string): never {
  throw new IotchainError('cbor/unencodable', `${what} has no place in CBOR here`)
}
