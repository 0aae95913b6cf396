/** group_policies(16): how a group works, told to every joiner and at /ace-group/{gname}/policies. */
import { type CborEncodable, encodeCbor } from '../cbor.ts'
import { decodeMessage, malformed, readMap, readUint } from './fields.ts'
import { Label } from './labels.ts'

export interface GroupPolicies {
  /** seconds of one session; RFC 9594 "Key Update Check Interval" */
  readonly sessionSeconds: number
  /** seconds for which an object of a superseded session is still taken as current; RFC 9594 "Expiration Delta" */
  readonly graceSeconds: number
  /** COSE algorithm of the objects' AEAD: 24, 10 or 1 */
  readonly aead: 24 | 10 | 1
  /** lowest number of sessions that one broadcast heals */
  readonly window: number
  /** seconds of one key tree */
  readonly epochSeconds: number
  /** seconds after which a reading counts as stale */
  readonly maxAgeSeconds: number
  /** blocks above a grant, or the chain's own notion */
  readonly confirmations: number | 'safe' | 'finalized'
}

const Policy = { interval: 1, delta: 2, aead: -70001, window: -70002, epoch: -70003, maxAge: -70004, depth: -70005 }
const KNOWN = Object.values(Policy)

/**
 * The value under group_policies(16).
 * ```cddl
 * group-policies = { 1 => session-seconds: uint, 2 => grace-seconds: uint, -70001 => aead: 24 / 10 / 1, -70002 => window: uint,
 *                    -70003 => epoch-seconds: uint, -70004 => max-age: uint, -70005 => confirmations: uint / "safe" / "finalized" }
 * ```
 */
export function policiesValue(p: GroupPolicies): Map<number, CborEncodable> {
  return new Map<number, CborEncodable>([
    [Policy.interval, p.sessionSeconds],
    [Policy.delta, p.graceSeconds],
    [Policy.aead, p.aead],
    [Policy.window, p.window],
    [Policy.epoch, p.epochSeconds],
    [Policy.maxAge, p.maxAgeSeconds],
    [Policy.depth, p.confirmations],
  ])
}

/** @throws `message/malformed` */
export function readPolicies(value: unknown): GroupPolicies {
  const map = readMap(value, 'group_policies', KNOWN)
  const aead = readUint(map.get(Policy.aead), 'aead')
  if (aead !== 24 && aead !== 10 && aead !== 1) throw malformed('aead is none of 24, 10, 1')
  const depth = map.get(Policy.depth)
  return {
    sessionSeconds: readUint(map.get(Policy.interval), 'session length'),
    graceSeconds: readUint(map.get(Policy.delta), 'grace'),
    aead,
    window: readUint(map.get(Policy.window), 'window'),
    epochSeconds: readUint(map.get(Policy.epoch), 'epoch length'),
    maxAgeSeconds: readUint(map.get(Policy.maxAge), 'max-age'),
    confirmations: depth === 'safe' || depth === 'finalized' ? depth : readUint(depth, 'confirmations'),
  }
}

/** `{16: group-policies}`, the payload of GET …/policies. */
export function encodePolicies(p: GroupPolicies): Uint8Array {
  return encodeCbor(new Map([[Label.groupPolicies, policiesValue(p)]]))
}

/** @throws `message/malformed`, `cbor/…` */
export function decodePolicies(octets: Uint8Array): GroupPolicies {
  return readPolicies(
    readMap(decodeMessage(octets, 'policies'), 'policies', [Label.groupPolicies]).get(Label.groupPolicies),
  )
}
