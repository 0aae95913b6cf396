import { concat, utf8 } from '../bytes.ts'
import { encodeCbor } from '../cbor.ts'
import { IotchainError } from '../errors.ts'

/** URI path segments of a resource as the device serves it, decoded, without a query: ['s', 'temp']. */
export type ResourcePath = readonly string[]

/** Last segment of the path under which packs of a resource are sealed (protocol.md §4.7). */
export const PACK_SEGMENT = '@pack'
/** Last segment of the path under which a resource's tombstone is sealed (protocol.md §4.8). */
export const GONE_SEGMENT = '@gone'

export function packPath(path: ResourcePath): ResourcePath {
  return [...path, PACK_SEGMENT]
}

export function gonePath(path: ResourcePath): ResourcePath {
  return [...path, GONE_SEGMENT]
}

/** An array of three, the text, and the head of 20 octets. */
const FRONT = concat(Uint8Array.of(0x83, 0x71), utf8('iotchain-object-1'), Uint8Array.of(0x54))

/**
 * What binds an object to the URI it was asked for: CBOR ["iotchain-object-1", device, path]. The same octets are the
 * external additional data of Encrypt0, Sign1 and Mac0.
 * @param device 20 octets; for a command, the device that shall act
 */
export function externalAad(device: Uint8Array, path: ResourcePath): Uint8Array {
  if (device.length !== 20) throw new IotchainError('object/bad-device', 'a device address has 20 octets')
  return concat(FRONT, device, encodeCbor(path))
}
