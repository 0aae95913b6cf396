/** From what a person types to a resource: `coap://device/s/temp`, `coap://proxy/d/0x…/s/temp`, or `--proxy` and `--device`. */
import { type ObjectPlace, pathAt } from '../../client/fetch.ts'
import { claimedDevice } from '../../client/identity.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Address, parseAddress } from '../../protocol/messages/address.ts'
import { formatCoapUri, formatPath, parseCoapUri, parsePath } from '../../transport/coap/uri.ts'
import type { ClientSession } from './client-session.ts'

export interface PlaceOptions {
  readonly proxy?: string
  readonly device?: string
}

/** @throws `client/bad-resource`, `coap/bad-uri`, `message/bad-address`, `coap/unreachable`, `coap/timeout` … */
export async function placeOf(session: ClientSession, text: string, options: PlaceOptions): Promise<ObjectPlace> {
  const { origin, path, via, device } = parseResource(text, options)
  const { connections } = await session.client()
  const connection = await connections.to(origin)
  return { connection, via, path, device: device ?? (await claimedDevice(connection)) }
}

/** The text form that reads the same resource again. */
export function placeText(place: ObjectPlace): string {
  const { address, port } = place.connection.peer
  return formatCoapUri({ scheme: 'coap', host: address, port, path: [...pathAt(place)] })
}

interface ParsedResource {
  readonly origin: string
  readonly path: readonly string[]
  readonly via: 'device' | 'proxy'
  readonly device: Address | undefined
}

export function parseResource(text: string, options: PlaceOptions): ParsedResource {
  const device = options.device === undefined ? undefined : parseAddress(options.device)
  if (options.proxy !== undefined) {
    if (device === undefined) {
      throw badResource('--proxy needs --device 0x…', 'or write coap://PROXY/d/0x…/s/temp')
    }
    if (text.includes('://')) throw badResource('with --proxy the resource is a path', 'for example /s/temp')
    const { origin } = plain(options.proxy)
    const { path } = parsePath(text)
    return { origin, path: checked(path), via: 'proxy', device }
  }
  if (!text.includes('://')) {
    throw badResource(`"${text}" is no CoAP address`, 'write coap://HOST/s/temp, or a path with --proxy and --device')
  }
  const { origin, path } = plain(text)
  const [first, named, ...rest] = path
  if (first === 'd' && named !== undefined && /^0x[0-9a-fA-F]{40}$/.test(named)) {
    const address = parseAddress(named)
    if (device !== undefined && device !== address)
      throw badResource('--device and the address name two devices', 'leave --device out')
    return { origin, path: checked(rest), via: 'proxy', device: address }
  }
  return { origin, path: checked(path), via: 'device', device }
}

function plain(text: string): { readonly origin: string; readonly path: readonly string[] } {
  const { scheme, host, port, path } = parseCoapUri(text)
  if (scheme === 'coaps') {
    throw badResource(
      'resources are read over plain CoAP',
      'write coap://: what is read is sealed and signed by itself',
    )
  }
  return { origin: formatCoapUri({ scheme, host, port }), path }
}

function checked(path: readonly string[]): readonly string[] {
  if (path.length === 0)
    throw badResource('the path of the resource is missing', 'for example /s/temp; `iotchain discover` lists them')
  return path
}

export function resourceName(path: readonly string[]): string {
  return formatPath(path)
}

function badResource(message: string, hint: string): IotchainError {
  return new IotchainError('client/bad-resource', message, { hint })
}
