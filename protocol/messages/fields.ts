/**
 * Reading a decoded CBOR value strictly: each function returns the value as the type that the CDDL names, or throws
 * `message/malformed` with the place. Nothing is converted, nothing unknown is passed over.
 */
import { type CborEncodable, decodeCbor } from '../cbor.ts'
import { IotchainError } from '../errors.ts'

export function malformed(what: string): IotchainError {
  return new IotchainError('message/malformed', what)
}

/** Decodes deterministic CBOR; what is no CBOR at all is malformed too. @throws IotchainError */
export function decodeMessage(octets: Uint8Array, what: string): unknown {
  if (octets.length === 0) throw malformed(`${what}: empty payload`)
  return decodeCbor(octets)
}

/** A byte string of exactly `size` octets, or of a length within [min, max]. */
export function readBytes(value: unknown, what: string, size: number | readonly [number, number]): Uint8Array {
  if (!(value instanceof Uint8Array)) throw malformed(`${what} is no byte string`)
  const [min, max] = typeof size === 'number' ? [size, size] : size
  if (value.length < min || value.length > max) {
    throw malformed(`${what} has ${value.length} octets, expected ${min === max ? min : `${min} to ${max}`}`)
  }
  return value
}

/** An unsigned integer ≤ max (default 2^53 − 1). */
export function readUint(value: unknown, what: string, max: number = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw malformed(`${what} is no unsigned integer`)
  }
  if (value > max) throw malformed(`${what} is larger than ${max}`)
  return value
}

/** A text string of at most `max` UTF-16 units. */
export function readText(value: unknown, what: string, max: number): string {
  if (typeof value !== 'string') throw malformed(`${what} is no text`)
  if (value.length > max) throw malformed(`${what} is longer than ${max}`)
  return value
}

/** An array of exactly `length` items, or of a length within [min, max]. */
export function readArray(value: unknown, what: string, length: number | readonly [number, number]): unknown[] {
  if (!Array.isArray(value)) throw malformed(`${what} is no array`)
  const [min, max] = typeof length === 'number' ? [length, length] : length
  if (value.length < min || value.length > max) {
    throw malformed(`${what} has ${value.length} items, expected ${min === max ? min : `${min} to ${max}`}`)
  }
  return value
}

/** A map whose keys are all among `known`. */
export function readMap<K extends string | number>(
  value: unknown,
  what: string,
  known: readonly K[],
): ReadonlyMap<K, unknown> {
  if (!(value instanceof Map)) throw malformed(`${what} is no map`)
  for (const key of value.keys()) {
    if (!known.includes(key as K)) throw malformed(`${what} has an unknown entry`)
  }
  return value as ReadonlyMap<K, unknown>
}

/** Reads an optional entry: undefined when it is absent. */
export function optional<T>(value: unknown, read: (present: unknown) => T): T | undefined {
  return value === undefined ? undefined : read(value)
}

/** A map of the entries that are defined, for the CBOR encoder (which sorts them). */
export function mapOf<K extends string | number>(
  entries: readonly (readonly [K, CborEncodable | undefined])[],
): Map<K, CborEncodable> {
  const map = new Map<K, CborEncodable>()
  for (const [key, value] of entries) if (value !== undefined) map.set(key, value)
  return map
}
