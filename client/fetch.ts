/** GET of a sealed object from a device or a proxy. What comes back is not believed yet: open.ts does that. */
import type { Address } from '../protocol/messages/address.ts'
import type { ResourcePath } from '../protocol/objects/aad.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { decodeLinks } from '../transport/coap/link-format.ts'
import type { Link } from '../transport/coap/server.ts'
import { formatPath } from '../transport/coap/uri.ts'
import { responseError } from './errors.ts'

/** Where an object is read: the device has its paths at the root, a proxy under `/d/{device}`. */
export interface ObjectPlace {
  readonly connection: CoapClient
  readonly via: 'device' | 'proxy'
  readonly device: Address
  readonly path: ResourcePath
}

export interface FetchOptions {
  readonly form?: 'signed' | 'mac' | undefined
  /** Of an object at hand: the answer may be that it is still the newest. */
  readonly etag?: Uint8Array | undefined
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** The Uri-Path of a place. */
export function pathAt(place: Pick<ObjectPlace, 'via' | 'device' | 'path'>): readonly string[] {
  return place.via === 'proxy' ? ['d', place.device, ...place.path] : place.path
}

/**
 * @returns the octets, or undefined when the object with `etag` is still the newest (2.03)
 * @throws `client/not-found`, `client/not-acceptable`, `client/unavailable` …, `coap/timeout`, `coap/unreachable`
 */
export async function fetchObject(place: ObjectPlace, options: FetchOptions = {}): Promise<Uint8Array | undefined> {
  const { form = 'signed', etag, timeoutMs, signal } = options
  const response = await place.connection.get(pathAt(place), { accept: acceptOf(form), etag, timeoutMs, signal })
  if (response.code === Code.valid) return undefined
  if (!response.ok) throw responseError(response, describe(place))
  return response.payload
}

/** The links of past objects and packs sealed within [from, to], unix seconds. */
export async function fetchHistory(
  place: ObjectPlace,
  from: number,
  to: number,
  options: FetchOptions = {},
): Promise<Link[]> {
  const response = await place.connection.get(pathAt(place), {
    query: [`from=${Math.floor(from)}`, `to=${Math.ceil(to)}`],
    accept: ContentFormat.linkFormat,
    timeoutMs: options.timeoutMs,
    signal: options.signal,
  })
  if (!response.ok) throw responseError(response, `the history of ${describe(place)}`)
  return decodeLinks(response.text)
}

export function acceptOf(form: 'signed' | 'mac'): number {
  return form === 'signed' ? ContentFormat.coseSign1 : ContentFormat.coseMac0
}

export function describe(place: Pick<ObjectPlace, 'via' | 'device' | 'path'>): string {
  return `${formatPath(place.path)} of ${place.device}${place.via === 'proxy' ? ' at the proxy' : ''}`
}
