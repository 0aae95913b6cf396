/** CoAP URIs (RFC 7252 §6) and the text form of paths. */
import { isIP } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'

export interface CoapUri {
  readonly scheme: 'coap' | 'coaps'
  /** A name or an IP literal without brackets; an IPv6 zone as in `fe80::1%eth0`. */
  readonly host: string
  readonly port: number
  readonly path: readonly string[]
  readonly query: readonly string[]
}

export const COAP_PORT = 5683
export const COAPS_PORT = 5684

const MAX_SEGMENT = 255
// scheme "://" ( "[" v6 "]" | host ) [ ":" port ] [ path ] [ "?" query ] [ "#" … refused ]
const SYNTAX = /^(coaps?):\/\/(?:\[([^\]]+)\]|([^/?#:[\]@]*))(?::(\d*))?(\/[^?#]*)?(?:\?([^#]*))?$/i

/**
 * Parses `coap://[2001:db8::1]:5683/s/temp?from=1` as RFC 7252 §6.4 says.
 * @throws `coap/bad-uri`
 */
export function parseCoapUri(text: string): CoapUri {
  const match = SYNTAX.exec(text)
  if (match === null) throw badUri(text, whyNone(text))
  const scheme = (match[1] as string).toLowerCase() as 'coap' | 'coaps'
  const literal = match[2]
  // RFC 6874 writes the zone as %25eth0
  const host = literal === undefined ? decodeComponent(match[3] ?? '', text).toLowerCase() : literal.replace('%25', '%')
  if (host === '') throw badUri(text, 'the host is missing')
  if (literal !== undefined && isIP(host.split('%')[0] as string) !== 6) throw badUri(text, 'no IPv6 address in [ ]')
  const port = match[4] ? Number(match[4]) : scheme === 'coap' ? COAP_PORT : COAPS_PORT
  if (port < 1 || port > 65535) throw badUri(text, 'the port must be 1 to 65535')
  return { scheme, host, port, path: splitPath(match[5] ?? '', text), query: splitQuery(match[6], text) }
}

function whyNone(text: string): string {
  if (/^coaps?\+\w+:/i.test(text)) return 'CoAP goes over UDP here, not over TCP or WebSockets'
  if (!/^coaps?:\/\//i.test(text)) return 'it does not begin with coap:// or coaps://'
  return 'it is not of the form coap://host[:port]/path?query'
}

/** The inverse of `parseCoapUri`; leaves out a default port. */
export function formatCoapUri(uri: {
  readonly scheme: 'coap' | 'coaps'
  readonly host: string
  readonly port?: number | undefined
  readonly path?: readonly string[] | undefined
  readonly query?: readonly string[] | undefined
}): string {
  const host = uri.host.includes(':') ? `[${uri.host.replace('%', '%25')}]` : uri.host
  const standard = uri.scheme === 'coap' ? COAP_PORT : COAPS_PORT
  const port = uri.port === undefined || uri.port === standard ? '' : `:${uri.port}`
  return `${uri.scheme}://${host}${port}${formatPath(uri.path ?? [])}${formatQuery(uri.query ?? [])}`
}

/**
 * `/s/temp?from=1` → its segments and query items. A leading slash is optional; `/` and `` are the root.
 * @throws `coap/bad-uri`
 */
export function parsePath(text: string): { path: string[]; query: string[] } {
  const mark = text.indexOf('?')
  const path = mark < 0 ? text : text.slice(0, mark)
  return { path: splitPath(path, text), query: splitQuery(mark < 0 ? undefined : text.slice(mark + 1), text) }
}

/** Segments → `/s/temp`. Two paths have the same text exactly when their segments are the same. */
export function formatPath(segments: readonly string[]): string {
  let out = ''
  for (const segment of segments) out += `/${encodeSegment(segment)}`
  return out === '' ? '/' : out
}

export function formatQuery(items: readonly string[]): string {
  return items.length === 0 ? '' : `?${items.map(encodeQueryItem).join('&')}`
}

const PLAIN_SEGMENT = /^[A-Za-z0-9\-._~!$'()*+,;=:@]*$/

export function encodeSegment(segment: string): string {
  if (PLAIN_SEGMENT.test(segment)) return segment
  return encodeText(segment).replace(/%(24|2B|2C|3B|3D|3A|40)/g, decodeURIComponent)
}

function encodeQueryItem(item: string): string {
  return encodeText(item).replace(/%(24|2B|2C|3B|3D|3A|40|2F|3F)/g, decodeURIComponent)
}

// encodeURIComponent throws on a lone surrogate
function encodeText(text: string): string {
  return encodeURIComponent(text.replace(/\p{Surrogate}/gu, '�'))
}

function splitPath(text: string, whole: string): string[] {
  const path = text.startsWith('/') ? text.slice(1) : text
  return path === '' ? [] : path.split('/').map((segment) => decodeComponent(segment, whole))
}

function splitQuery(text: string | undefined, whole: string): string[] {
  return text === undefined ? [] : text.split('&').map((item) => decodeComponent(item, whole))
}

function decodeComponent(text: string, whole: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(text)
  } catch {
    throw badUri(whole, 'a percent sign is not followed by two hex digits of UTF-8')
  }
  if (Buffer.byteLength(decoded) > MAX_SEGMENT) throw badUri(whole, 'a part of it is longer than 255 octets')
  return decoded
}

function badUri(text: string, why: string): IotchainError {
  const shown = text.length > 100 ? `${text.slice(0, 100)}…` : text
  return new IotchainError('coap/bad-uri', `cannot use ${JSON.stringify(shown)} as a CoAP address: ${why}`, {
    hint: 'write coap://host/path or coaps://host/path; an IPv6 address goes into [ ]',
  })
}
