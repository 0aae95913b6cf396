/**
 * CBOR for every octet that crosses the network: cborg, bound to the deterministic form of RFC 8949 §4.2.1.
 * Integers come back as number up to 2^53 − 1 and as bigint above, maps as Map, byte strings as Uint8Array
 * (copies, never views into the input), tags 16, 17, 18 and 61 as Tagged; everything else is refused.
 */
import { decode, encode, rfc8949EncodeOptions, Tagged } from 'cborg'
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

const LONE_SURROGATE = /\p{Surrogate}/u

function refuse(what: string): never {
  throw new IotchainError('cbor/unencodable', `${what} has no place in CBOR here`)
}

const ENCODE_OPTIONS = {
  ...rfc8949EncodeOptions,
  typeEncoders: {
    number: (value: number) => {
      if (!Number.isFinite(value)) refuse('a number that is not finite')
      // cborg would turn it into a float without a word
      if (Number.isInteger(value) && !Number.isSafeInteger(value)) refuse('an integer beyond 2^53 as number')
      return null
    },
    string: (value: string) => (LONE_SURROGATE.test(value) ? refuse('text with a lone surrogate') : null),
    undefined: () => refuse('undefined'),
    Object: () => refuse('a plain object'),
  },
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
  try {
    return encode(value, ENCODE_OPTIONS)
  } catch (cause) {
    if (cause instanceof IotchainError) throw cause
    throw new IotchainError('cbor/unencodable', 'a value that has no place in CBOR here', { cause })
  }
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
