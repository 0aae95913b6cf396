/** Who a device says it is, before anything proves it: the subject of the credential at `/id`. */
import { decodeCbor, Tagged } from '../protocol/cbor.ts'
import { decodeSign1 } from '../protocol/cose/sign1.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { responseError } from './errors.ts'

const SUBJECT = 2
const DEVICE = /^urn:iotchain:device:(0x[0-9a-f]{40})$/

/**
 * Asks a device for its address. A claim only: what it serves is then held against the credentials of that address.
 * @throws `client/no-identity`, `coap/timeout` …
 */
export async function claimedDevice(connection: CoapClient): Promise<Address> {
  const response = await connection.get('/id')
  if (!response.ok) throw responseError(response, 'credential at /id of the device')
  const subject = subjectOf(response.payload)
  const match = typeof subject === 'string' ? DEVICE.exec(subject) : null
  if (match === null) {
    throw new IotchainError('client/no-identity', 'what answers there does not say which device it is', {
      hint: 'give the address of the device with --device 0x…',
    })
  }
  return match[1] as Address
}

function subjectOf(bytes: Uint8Array): unknown {
  try {
    const value = decodeCbor(bytes)
    if (!(value instanceof Tagged) || !(value.value instanceof Tagged)) return undefined
    const claims = decodeCbor(decodeSign1(value.value).payload)
    return claims instanceof Map ? claims.get(SUBJECT) : undefined
  } catch (error) {
    if (isIotchainError(error)) return undefined
    throw error
  }
}
