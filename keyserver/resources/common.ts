/** What the resources of the key server share: who asks, and in which form answers go out. */

import { IotchainError, isIotchainError } from '../../protocol/errors.ts'
import { parseGname } from '../../protocol/groups/gid.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { formatReply, problemReply } from '../../transport/coap/problem-details.ts'
import type { CoapReply, CoapRequest, Handler, Resource } from '../../transport/coap/server.ts'
import type { SecureFacts } from '../../transport/coap/transport.ts'
import type { Group } from '../group.ts'
import { REFUSALS, refusal } from '../refusals.ts'
import type { Roster } from '../roster.ts'

/** The DTLS side of the request. @throws `keyserver/needs-dtls` on plain CoAP */
export function secureOf(request: CoapRequest): SecureFacts {
  const { secure } = request.peer
  if (secure === undefined) {
    throw refusal('keyserver/needs-dtls', 'this resource answers over DTLS only', { hint: 'use coaps://' })
  }
  return secure
}

/** The group of `:gname`. @throws `keyserver/no-group` */
export function groupOf(roster: Roster, request: CoapRequest): Group {
  const name = groupName(request)
  const group = roster.groups.get(name)
  if (group === undefined) throw refusal('keyserver/no-group', 'there is no such group here')
  return group
}

/** `:gname`, checked. @throws `keyserver/no-group` */
export function groupName(request: CoapRequest): string {
  const name = request.params['gname'] ?? ''
  try {
    parseGname(name)
  } catch {
    throw refusal('keyserver/no-group', 'there is no such group here')
  }
  return name
}

export function groupcomm(payload: Uint8Array, more: Partial<CoapReply> = {}): CoapReply {
  return { code: Code.content, contentFormat: ContentFormat.aceGroupcommCbor, payload, ...more }
}

/** The value of `name=` in the query, undefined when it is absent. */
export function queryValue(request: CoapRequest, name: string): string | undefined {
  return request.query.find((item) => item.startsWith(`${name}=`))?.slice(name.length + 1)
}

/** An unsigned number in the query. @throws `keyserver/bad-request` */
export function queryNumber(request: CoapRequest, name: string): number | undefined {
  const text = queryValue(request, name)
  if (text === undefined) return undefined
  if (!/^\d{1,15}$/.test(text)) throw refusal('keyserver/bad-request', `?${name}= takes a number`)
  return Number(text)
}

/** Messages of another content-format than ours draw 4.15; none at all is taken as ours. */
export function expectFormat(request: CoapRequest, ...formats: number[]): CoapReply | undefined {
  const { contentFormat } = request
  if (contentFormat === undefined || formats.includes(contentFormat)) return undefined
  return formatReply(...formats)
}

/**
 * A resource as it is served: an association made with an enrolment code gets nothing of it (unless `withCode`), and
 * the key server's own refusals say why, also those of class 5 ("2 more confirmations").
 */
export function served(resource: Resource, withCode = false): Resource {
  const wrap = (handler: Handler | undefined): Handler | undefined => {
    if (handler === undefined) return undefined
    return async (request) => {
      try {
        if (!withCode && request.peer.secure?.pskIdentity !== undefined) {
          throw refusal('keyserver/not-yours', 'an association made with an enrolment code may only POST /enroll')
        }
        return await handler(request)
      } catch (error) {
        if (!isIotchainError(error)) throw error
        const code = (REFUSALS as Readonly<Record<string, number>>)[error.code]
        if (code === undefined) throw error
        const detail = error.hint === undefined ? error.message : `${error.message}; ${error.hint}`
        return problemReply(code, { title: error.code, detail }, error.retryAfterSeconds)
      }
    }
  }
  return {
    ...resource,
    get: wrap(resource.get),
    post: wrap(resource.post),
    put: wrap(resource.put),
    delete: wrap(resource.delete),
    fetch: wrap(resource.fetch),
  }
}

/** Decoding faults of a request are the sender's: 4.00 whatever the decoder calls them. */
export function decoded<T>(decode: () => T): T {
  try {
    return decode()
  } catch (cause) {
    if (cause instanceof IotchainError) throw refusal('keyserver/bad-request', cause.message, { cause })
    throw cause
  }
}
