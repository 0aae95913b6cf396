/** POST /ace-group/{gname}: how a device or a client becomes a member (RFC 9594 §4.3, protocol.md "Transport"). */
import { concat, utf8 } from '../bytes.ts'
import { encodeCbor } from '../cbor.ts'
import {
  decodeMessage,
  malformed,
  mapOf,
  optional,
  readArray,
  readBytes,
  readMap,
  readText,
  readUint,
} from './fields.ts'
import { readSignedKeyRequest, type SignedKeyRequest, signedKeyRequestValue } from './key-request.ts'
import { Label, SD_SH } from './labels.ts'
import { type GroupPolicies, policiesValue, readPolicies } from './policies.ts'

export interface JoinRequest {
  /** the claims bit of the group, 0..31 */
  readonly scope: number
  /** encoded COSE_Key: devices and clients that will command */
  readonly clientCred?: Uint8Array | undefined
  /** device: Ed25519 over joinProofInput; client: signed KeyRequest at its first join; absent at further bits */
  readonly clientCredVerify?: Uint8Array | SignedKeyRequest | undefined
}

const REQUEST_LABELS = [Label.scope, Label.clientCred, Label.clientCredVerify]

/**
 * ```cddl
 * join-request = { 3 => scope: 0..31, ? 5 => client_cred: bstr .cbor COSE_Key,
 *                  ? 24 => client_cred_verify: bstr .size 64 / signed-key-request }
 * ```
 */
