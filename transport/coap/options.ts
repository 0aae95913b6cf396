/** CoAP option numbers and what the engine knows about each (RFC 7252 §5.4, §5.10 and the RFCs named below). */

export const OptionNumber = {
  ifMatch: 1,
  uriHost: 3,
  etag: 4,
  ifNoneMatch: 5,
  /** RFC 7641 */
  observe: 6,
  uriPort: 7,
  locationPath: 8,
  uriPath: 11,
  contentFormat: 12,
  maxAge: 14,
  uriQuery: 15,
  /** RFC 8768 */
  hopLimit: 16,
  accept: 17,
  locationQuery: 20,
  /** RFC 7959 */
  block2: 23,
  block1: 27,
  size2: 28,
  proxyUri: 35,
  proxyScheme: 39,
  size1: 60,
  /** RFC 9175 */
  echo: 252,
  /** RFC 7967 */
  noResponse: 258,
  /** RFC 9175 */
  requestTag: 292,
} as const

interface OptionRule {
  readonly name: string
  readonly min: number
  readonly max: number
  readonly repeatable: boolean
}

const RULES = new Map<number, OptionRule>()

function rule(number: number, name: string, min: number, max: number, repeatable = false): void {
  RULES.set(number, { name, min, max, repeatable })
}

rule(OptionNumber.ifMatch, 'If-Match', 0, 8, true)
rule(OptionNumber.uriHost, 'Uri-Host', 1, 255)
rule(OptionNumber.etag, 'ETag', 1, 8, true)
rule(OptionNumber.ifNoneMatch, 'If-None-Match', 0, 0)
rule(OptionNumber.observe, 'Observe', 0, 3)
rule(OptionNumber.uriPort, 'Uri-Port', 0, 2)
rule(OptionNumber.locationPath, 'Location-Path', 0, 255, true)
rule(OptionNumber.uriPath, 'Uri-Path', 0, 255, true)
rule(OptionNumber.contentFormat, 'Content-Format', 0, 2)
rule(OptionNumber.maxAge, 'Max-Age', 0, 4)
rule(OptionNumber.uriQuery, 'Uri-Query', 0, 255, true)
rule(OptionNumber.hopLimit, 'Hop-Limit', 1, 1)
rule(OptionNumber.accept, 'Accept', 0, 2)
rule(OptionNumber.locationQuery, 'Location-Query', 0, 255, true)
rule(OptionNumber.block2, 'Block2', 0, 3)
rule(OptionNumber.block1, 'Block1', 0, 3)
rule(OptionNumber.size2, 'Size2', 0, 4)
rule(OptionNumber.proxyUri, 'Proxy-Uri', 1, 1034)
rule(OptionNumber.proxyScheme, 'Proxy-Scheme', 1, 255)
rule(OptionNumber.size1, 'Size1', 0, 4)
rule(OptionNumber.echo, 'Echo', 1, 40)
rule(OptionNumber.noResponse, 'No-Response', 0, 1)
rule(OptionNumber.requestTag, 'Request-Tag', 0, 8, true)

/** An odd number: a recipient that does not understand it must not go on (RFC 7252 §5.4.1). */
export function isCritical(number: number): boolean {
  return (number & 1) === 1
}

/** Part of the cache key of a request unless it is a NoCacheKey option (RFC 7252 §5.4.2). */
export function isCacheKey(number: number): boolean {
  return (number & 0x1e) !== 0x1c
}

/** Whether the engine knows the option and `length` octets are a legal value of it (RFC 7252 §5.4.3). */
export function isLegalOption(number: number, length: number): boolean {
  const known = RULES.get(number)
  return known !== undefined && length >= known.min && length <= known.max
}

export function isRepeatable(number: number): boolean {
  return RULES.get(number)?.repeatable === true
}

export function optionName(number: number): string {
  return RULES.get(number)?.name ?? `option ${number}`
}

/** A uint value: as few octets as it takes, none for 0 (RFC 7252 §3.2). @param value 0 … 2³²−1 */
export function encodeUint(value: number): Uint8Array {
  if (value === 0) return EMPTY
  if (value < 0x100) return Uint8Array.of(value)
  if (value < 0x10000) return Uint8Array.of(value >>> 8, value & 255)
  if (value < 0x1000000) return Uint8Array.of(value >>> 16, (value >>> 8) & 255, value & 255)
  return Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255)
}

/** Leading zeros are accepted, as RFC 7252 §3.2 asks of a recipient. */
export function decodeUint(octets: Uint8Array, start = 0, end = octets.length): number {
  let value = 0
  for (let i = start; i < end; i++) value = value * 256 + (octets[i] as number)
  return value
}

const EMPTY = new Uint8Array(0)
