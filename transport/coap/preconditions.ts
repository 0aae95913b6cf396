/** If-Match and If-None-Match (RFC 7252 §5.10.8): the engine asks GET for what is there. */
import { equalBytes } from '../../protocol/bytes.ts'
import { Code, isSuccess } from './codes.ts'
import { IncomingRequest } from './incoming-request.ts'
import type { RouteMatch } from './router.ts'
import type { CoapReply } from './server.ts'

const FAILED: CoapReply = { code: Code.preconditionFailed }

export function hasPreconditions(request: IncomingRequest): boolean {
  return request.ifNoneMatch || request.ifMatch.length > 0
}

/** Undefined when the request may go on, else the reply that ends it. */
export function checkPreconditions(
  request: IncomingRequest,
  match: RouteMatch,
): CoapReply | undefined | Promise<CoapReply | undefined> {
  const { get } = match.resource
  // nothing can show that the condition holds
  if (get === undefined) return FAILED
  const probe = new IncomingRequest(request.message, request.peer, false)
  probe.method = 'GET'
  probe.params = match.params
  probe.payload = new Uint8Array(0)
  probe.contentFormat = undefined
  probe.accept = undefined
  probe.verified = request.verified
  const current = get(probe)
  return current instanceof Promise ? current.then((reply) => judge(request, reply)) : judge(request, current)
}

function judge(request: IncomingRequest, current: CoapReply): CoapReply | undefined {
  const exists = isSuccess(current.code)
  if (!exists && current.code !== Code.notFound) return { code: current.code }
  if (request.ifNoneMatch && exists) return FAILED
  if (request.ifMatch.length === 0) return undefined
  if (!exists) return FAILED
  const { etag } = current
  const holds = request.ifMatch.some(
    (wanted) => wanted.length === 0 || (etag !== undefined && equalBytes(wanted, etag)),
  )
  return holds ? undefined : FAILED
}
