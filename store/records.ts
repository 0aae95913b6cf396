/**
 * Records of the local store. cbor-x keeps plain objects, Maps, Uint8Arrays and bigints as they are and is fast; it is
 * too lax for anything that crosses the network, where `protocol/cbor.ts` rules.
 */
// Without streams and without the native extractor, which is not installed anyway.
import { Encoder } from 'cbor-x/encode'
import { IotchainError } from '../protocol/errors.ts'

const encoder = new Encoder({ tagUint8Array: true })

/** Octets of plain data: objects, arrays, Maps, Sets, Uint8Array, numbers, bigints, strings, booleans, null. */
export function encodeRecord(value: unknown): Uint8Array {
  return encoder.encode(value).slice()
}

/**
 * What `encodeRecord` was given.
 * @throws `store/corrupt` when the octets are no record
 */
export function decodeRecord<T>(bytes: Uint8Array): T {
  try {
    return encoder.decode(bytes) as T
  } catch (cause) {
    throw new IotchainError('store/corrupt', 'a record of the local store cannot be read', {
      cause,
      hint: 'restore the state folder from a backup',
    })
  }
}
