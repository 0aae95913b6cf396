/** POST /authz-info: a client names what it wants and gets a challenge for it (protocol.md "Challenge"). */
import { type CborEncodable, encodeCbor } from '../cbor.ts'
import { decodeMessage, readBytes, readMap, readUint } from './fields.ts'
import { Label } from './labels.ts'

export interface AuthzRequest {
  /** 20 octets */
  readonly client: Uint8Array
  /** 20 octets */
  readonly device: Uint8Array
  /** 4 octets */
  readonly claims: Uint8Array
}

/**
 * ```cddl
 * authz-request = { "client" => bstr .size 20, "device" => bstr .size 20, "claims" => bstr .size 4 }
 * ```
 */
export function encodeAuthzRequest(request: AuthzRequest): Uint8Array {
  return encodeCbor(
    new Map([
      ['client', request.client],
      ['device', request.device],
      ['claims', request.claims],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeAuthzRequest(octets: Uint8Array): AuthzRequest {
  const map = readMap(decodeMessage(octets, 'authz-info'), 'authz-info', ['client', 'device', 'claims'])
  return {
    client: readBytes(map.get('client'), 'client', 20),
    device: readBytes(map.get('device'), 'device', 20),
    claims: readBytes(map.get('claims'), 'claims', 4),
  }
}

export interface Challenge {
  /** N_S, 32 octets: single use, bound to this association */
  readonly kdcchallenge: Uint8Array
  /** seconds for which the challenge holds */
  readonly exi: number
}

/**
 * ```cddl
 * challenge = { 12 => exi: uint, 30 => kdcchallenge: bstr .size 32 }
 * ```
 */
export function encodeChallenge(challenge: Challenge): Uint8Array {
  return encodeCbor(
    new Map<number, CborEncodable>([
      [Label.exi, challenge.exi],
      [Label.kdcchallenge, challenge.kdcchallenge],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeChallenge(octets: Uint8Array): Challenge {
  const map = readMap(decodeMessage(octets, 'challenge'), 'challenge', [Label.exi, Label.kdcchallenge])
  return {
    kdcchallenge: readBytes(map.get(Label.kdcchallenge), 'kdcchallenge', 32),
    exi: readUint(map.get(Label.exi), 'exi', 86_400),
  }
}
