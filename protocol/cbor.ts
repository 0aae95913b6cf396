/**
 * CBOR for every octet that crosses the network, bound to the deterministic form of RFC 8949 §4.2.1: our encoder, our
 * structural check, and cborg, strict, to build the values.
 * Integers come back as number up to 2^53 − 1 and as bigint above, maps as Map, byte strings as Uint8Array
 * (copies, never views into the input), tags 16, 17, 18 and 61 as Tagged; everything else is refused.
 */
import { decode, Tagged } from 'cborg'
import { encodeValue } from './cbor-encode.ts'
import { CBOR_TAGS, scanCbor } from './cbor-scan.ts'
import { IotchainError } from './errors.ts'

export { CBOR_MAX_DEPTH, CBOR_MAX_SIZE } from './cbor-scan.ts'
export { Tagged }

export type CborKey = number | bigint | string | Uint8Array
export type CborMap = Map<CborKey, CborValue>
/** What decodeCbor returns. */
export type CborValue = number | bigint | string | boolean | null | Uint8Array | CborValue[] | CborMap | Tagged

/** What encodeCbor takes: as CborValue, read-only collections too. */
export type CborEncodable =
  | number
  | bigint
  | string
  | boolean
  | null
  | Uint8Array
  | readonly CborEncodable[]
  | ReadonlyMap<CborKey, CborEncodable>
  | Tagged

export interface DecodeCborOptions {
  /**
   * Demand the deterministic form (default). Without it long integer forms, unsorted maps and any float width are
   * read too; duplicate keys, indefinite lengths and foreign tags never are.
   */
  canonical?: boolean
}

const DECODE_OPTIONS = {
  useMaps: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowNaN: false,
  allowInfinity: false,
  rejectDuplicateMapKeys: true,
  tags: Tagged.preserve(...CBOR_TAGS),
}
const STRICT_DECODE_OPTIONS = { ...DECODE_OPTIONS, strict: true }

/**
 * Deterministic CBOR (RFC 8949 §4.2.1): shortest integers, definite lengths, map keys in bytewise order.
 * @param value numbers, bigints, strings, booleans, null, Uint8Array, arrays, Map and Tagged, nested as you like
 * @throws `cbor/unencodable` for undefined, NaN, infinities, integers that a number cannot hold, plain objects
 */
export function encodeCbor(value: unknown): Uint8Array {
  return encodeValue(value)
}

/**
 * One data item that fills `bytes`.
 * @param bytes at most 65 536 octets, nested at most 16 deep
 * @throws `cbor/too-large`, `cbor/too-deep`, `cbor/malformed`, `cbor/not-canonical`, `cbor/unsupported`
 */
export function decodeCbor(bytes: Uint8Array, options: DecodeCborOptions = {}): CborValue {
  const canonical = options.canonical ?? true
  scanCbor(bytes, canonical)
  try {
    return decode(bytes, canonical ? STRICT_DECODE_OPTIONS : DECODE_OPTIONS) as CborValue
  } catch (cause) {
    throw new IotchainError('cbor/malformed', 'not well-formed CBOR', { cause })
  }
}
