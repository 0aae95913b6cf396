/** Concise problem details (RFC 9290, content-format 257): how errors explain themselves. */
import { decodeCbor, encodeCbor } from '../../protocol/cbor.ts'
import { Code } from './codes.ts'
import { ContentFormat } from './content-format.ts'
import type { CoapReply } from './server.ts'

/** All text is meant for a person; `title` is a stable code of IoTChain (`area/what`) where one of ours sent it. */
export interface ProblemDetails {
  readonly title?: string | undefined
  readonly detail?: string | undefined
  /** URI of this occurrence. */
  readonly instance?: string | undefined
  /** The code that the problem had at its origin, e.g. behind a proxy. */
  readonly responseCode?: number | undefined
  /** Custom entries: unsigned keys are registered with IANA, text keys are URIs. */
  readonly entries?: ReadonlyMap<number | string, ReadonlyMap<unknown, unknown>> | undefined
}

const TITLE = -1
const DETAIL = -2
const INSTANCE = -3
const RESPONSE_CODE = -4

export function encodeProblem(problem: ProblemDetails): Uint8Array {
  const map = new Map<unknown, unknown>()
  if (problem.title !== undefined) map.set(TITLE, problem.title)
  if (problem.detail !== undefined) map.set(DETAIL, problem.detail)
  if (problem.instance !== undefined) map.set(INSTANCE, problem.instance)
  if (problem.responseCode !== undefined) map.set(RESPONSE_CODE, problem.responseCode)
  for (const [key, value] of problem.entries ?? []) map.set(key, value)
  return encodeCbor(map)
}

/** Undefined for octets that are no problem details: an error must not hide behind its own explanation. */
export function decodeProblem(octets: Uint8Array): ProblemDetails | undefined {
  let map: unknown
  try {
    map = decodeCbor(octets, { canonical: false })
  } catch {
    return undefined
  }
  if (!(map instanceof Map)) return undefined
  const text = (key: number): string | undefined => {
    const value: unknown = map.get(key)
    return typeof value === 'string' ? value : undefined
  }
  const responseCode: unknown = map.get(RESPONSE_CODE)
  const entries = new Map<number | string, ReadonlyMap<unknown, unknown>>()
  for (const [key, value] of map as Map<unknown, unknown>) {
    const custom = typeof key === 'string' || (typeof key === 'number' && key >= 0)
    if (custom && value instanceof Map) entries.set(key as number | string, value)
  }
  return {
    title: text(TITLE),
    detail: text(DETAIL),
    instance: text(INSTANCE),
    responseCode: typeof responseCode === 'number' ? responseCode : undefined,
    entries: entries.size > 0 ? entries : undefined,
  }
}

/** A reply that a handler may return (or throw away its work with): `problemReply(Code.conflict, { title, detail })`. */
export function problemReply(code: number, problem: ProblemDetails, maxAge?: number): CoapReply {
  return { code, contentFormat: ContentFormat.problemDetails, payload: encodeProblem(problem), maxAge }
}

/** 4.15 with what would have been taken. */
export function formatReply(...formats: readonly number[]): CoapReply {
  return problemReply(Code.unsupportedContentFormat, {
    detail: `sent in content-format ${formats.join(' or ')} it is taken`,
  })
}

/** RFC 7252 §5.4.1: 4.02 should say which option it is about. */
export function badOptionReply(option: number): CoapReply {
  return problemReply(Code.badOption, { detail: `option ${option} is not understood` })
}
