/** The small resources of a group that need no membership: creds, kdc-cred, num, and FETCH /ace-group. */
import { encodeCbor } from '../cbor.ts'
import { decodeMessage, malformed, mapOf, readArray, readBytes, readMap, readText, readUint } from './fields.ts'
import { Label } from './labels.ts'

/** GET …/kdc-cred: `{17: bstr .cbor COSE_Key}`. */
export function encodeKdcCred(coseKey: Uint8Array): Uint8Array {
  return encodeCbor(new Map([[Label.kdcCred, coseKey]]))
}

/** The encoded COSE_Key. @throws `message/malformed`, `cbor/…` */
export function decodeKdcCred(octets: Uint8Array): Uint8Array {
  const map = readMap(decodeMessage(octets, 'kdc-cred'), 'kdc-cred', [Label.kdcCred])
  return readBytes(map.get(Label.kdcCred), 'kdc_cred', [1, 256])
}

/** GET …/num: a CBOR unsigned integer, the newest published session (RFC 9594 §4.6.1). */
export function encodeNum(num: number): Uint8Array {
  return encodeCbor(num)
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeNum(octets: Uint8Array): number {
  return readUint(decodeMessage(octets, 'num'), 'num', 0xffffffff)
}

export interface CredsList {
  /** newest published session */
  readonly num: number
  /** signed credentials (CWT) */
  readonly creds: readonly Uint8Array[]
  /** one for each of `creds`: the newest Sender ID of that credential in this group */
  readonly peerIdentifiers: readonly Uint8Array[]
}

/**
 * GET and FETCH …/creds.
 * ```cddl
 * creds-list = { 9 => num: uint, 13 => [* bstr], 15 => [* sid] }
 * ```
 */
export function encodeCreds(list: CredsList): Uint8Array {
  return encodeCbor(
    mapOf<number>([
      [Label.num, list.num],
      [Label.creds, [...list.creds]],
      [Label.peerIdentifiers, [...list.peerIdentifiers]],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeCreds(octets: Uint8Array): CredsList {
  const map = readMap<number>(decodeMessage(octets, 'creds'), 'creds', [Label.num, Label.creds, Label.peerIdentifiers])
  return {
    num: readUint(map.get(Label.num), 'num', 0xffffffff),
    creds: readArray(map.get(Label.creds), 'creds', [0, 4096]).map((c) => readBytes(c, 'credential', [1, 32_768])),
    peerIdentifiers: readArray(map.get(Label.peerIdentifiers), 'peer_identifiers', [0, 4096]).map((s) =>
      readBytes(s, 'Sender ID', [1, 7]),
    ),
  }
}

/**
 * FETCH …/creds, RFC 9594 get_creds: only the credentials that carry one of these Sender IDs, or (inclusion false) none of them.
 * ```cddl
 * creds-query = { 4 => [ inclusion: bool, [], [* sid] ] }
 * ```
 */
export interface CredsQuery {
  readonly inclusion: boolean
  readonly senderIds: readonly Uint8Array[]
}

export function encodeCredsQuery(query: CredsQuery): Uint8Array {
  return encodeCbor(new Map([[Label.getCreds, [query.inclusion, [], [...query.senderIds]]]]))
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeCredsQuery(octets: Uint8Array): CredsQuery {
  const map = readMap(decodeMessage(octets, 'creds query'), 'creds query', [Label.getCreds])
  const [inclusion, roles, ids] = readArray(map.get(Label.getCreds), 'get_creds', 3)
  if (typeof inclusion !== 'boolean') throw malformed('the inclusion flag of get_creds is no boolean')
  readArray(roles, 'role filter', 0)
  return {
    inclusion,
    senderIds: readArray(ids, 'id filter', [0, 256]).map((s) => readBytes(s, 'Sender ID', [1, 7])),
  }
}

/**
 * FETCH /ace-group: which of these groups does the key server run?
 * ```cddl
 * groups-query = { 0 => [1*64 bstr .size 8] }
 * groups-reply = { 0 => [* bstr .size 8], 1 => [* gname: tstr], 2 => [* guri: tstr] }
 * ```
 */
export function encodeGroupsQuery(gids: readonly Uint8Array[]): Uint8Array {
  return encodeCbor(new Map([[Label.gid, [...gids]]]))
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeGroupsQuery(octets: Uint8Array): Uint8Array[] {
  const map = readMap(decodeMessage(octets, 'groups query'), 'groups query', [Label.gid])
  return readArray(map.get(Label.gid), 'gid', [1, 64]).map((g) => readBytes(g, 'gid', 8))
}

export interface GroupName {
  readonly gid: Uint8Array
  /** hex of gid */
  readonly gname: string
  /** path of the group on this key server */
  readonly guri: string
}

export function encodeGroupsReply(groups: readonly GroupName[]): Uint8Array {
  return encodeCbor(
    mapOf<number>([
      [Label.gid, groups.map((g) => g.gid)],
      [Label.gname, groups.map((g) => g.gname)],
      [Label.guri, groups.map((g) => g.guri)],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeGroupsReply(octets: Uint8Array): GroupName[] {
  const map = readMap<number>(decodeMessage(octets, 'groups'), 'groups', [Label.gid, Label.gname, Label.guri])
  const gids = readArray(map.get(Label.gid), 'gid', [0, 64])
  const names = readArray(map.get(Label.gname), 'gname', gids.length)
  const uris = readArray(map.get(Label.guri), 'guri', gids.length)
  return gids.map((gid, i) => ({
    gid: readBytes(gid, 'gid', 8),
    gname: readText(names[i], 'gname', 64),
    guri: readText(uris[i], 'guri', 512),
  }))
}
