/** /ace-group and /ace-group/{gname}: names, joining, credentials, the key server's key, session number, policies. */
import { toHex } from '../../protocol/bytes.ts'
import type { CryptoSuite } from '../../protocol/crypto/suite.ts'
import { gname } from '../../protocol/groups/gid.ts'
import { encodeChallenge } from '../../protocol/messages/authz.ts'
import {
  decodeCredsQuery,
  decodeGroupsQuery,
  encodeCreds,
  encodeGroupsReply,
  encodeKdcCred,
  encodeNum,
} from '../../protocol/messages/group-info.ts'
import { decodeJoinRequest } from '../../protocol/messages/join.ts'
import { nodeName } from '../../protocol/messages/node.ts'
import { encodePolicies } from '../../protocol/messages/policies.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import type { CoapReply, CoapRequest, Resource } from '../../transport/coap/server.ts'
import type { Certificates } from '../certificates.ts'
import { NewChallenge } from '../client-login.ts'
import type { Credentials } from '../credentials.ts'
import type { Group } from '../group.ts'
import type { Joins } from '../joins.ts'
import { CHALLENGE_SECONDS } from '../logins.ts'
import type { Replies } from '../replies.ts'
import type { Roster } from '../roster.ts'
import type { CredentialRecord } from '../storage.ts'
import { decoded, expectFormat, groupcomm, groupName, groupOf, queryNumber, secureOf } from './common.ts'

export interface GroupResourcesOptions {
  readonly suite: CryptoSuite
  readonly roster: Roster
  readonly joins: Joins
  readonly certificates: Certificates
  readonly credentials: Credentials
  readonly replies: Replies
}

/** Over DTLS: everything. */
export function groupResources(o: GroupResourcesOptions): Resource[] {
  return [
    {
      pattern: '/ace-group',
      attributes: { rt: 'core.ps.gm', if: 'ace.groups', ct: ContentFormat.aceGroupcommCbor },
      bodyOctets: 1024,
      fetch: (request) => groupNames(o.roster, request),
    },
    { pattern: '/ace-group/:gname', bodyOctets: 8192, post: (request) => join(o, request) },
    {
      pattern: '/ace-group/:gname/kdc-cred',
      get(request) {
        secureOf(request)
        groupOf(o.roster, request)
        return groupcomm(encodeKdcCred(o.replies.kdcCred), { maxAge: 3600 })
      },
    },
    credsResource(o),
    {
      pattern: '/ace-group/:gname/num',
      observable: true,
      get: (request) => groupcomm(encodeNum(groupOf(o.roster, request).newest?.session ?? 0), { maxAge: 10 }),
    },
    {
      pattern: '/ace-group/:gname/policies',
      get: (request) => groupcomm(encodePolicies(o.replies.policies(groupOf(o.roster, request))), { maxAge: 3600 }),
    },
  ]
}

/** Signed credentials, on plain CoAP too; those of commanding clients only to the device itself, over DTLS. */
export function credsResource(o: Pick<GroupResourcesOptions, 'roster' | 'credentials' | 'certificates'>): Resource {
  const reply = (group: Group, records: readonly CredentialRecord[]): CoapReply =>
    groupcomm(
      encodeCreds({
        num: group.newest?.session ?? 0,
        creds: records.map((r) => r.bytes),
        peerIdentifiers: records.map((r) => r.senderIds[group.name] as Uint8Array),
      }),
      { maxAge: 60 },
    )
  const live = (group: Group, request: CoapRequest): CredentialRecord[] =>
    o.credentials.list(group, isDeviceOf(o.certificates, group, request))
  return {
    pattern: '/ace-group/:gname/creds',
    async get(request) {
      const group = groupOf(o.roster, request)
      const at = queryNumber(request, 'at')
      return reply(
        group,
        at === undefined ? live(group, request) : await o.credentials.listAt(group.device, group.name, at),
      )
    },
    fetch(request) {
      const group = groupOf(o.roster, request)
      const { inclusion, senderIds } = decoded(() => decodeCredsQuery(request.payload))
      const asked = new Set(senderIds.map(toHex))
      const fits = (r: CredentialRecord): boolean =>
        asked.has(toHex(r.senderIds[group.name] as Uint8Array)) === inclusion
      return reply(group, live(group, request).filter(fits))
    },
  }
}

function isDeviceOf(certificates: Certificates, group: Group, request: CoapRequest): boolean {
  const { secure } = request.peer
  if (secure === undefined || !certificates.shown(secure)) return false
  return certificates.deviceOf(secure).device === group.device
}

function groupNames(roster: Roster, request: CoapRequest): CoapReply {
  secureOf(request)
  const asked = decoded(() => decodeGroupsQuery(request.payload))
  const known = asked.filter((gid) => roster.groups.has(gname(gid)))
  return groupcomm(
    encodeGroupsReply(known.map((gid) => ({ gid, gname: gname(gid), guri: `/ace-group/${gname(gid)}` }))),
  )
}

async function join(o: GroupResourcesOptions, request: CoapRequest): Promise<CoapReply> {
  const secure = secureOf(request)
  const other = expectFormat(request, ContentFormat.aceGroupcommCbor, ContentFormat.cbor)
  if (other !== undefined) return other
  const name = groupName(request)
  const message = decoded(() => decodeJoinRequest(request.payload))
  const association = request.peer.key
  const entry = o.certificates.shown(secure)
    ? await o.joins.device(secure, name, message)
    : await o.joins.client(association, secure, name, message)
  if (entry instanceof NewChallenge) {
    const payload = encodeChallenge({ kdcchallenge: entry.nonce, exi: CHALLENGE_SECONDS })
    return { code: Code.badRequest, contentFormat: ContentFormat.aceGroupcommCbor, payload }
  }
  const body = toHex(o.suite.sha256(request.payload))
  const again = o.replies.snapshot(association, name, body)
  if (again !== undefined) return again
  const admitted = await entry()
  const reply: CoapReply = {
    code: admitted.result.repeated ? Code.changed : Code.created,
    contentFormat: ContentFormat.aceGroupcommCbor,
    payload: o.replies.join(admitted),
    locationPath: ['ace-group', name, 'nodes', nodeName(admitted.memberId)],
    maxAge: 0,
  }
  o.replies.keep(association, name, body, reply, admitted)
  return reply
}
