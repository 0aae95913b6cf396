/** A CoAP response of class 4 or 5, as an error that says who refused what, and when to try again. */
import { IotchainError } from '../protocol/errors.ts'
import { Code, codeName } from '../transport/coap/codes.ts'
import type { CoapResponse } from '../transport/coap/messages.ts'

const WAIT = new Set<number>([Code.serviceUnavailable, Code.tooManyRequests])

/** `device/refused`; `retryAfterSeconds` from Max-Age where the other side asks for patience. */
export function refusal(reply: CoapResponse, what: string): IotchainError {
  const problem = reply.problem
  const detail = [problem?.title, problem?.detail].filter((t) => t !== undefined && t !== '').join(': ')
  return new IotchainError('device/refused', `${what}: ${codeName(reply.code)}${detail === '' ? '' : ` (${detail})`}`, {
    retryAfterSeconds: WAIT.has(reply.code) ? reply.maxAge : undefined,
  })
}