export function encodeJoinRequest(request: JoinRequest): Uint8Array {
  const verify = request.clientCredVerify
  return encodeCbor(
    mapOf<number>([
      [Label.scope, request.scope],
      [Label.clientCred, request.clientCred],
      [
        Label.clientCredVerify,
        verify === undefined || verify instanceof Uint8Array ? verify : signedKeyRequestValue(verify),
      ],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeJoinRequest(octets: Uint8Array): JoinRequest {
  const map = readMap(decodeMessage(octets, 'join request'), 'join request', REQUEST_LABELS)
  return {
    scope: readUint(map.get(Label.scope), 'scope', 31),
    clientCred: optional(map.get(Label.clientCred), (v) => readBytes(v, 'client_cred', [1, 256])),
    clientCredVerify: optional(map.get(Label.clientCredVerify), (v) =>
      v instanceof Uint8Array ? readBytes(v, 'client_cred_verify', 64) : readSignedKeyRequest(v),
    ),
  }
}

/** What a device signs with its object-signing key to join: "iotchain-join-1" ‖ gid ‖ channelBinding(). */
export function joinProofInput(gid: Uint8Array, channel: Uint8Array): Uint8Array {
  if (gid.length !== 8 || channel.length !== 32) throw malformed('gid has 8 octets and the channel binding 32')
  return concat(utf8('iotchain-join-1'), gid, channel)
}

export interface SessionKey {
  readonly session: number
  /** K_j, 16 octets */
  readonly key: Uint8Array
}

export interface JoinResponse {
  /** keys of the current session up to the newest published; empty in join mode `next` */
  readonly keys: readonly SessionKey[]
  /** newest published session */
  readonly num: number
  /** unix seconds: end of the newest published session */
  readonly exp: number
  /** seconds left until exp */
  readonly exi: number
  /** the key server's clock, unix seconds */
  readonly serverTime: number
  /** signed credentials (CWT) of the group's devices; for a command client its own besides */
  readonly creds: readonly Uint8Array[]
  /** Sender IDs, one for each of `creds` (the newest of that credential in this group) */
  readonly peerIdentifiers: readonly Uint8Array[]
  readonly policies: GroupPolicies
  /** encoded COSE_Key that signs broadcasts and credentials */
  readonly kdcCred: Uint8Array
  /** the joiner's Sender ID, 1 to 7 octets: devices and command clients */
  readonly senderId?: Uint8Array | undefined
  readonly controlUri: string
  /** encoded personal key S_i */
  readonly personalKey: Uint8Array
  /** where broadcasts are observed, plain CoAP */
  readonly controlGroupUri: string
}

const RESPONSE_LABELS = [
  Label.gkty,
  Label.key,
  Label.num,
  Label.exp,
  Label.exi,
  Label.creds,
  Label.peerIdentifiers,
  Label.groupPolicies,
  Label.kdcCred,
  Label.rekeyingScheme,
  Label.senderId,
  Label.controlUri,
  Label.mgtKeyMaterial,
  Label.controlGroupUri,
  Label.serverTime,
]

/**
 * ```cddl
 * join-response = { 7 => -70001, ? 8 => keys, 9 => num: uint, 11 => exp: uint, 12 => exi: uint, 13 => [* bstr], 15 => [* sid],
 *                   16 => group-policies, 17 => kdc_cred: bstr .cbor COSE_Key, 20 => -70001, ? 21 => sid, 26 => control_uri: tstr,
 *                   27 => bstr .cbor personal-key, 28 => control_group_uri: tstr, -70002 => server-time: uint }
 * keys = [+ [session: 1..4294967295, K: bstr .size 16]]
 * sid = bstr .size (1..7)
 * ```
 */
export function encodeJoinResponse(r: JoinResponse): Uint8Array {
  return encodeCbor(
    mapOf<number>([
      [Label.gkty, SD_SH],
      [Label.key, r.keys.length === 0 ? undefined : r.keys.map((k) => [k.session, k.key])],
      [Label.num, r.num],
      [Label.exp, r.exp],
      [Label.exi, r.exi],
      [Label.creds, [...r.creds]],
      [Label.peerIdentifiers, [...r.peerIdentifiers]],
      [Label.groupPolicies, policiesValue(r.policies)],
      [Label.kdcCred, r.kdcCred],
      [Label.rekeyingScheme, SD_SH],
      [Label.senderId, r.senderId],
      [Label.controlUri, r.controlUri],
      [Label.mgtKeyMaterial, r.personalKey],
      [Label.controlGroupUri, r.controlGroupUri],
      [Label.serverTime, r.serverTime],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeJoinResponse(octets: Uint8Array): JoinResponse {
  const map = readMap<number>(decodeMessage(octets, 'join response'), 'join response', RESPONSE_LABELS)
  if (map.get(Label.gkty) !== SD_SH || map.get(Label.rekeyingScheme) !== SD_SH) {
    throw malformed('the key server uses a group key scheme that this program does not know')
  }
  return {
    keys: optional(map.get(Label.key), readSessionKeys) ?? [],
    num: readUint(map.get(Label.num), 'num', 0xffffffff),
    exp: readUint(map.get(Label.exp), 'exp'),
    exi: readUint(map.get(Label.exi), 'exi'),
    serverTime: readUint(map.get(Label.serverTime), 'server time'),
    creds: readArray(map.get(Label.creds), 'creds', [0, 1024]).map((c) => readBytes(c, 'credential', [1, 32_768])),
    peerIdentifiers: readArray(map.get(Label.peerIdentifiers), 'peer_identifiers', [0, 1024]).map((s) =>
      readBytes(s, 'Sender ID', [1, 7]),
    ),
    policies: readPolicies(map.get(Label.groupPolicies)),
    kdcCred: readBytes(map.get(Label.kdcCred), 'kdc_cred', [1, 256]),
    senderId: optional(map.get(Label.senderId), (v) => readBytes(v, 'Sender ID', [1, 7])),
    controlUri: readText(map.get(Label.controlUri), 'control_uri', 512),
    personalKey: readBytes(map.get(Label.mgtKeyMaterial), 'mgt_key_material', [1, 8192]),
    controlGroupUri: readText(map.get(Label.controlGroupUri), 'control_group_uri', 512),
  }
}

export function readSessionKeys(value: unknown): SessionKey[] {
  return readArray(value, 'keys', [1, 64]).map((pair) => {
    const [session, key] = readArray(pair, 'key', 2)
    const number = readUint(session, 'session', 0xffffffff)
    if (number === 0) throw malformed('sessions begin at 1')
    return { session: number, key: readBytes(key, 'K', 16) }
  })
}
