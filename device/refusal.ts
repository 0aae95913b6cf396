/** A CoAP response of class 4 or 5, as an error that says who refused what, and when to try again. */
import { IotchainError } from '../protocol/errors.ts'
import { codeName } from '../transport/coap/codes.ts'
import type { CoapResponse } from '../transport/coap/messages.ts'
import { OptionNumber } from '../transport/coap/options.ts'

/** `device/refused`; `retryAfterSeconds` from Max-Age where the other side says one. */
export function refusal(reply: CoapResponse, what: string): IotchainError {
  const problem = reply.problem
  const detail = [problem?.title, problem?.detail].filter((t) => t !== undefined && t !== '').join(': ')
  return new IotchainError('device/refused', `${what}: ${codeName(reply.code)}${detail === '' ? '' : ` (${detail})`}`, {
    retryAfterSeconds: reply.options.getUint(OptionNumber.maxAge),
  })
}
