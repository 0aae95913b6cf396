/** /ace-group/{gname}/nodes/{node}: what a member asks for after its join (RFC 9594 §4.8). */
import { toHex } from '../bytes.ts'
import { encodeCbor } from '../cbor.ts'
import { decodeMessage, malformed, mapOf, optional, readBytes, readMap, readUint } from './fields.ts'
import { readSessionKeys, type SessionKey } from './join.ts'
import { Label, SD_SH } from './labels.ts'

/** The {node} of a member: hex of its id, 0x01 ‖ client address or 0x02 ‖ device address. */
export function nodeName(memberId: Uint8Array): string {
  return toHex(memberId)
}

export interface NodeKeys {
  /** keys of the current session up to the newest published; empty in join mode `next`, and for an old epoch */
  readonly keys: readonly SessionKey[]
  /** newest published session */
  readonly num: number
  /** unix seconds: end of the newest published session */
  readonly exp: number
  /** seconds left until exp */
  readonly exi: number
  /** the key server's clock, unix seconds */
  readonly serverTime: number
  /** encoded personal key of the epoch that was asked for */
  readonly personalKey: Uint8Array
  /** the next epoch's, once it is allocated */
  readonly nextPersonalKey?: Uint8Array | undefined
  /** the member's Sender ID: devices and command clients */
  readonly senderId?: Uint8Array | undefined
}

const NEXT = -70003
const LABELS = [
  Label.gkty,
  Label.key,
  Label.num,
  Label.exp,
  Label.exi,
  Label.senderId,
  Label.mgtKeyMaterial,
  Label.serverTime,
  NEXT,
]

/**
 * The payload of GET nodes/{node}.
 * ```cddl
 * node-keys = { 7 => -70001, ? 8 => keys, 9 => num: uint, 11 => exp: uint, 12 => exi: uint, ? 21 => sid,
 *               27 => bstr .cbor personal-key, -70002 => server-time: uint, ? -70003 => bstr .cbor personal-key }
 * ```
 */
export function encodeNodeKeys(n: NodeKeys): Uint8Array {
  return encodeCbor(
    mapOf<number>([
      [Label.gkty, SD_SH],
      [Label.key, n.keys.length === 0 ? undefined : n.keys.map((k) => [k.session, k.key])],
      [Label.num, n.num],
      [Label.exp, n.exp],
      [Label.exi, n.exi],
      [Label.senderId, n.senderId],
      [Label.mgtKeyMaterial, n.personalKey],
      [Label.serverTime, n.serverTime],
      [NEXT, n.nextPersonalKey],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeNodeKeys(octets: Uint8Array): NodeKeys {
  const map = readMap<number>(decodeMessage(octets, 'node keys'), 'node keys', LABELS)
  if (map.get(Label.gkty) !== SD_SH) throw malformed('the key server uses an unknown group key scheme')
  return {
    keys: optional(map.get(Label.key), readSessionKeys) ?? [],
    num: readUint(map.get(Label.num), 'num', 0xffffffff),
    exp: readUint(map.get(Label.exp), 'exp'),
    exi: readUint(map.get(Label.exi), 'exi'),
    serverTime: readUint(map.get(Label.serverTime), 'server time'),
    personalKey: readBytes(map.get(Label.mgtKeyMaterial), 'mgt_key_material', [1, 8192]),
    nextPersonalKey: optional(map.get(NEXT), (v) => readBytes(v, 'next personal key', [1, 8192])),
    senderId: optional(map.get(Label.senderId), (v) => readBytes(v, 'Sender ID', [1, 7])),
  }
}

/** `{21: sid}`, the reply to PUT nodes/{node}. */
export function encodeSenderId(senderId: Uint8Array): Uint8Array {
  return encodeCbor(new Map([[Label.senderId, senderId]]))
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeSenderId(octets: Uint8Array): Uint8Array {
  const map = readMap(decodeMessage(octets, 'sender id'), 'sender id', [Label.senderId])
  return readBytes(map.get(Label.senderId), 'Sender ID', [1, 7])
}
