/** What the key server answers when it says no: the codes of docs/errors.md, each with its CoAP response code. */
import { IotchainError, type IotchainErrorOptions } from '../protocol/errors.ts'
import { Code } from '../transport/coap/codes.ts'
import type { Standing } from './readings.ts'

/** For the router: error code → CoAP code. */
export const REFUSALS = {
  'keyserver/bad-request': Code.badRequest,
  'keyserver/bad-puzzle': Code.badRequest,
  'keyserver/bad-proof': Code.unauthorized,
  'keyserver/bad-code': Code.unauthorized,
  'keyserver/login-required': Code.unauthorized,
  'keyserver/certificate': Code.unauthorized,
  'keyserver/needs-dtls': Code.unauthorized,
  'keyserver/no-token': Code.forbidden,
  'keyserver/not-served': Code.forbidden,
  'keyserver/not-yours': Code.forbidden,
  'keyserver/wrong-key': Code.forbidden,
  'keyserver/not-relayed': Code.forbidden,
  'keyserver/collision': Code.forbidden,
  'keyserver/no-group': Code.notFound,
  'keyserver/not-member': Code.notFound,
  'keyserver/other-certificate': Code.conflict,
  'keyserver/busy': Code.serviceUnavailable,
  'keyserver/confirmations': Code.serviceUnavailable,
  'keyserver/not-registered': Code.serviceUnavailable,
  'keyserver/full': Code.serviceUnavailable,
  'keyserver/relay-busy': Code.tooManyRequests,
  'keyserver/relay-spent': Code.tooManyRequests,
  'keyserver/guessing': Code.tooManyRequests,
  'group/quota': Code.tooManyRequests,
  'group/full': Code.serviceUnavailable,
  'group/no-member': Code.notFound,
  'group/not-covered': Code.forbidden,
  'group/no-epoch': Code.notFound,
  'pki/*': Code.badRequest,
  'chain/*': Code.serviceUnavailable,
  'store/*': Code.serviceUnavailable,
} as const

type KeyServerCode = Extract<keyof typeof REFUSALS, `keyserver/${string}`>

export function refusal(code: KeyServerCode, message: string, options: IotchainErrorOptions = {}): IotchainError {
  return new IotchainError(code, message, options)
}

/** Why a device is not served, for itself and for those who want its keys. */
export function notServed(standing: Standing, missing: number | undefined, blockSeconds: number): IotchainError {
  switch (standing) {
    case 'good':
    case 'waiting':
      return confirmationsMissing('the registration', missing, blockSeconds)
    case 'unregistered':
      return refusal('keyserver/not-registered', 'the device is not in the registry', {
        hint: 'its owner has to submit the registration that `iotchain-device registration` prints',
        retryAfterSeconds: 15,
      })
    case 'inactive':
      return refusal('keyserver/not-served', 'the owner has deactivated the device')
    case 'other-key-server':
    case 'foreign-key-server':
      return refusal('keyserver/not-served', 'the registry names another key server for this device', {
        hint: 'ask that one, or have the owner update the registry',
      })
    case 'other-owner':
    case 'foreign-owner':
      return refusal('keyserver/not-served', 'this key server does not serve the owner of the device', {
        hint: 'list the owner under `owners:`, or enrol the device with a code of that owner',
      })
  }
}

/**
 * @param missing blocks; undefined while waiting for the chain's own finality
 * @param blockSeconds how far apart blocks are
 */
export function confirmationsMissing(what: string, missing: number | undefined, blockSeconds: number): IotchainError {
  const count =
    missing === undefined ? 'is not final yet' : `needs ${missing} more confirmation${missing === 1 ? '' : 's'}`
  return refusal('keyserver/confirmations', `${what} ${count}`, {
    hint: 'repeat the request; nothing else is to be done',
    retryAfterSeconds: Math.min(300, Math.max(1, (missing ?? 10) * blockSeconds)),
  })
}
