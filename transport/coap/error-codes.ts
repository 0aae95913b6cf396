/** Errors know their CoAP code: the one table, and the problem details that go with it. */
import { isIotchainError } from '../../protocol/errors.ts'
import { Code } from './codes.ts'
import { type ProblemDetails, problemReply } from './problem-details.ts'
import type { CoapReply } from './server.ts'

/** `IotchainError.code`, or its area with `/*` → CoAP code. A router may add to it (`RouterOptions.errorCodes`). */
const TABLE: Readonly<Record<string, number>> = {
  'cbor/*': Code.badRequest,
  'cose/*': Code.badRequest,
  'senml/*': Code.badRequest,
  'message/*': Code.badRequest,
  'credential/*': Code.unauthorized,
  'crypto/bad-signature': Code.unauthorized,
  'crypto/bad-tag': Code.unauthorized,
  'object/*': Code.badRequest,
  'object/bad-signature': Code.unauthorized,
  'object/bad-mac': Code.unauthorized,
  'object/unknown-signer': Code.unauthorized,
  'object/unknown-sid': Code.unauthorized,
  'object/no-access': Code.forbidden,
  'object/rollback': Code.conflict,
  'object/equivocation': Code.conflict,
  'object/swapped': Code.conflict,
  'object/re-signed': Code.conflict,
  'object/too-large': Code.requestEntityTooLarge,
  'object/clock': Code.serviceUnavailable,
  'object/seq-exhausted': Code.serviceUnavailable,
  'coap/bad-request': Code.badRequest,
  'coap/not-found': Code.notFound,
  'coap/too-large': Code.requestEntityTooLarge,
  'coap/timeout': Code.gatewayTimeout,
  'coap/unreachable': Code.badGateway,
  'coap/reset': Code.badGateway,
  'chain/*': Code.serviceUnavailable,
  'store/*': Code.internalServerError,
  'store/full': Code.serviceUnavailable,
}

/** The CoAP code of an error; 5.00 for one that is not listed, or no error of ours. */
export function coapCodeOf(error: unknown, more: Readonly<Record<string, number>> = {}): number {
  if (!isIotchainError(error)) return Code.internalServerError
  const area = `${error.code.slice(0, error.code.indexOf('/'))}/*`
  return more[error.code] ?? more[area] ?? TABLE[error.code] ?? TABLE[area] ?? Code.internalServerError
}

/**
 * The reply for an error that a handler threw. Class 4 is the client's business and comes with message and hint;
 * class 5 is ours: the stable code at most, never an exception's text.
 */
export function errorReply(error: unknown, more: Readonly<Record<string, number>> = {}): CoapReply {
  const code = coapCodeOf(error, more)
  if (!isIotchainError(error)) return { code }
  const problem: ProblemDetails = code >> 5 === 4 ? { title: error.code, detail: error.message } : { title: error.code }
  return problemReply(code, problem, error.retryAfterSeconds)
}
