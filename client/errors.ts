/** What a reply that is no success means to a person, in one place. */
import { IotchainError } from '../protocol/errors.ts'
import { Code, codeName } from '../transport/coap/codes.ts'
import type { CoapResponse } from '../transport/coap/messages.ts'

/** The error for a response of class 4 or 5. @param what e.g. "/s/temp of coap://host" */
export function responseError(response: CoapResponse, what: string): IotchainError {
  const problem = response.problem
  const detail = problem?.detail ?? problem?.title
  const because = detail === undefined ? '' : `: ${detail.slice(0, 300)}`
  const retryAfterSeconds = response.maxAge
  switch (response.code) {
    case Code.notFound:
      return new IotchainError('client/not-found', `there is no ${what}${because}`, {
        hint: '`iotchain discover` lists what a device or proxy has',
      })
    case Code.unauthorized:
      return new IotchainError('client/unauthorized', `${what} was refused: who asks is not believed${because}`)
    case Code.forbidden:
      return new IotchainError('client/forbidden', `${what} was refused: no right to it${because}`, {
        hint: 'check with `iotchain wallet list` whether the token stands; ask for one with `iotchain request`',
      })
    case Code.notAcceptable:
    case Code.unsupportedContentFormat:
      return new IotchainError('client/not-acceptable', `${what} is not to be had in this form${because}`, {
        hint: 'proxies have signed objects only; mac-objects come from the device itself',
      })
    case Code.conflict:
      return new IotchainError('client/conflict', `${what} was refused as out of order${because}`)
    case Code.tooManyRequests:
    case Code.serviceUnavailable:
      return new IotchainError('client/unavailable', `${what} is not available now${because}`, {
        hint: `try again in ${retryAfterSeconds} s`,
        retryAfterSeconds,
      })
    default:
      return new IotchainError('client/refused', `${what} was refused with ${codeName(response.code)}${because}`)
  }
}
