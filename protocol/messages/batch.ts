/**
 * POST /d/{device}/@batch at a proxy: packs, backlog and tombstones in one transfer (protocol.md §4.7). What an item is
 * its path says: one that ends in @pack is a pack, in @gone a tombstone, any other a single object of the past.
 */
import { encodeCbor } from '../cbor.ts'
import { decodeMessage, malformed, readArray, readBytes, readText, readUint } from './fields.ts'

/** Items in one batch, at most; its octets are bounded by what CBOR may be, 64 KiB. */
export const BATCH_ITEMS = 512

export interface BatchItem {
  /** The path that the object was sealed for: ['s', 'temp'], ['s', 'temp', '@pack']. */
  readonly path: readonly string[]
  /** A signed object. */
  readonly object: Uint8Array
}

/**
 * ```cddl
 * batch = [ 1*512 [ path: [1*16 tstr], object: bstr ] ]
 * ```
 */
export function encodeBatch(items: readonly BatchItem[]): Uint8Array {
  return encodeCbor(items.map((item) => [[...item.path], item.object]))
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeBatch(octets: Uint8Array): BatchItem[] {
  return readArray(decodeMessage(octets, 'batch'), 'batch', [1, BATCH_ITEMS]).map((value) => {
    const [path, object] = readArray(value, 'batch item', 2)
    return {
      path: readArray(path, 'path', [1, 16]).map((s) => readText(s, 'path segment', 255)),
      object: readBytes(object, 'object', [1, 65_535]),
    }
  })
}

/**
 * What became of each item, in their order: CoAP codes as one octet, 65 (2.01) or 68 (2.04) for one that is stored.
 * ```cddl
 * batch-reply = [ 1*512 code: 0..255 ]
 * ```
 */
export function encodeBatchReply(codes: readonly number[]): Uint8Array {
  return encodeCbor([...codes])
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeBatchReply(octets: Uint8Array): number[] {
  return readArray(decodeMessage(octets, 'batch reply'), 'batch reply', [1, BATCH_ITEMS]).map((code) => {
    const value = readUint(code, 'code', 255)
    if (value < 64) throw malformed('no response code')
    return value
  })
}
