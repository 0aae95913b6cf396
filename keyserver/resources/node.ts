/**
 * /ace-group/{gname}/nodes/{node}: a member's own resource. Answers only to the identity proved on the association,
 * and only while its token or certificate still counts.
 */
import { equalBytes, toHex } from '../../protocol/bytes.ts'
import type { Clock } from '../../protocol/clock.ts'
import { isIotchainError } from '../../protocol/errors.ts'
import { clientMemberId } from '../../protocol/groups/gid.ts'
import { encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import type { GroupManager, PersonalKey } from '../../protocol/groups/scheme.ts'
import { addressBytes } from '../../protocol/messages/address.ts'
import { encodeNodeKeys, encodeSenderId, nodeName } from '../../protocol/messages/node.ts'
import type { Logger } from '../../runtime/log.ts'
import { Code } from '../../transport/coap/codes.ts'
import type { CoapReply, CoapRequest, Resource } from '../../transport/coap/server.ts'
import type { Certificates } from '../certificates.ts'
import type { Entitlements } from '../entitlements.ts'
import type { Group } from '../group.ts'
import type { Logins } from '../logins.ts'
import { refusal } from '../refusals.ts'
import type { Roster, ServedDevice } from '../roster.ts'
import type { SenderIds } from '../sender-ids.ts'
import type { Sessions } from '../sessions.ts'
import { groupcomm, groupOf, queryNumber, secureOf } from './common.ts'

export interface NodeResourceOptions {
  readonly roster: Roster
  readonly entitlements: Entitlements
  readonly senderIds: SenderIds
  readonly logins: Logins
  readonly certificates: Certificates
  readonly sessions: Sessions
  readonly clock: Clock
  readonly log: Logger
}

interface Caller {
  readonly group: Group
  readonly served: ServedDevice
  readonly memberId: Uint8Array
  /** the device of the group, or a client */
  readonly isDevice: boolean
}

export function nodeResource(o: NodeResourceOptions): Resource {
  return {
    pattern: '/ace-group/:gname/nodes/:node',
    async get(request): Promise<CoapReply> {
      const caller = await identify(o, request)
      const epoch = queryNumber(request, 'epoch')
      await o.sessions.ensureRunning(caller.group)
      return caller.group.change((m) => keysOf(o, caller, m, epoch))
    },
    async put(request): Promise<CoapReply> {
      const caller = await identify(o, request)
      const { served } = caller
      if (caller.isDevice && served.record.coseKey !== undefined) {
        o.entitlements.checkDeviceKey(await o.entitlements.checkDevice(served), served.record.coseKey)
      }
      const senderId = await o.senderIds.renew(caller.group, served, caller.memberId)
      return groupcomm(encodeSenderId(senderId), { code: Code.changed })
    },
    async delete(request): Promise<CoapReply> {
      const caller = await identify(o, request)
      await caller.group.change((m) => m.leave(caller.memberId))
      o.log.info({ group: caller.group.name, node: nodeName(caller.memberId) }, 'member left by itself')
      return { code: Code.deleted }
    },
  }
}

/** Who asks: proved on this association, in the registry and on the chain still what it was. */
async function identify(o: NodeResourceOptions, request: CoapRequest): Promise<Caller> {
  const secure = secureOf(request)
  const group = groupOf(o.roster, request)
  const served = o.roster.device(group.device)
  const node = request.params['node'] ?? ''
  if (o.certificates.shown(secure)) {
    const { device } = o.certificates.deviceOf(secure)
    if (device !== group.device || node !== nodeName(served.memberId)) throw foreign()
    await o.entitlements.checkDevice(served)
    requireMember(group, served.memberId)
    return { group, served, memberId: served.memberId, isDevice: true }
  }
  const login = o.logins.find(request.peer.key, (l) => {
    const mine = l.device === group.device && ((l.claims >>> group.bit) & 1) === 1
    return mine && toHex(clientMemberId(addressBytes(l.client))) === node
  })
  if (login === undefined) {
    throw refusal('keyserver/login-required', 'the member has not logged in on this association', {
      hint: 'join again: POST /authz-info, then the join; nothing is lost by it',
    })
  }
  const { device, client } = await o.entitlements.readClient(served, login.client)
  o.entitlements.entitlement(served, device, client, group.bit)
  const memberId = clientMemberId(addressBytes(login.client))
  requireMember(group, memberId)
  return { group, served, memberId, isDevice: false }
}

function requireMember(group: Group, memberId: Uint8Array): void {
  if (group.isMember(memberId)) return
  throw refusal('keyserver/not-member', 'this address is not a member of the group now', { hint: 'join again' })
}

function keysOf(o: NodeResourceOptions, caller: Caller, m: GroupManager, epoch: number | undefined): CoapReply {
  const { group, served, memberId, isDevice } = caller
  const now = Math.floor(o.clock.nowMs() / 1000)
  const past = epoch !== undefined && epoch !== m.epoch
  const { personal, next } = past
    ? { personal: m.personal(memberId, epoch), next: undefined }
    : presentKeys(m, memberId)
  const newest = group.newest
  const record = isDevice ? served.record.senderIds[group.name] : clientSenderIds(served, memberId, group.name)
  return groupcomm(
    encodeNodeKeys({
      keys: past ? [] : m.keys(memberId, { now }).map(({ session, K }) => ({ session, key: K })),
      num: newest?.session ?? 0,
      exp: newest?.exp ?? now,
      exi: Math.max(0, (newest?.exp ?? now) - now),
      serverTime: now,
      personalKey: encodePersonalKey(personal),
      nextPersonalKey: next === undefined ? undefined : encodePersonalKey(next),
      senderId: record?.at(-1)?.sid,
    }),
    { maxAge: 0 },
  )
}

/** S_i of the tree in use, and of the one allocated ahead; a member without a leaf in the first has only the second. */
function presentKeys(m: GroupManager, memberId: Uint8Array): { personal: PersonalKey; next: PersonalKey | undefined } {
  const ahead = m.allocatedEpoch
  try {
    const personal = m.personal(memberId)
    return { personal, next: ahead === undefined ? undefined : m.personal(memberId, ahead) }
  } catch (error) {
    if (ahead === undefined || !isIotchainError(error)) throw error
    return { personal: m.personal(memberId, ahead), next: undefined }
  }
}

function clientSenderIds(served: ServedDevice, memberId: Uint8Array, name: string) {
  for (const client of served.clients.values()) {
    if (equalBytes(client.memberId, memberId)) return client.record.senderIds?.[name]
  }
  return undefined
}

function foreign(): Error {
  return refusal('keyserver/not-yours', 'this resource belongs to another member')
}
