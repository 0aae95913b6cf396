/** What a path under `/d` means: the device, the resource, and what of it. Segments that begin with "@" are reserved. */
import { fromHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { GONE_SEGMENT, gonePath, PACK_SEGMENT, packPath, type ResourcePath } from '../protocol/objects/aad.ts'
import { SEQ_LIMIT } from '../protocol/objects/header.ts'
import { formatPath } from '../transport/coap/uri.ts'

/** A past single object is read at `…/@past/{sid in hex}.{seq}`. */
export const PAST_SEGMENT = '@past'

export interface Target {
  readonly device: Address
  /** 20 octets */
  readonly deviceBytes: Uint8Array
  /** The device-side path, without reserved segments. */
  readonly path: ResourcePath
  /** `formatPath(path)`: the name of the resource in the archive. */
  readonly resource: string
  /** The path that the object is sealed for. */
  readonly sealedPath: ResourcePath
  readonly kind: 'object' | 'pack' | 'gone' | 'past'
  /** Of a pack or past object, where the path names one. */
  readonly seq?: number
  readonly sid?: Uint8Array
}

const MAX_SEGMENTS = 16
const MAX_PATH_OCTETS = 512

/**
 * @param segments what follows `/d`: device and path
 * @throws `proxy/bad-path`
 */
export function parseTarget(segments: readonly string[]): Target {
  const [name = '', ...path] = segments
  if (!/^0x[0-9a-f]{40}$/.test(name)) throw badPath('the device is 0x and 40 lower-case hexadecimal digits')
  const device = name as Address
  const reserved = path.findIndex((s) => s.startsWith('@'))
  const own = reserved < 0 ? path : path.slice(0, reserved)
  const tail = reserved < 0 ? [] : path.slice(reserved)
  if (own.length === 0 || own.length > MAX_SEGMENTS) throw badPath('a resource has 1 to 16 path segments')
  if (own.some((s) => s === '' || s === '.' || s === '..')) throw badPath('empty and dotted path segments are not used')
  const resource = formatPath(own)
  if (resource.length > MAX_PATH_OCTETS) throw badPath('the path is too long')
  const target = { device, deviceBytes: addressBytes(device), path: own, resource, sealedPath: own }
  if (tail.length === 0) return { ...target, kind: 'object' }
  if (tail[0] === GONE_SEGMENT && tail.length === 1) return { ...target, sealedPath: gonePath(own), kind: 'gone' }
  if (tail[0] === PACK_SEGMENT && tail.length <= 2) {
    const pack = { ...target, sealedPath: packPath(own), kind: 'pack' as const }
    return tail[1] === undefined ? pack : { ...pack, seq: sequence(tail[1]) }
  }
  if (tail[0] === PAST_SEGMENT && tail.length === 2) {
    const match = /^([0-9a-f]{2,14})\.(\d{1,13})$/.exec(tail[1] as string)
    if (match === null || (match[1] as string).length % 2 !== 0) throw badPath('a past object is {sid}.{seq}')
    return { ...target, kind: 'past', sid: fromHex(match[1] as string), seq: sequence(match[2] as string) }
  }
  throw badPath('path segments that begin with @ are reserved')
}

function sequence(text: string): number {
  const seq = /^(0|[1-9]\d{0,12})$/.test(text) ? Number(text) : Number.NaN
  if (!(seq < SEQ_LIMIT)) throw badPath('a sequence number is from 0 to 2^40 − 1')
  return seq
}

function badPath(why: string): IotchainError {
  return new IotchainError('proxy/bad-path', `this path cannot be used: ${why}`)
}
