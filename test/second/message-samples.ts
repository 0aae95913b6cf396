/** Random samples of every message of §5.5, §6, §8 and §10, and our decoder and encoder one after the other. */
import { suite } from '#crypto'
import { coseKeyEd25519 } from '../../protocol/cose/key.ts'
import { gname, toGid } from '../../protocol/groups/gid.ts'
import * as authz from '../../protocol/messages/authz.ts'
import * as batch from '../../protocol/messages/batch.ts'
import * as enrolment from '../../protocol/messages/enrolment.ts'
import * as info from '../../protocol/messages/group-info.ts'
import * as join from '../../protocol/messages/join.ts'
import * as node from '../../protocol/messages/node.ts'
import { decodePolicies, encodePolicies, type GroupPolicies } from '../../protocol/messages/policies.ts'
import * as relay from '../../protocol/messages/relay.ts'
import type { Random } from '../adversary/random.ts'

export interface MessageKind {
  readonly sample: (random: Random) => Uint8Array
  readonly again: (octets: Uint8Array) => Uint8Array
}

function kind<T>(
  make: (random: Random) => T,
  encode: (message: T) => Uint8Array,
  decode: (octets: Uint8Array) => T,
): MessageKind {
  return { sample: (random) => encode(make(random)), again: (octets) => encode(decode(octets)) }
}

const NOW = 1_700_000_000

function many<T>(random: Random, most: number, make: () => T, least = 0): T[] {
  return Array.from({ length: random.between(least, most) }, make)
}

function sid(random: Random): Uint8Array {
  return random.bytes(random.between(1, 7))
}

function coseKey(random: Random): Uint8Array {
  return coseKeyEd25519(suite.ed25519.signing(random.bytes(32)).publicKey)
}

function policies(random: Random): GroupPolicies {
  return {
    sessionSeconds: random.between(1, 3600),
    graceSeconds: random.between(0, 60),
    aead: random.pick([24, 10, 1] as const),
    window: random.between(1, 65_535),
    epochSeconds: 86_400,
    maxAgeSeconds: 300,
    confirmations: random.pick([random.between(0, 30), 'safe', 'finalized'] as const),
  }
}

function sessionKeys(random: Random): { session: number; key: Uint8Array }[] {
  return many(random, 3, () => ({ session: random.between(1, 2 ** 32 - 1), key: random.bytes(16) }))
}

function common(random: Random) {
  return {
    keys: sessionKeys(random),
    num: random.between(0, 2 ** 32 - 1),
    exp: NOW + random.between(0, 900),
    exi: random.between(0, 900),
    serverTime: NOW,
    personalKey: random.bytes(random.between(1, 700)),
    ...(random.chance(0.5) ? { senderId: sid(random) } : {}),
  }
}

function joinRequest(random: Random): join.JoinRequest {
  const form = random.between(0, 2)
  const request = {
    client: random.bytes(20),
    device: random.bytes(20),
    claims: random.bytes(4),
    keyServer: random.bytes(32),
    channel: random.bytes(32),
    nonce: random.bytes(32),
    signKey: random.bytes(32),
    issuedAt: NOW,
    expiresAt: NOW + random.between(1, 60),
  }
  return {
    scope: random.between(0, 31),
    ...(random.chance(0.5) ? { clientCred: coseKey(random) } : {}),
    ...(form === 0 ? { clientCredVerify: random.bytes(64) } : {}),
    ...(form === 1 ? { clientCredVerify: { request, signature: random.bytes(random.pick([65, 100])) } } : {}),
  }
}

export const MESSAGES: Readonly<Record<string, MessageKind>> = {
  'join-request': kind(joinRequest, join.encodeJoinRequest, join.decodeJoinRequest),
  'join-response': kind(
    (r) => ({
      ...common(r),
      creds: many(r, 3, () => r.bytes(40)).map((c) => Uint8Array.from([...c, 0])),
      peerIdentifiers: many(r, 3, () => sid(r)),
      policies: policies(r),
      kdcCred: coseKey(r),
      controlUri: '/ace-group/00112233445566/nodes/01',
      controlGroupUri: 'coap://[2001:db8::1]/bc/00112233445566',
    }),
    join.encodeJoinResponse,
    join.decodeJoinResponse,
  ),
  'node-keys': kind(
    (r) => ({ ...common(r), ...(r.chance(0.5) ? { nextPersonalKey: r.bytes(100) } : {}) }),
    node.encodeNodeKeys,
    node.decodeNodeKeys,
  ),
  'sender-id': kind(sid, node.encodeSenderId, node.decodeSenderId),
  'creds-list': kind(
    (r) => ({ num: r.between(0, 99), creds: many(r, 3, () => r.bytes(50)), peerIdentifiers: many(r, 3, () => sid(r)) }),
    info.encodeCreds,
    info.decodeCreds,
  ),
  'creds-query': kind(
    (r) => ({ inclusion: r.chance(0.5), senderIds: many(r, 4, () => sid(r)) }),
    info.encodeCredsQuery,
    info.decodeCredsQuery,
  ),
  'groups-query': kind((r) => many(r, 4, () => r.bytes(8), 1), info.encodeGroupsQuery, info.decodeGroupsQuery),
  'groups-reply': kind(
    (r) =>
      many(r, 3, () => {
        const gid = r.bytes(8)
        return { gid, gname: gname(toGid(gid)), guri: `/ace-group/${gname(toGid(gid))}` }
      }),
    info.encodeGroupsReply,
    info.decodeGroupsReply,
  ),
  'kdc-cred': kind(coseKey, info.encodeKdcCred, info.decodeKdcCred),
  policies: kind(policies, encodePolicies, decodePolicies),
  'authz-request': kind(
    (r) => ({ client: r.bytes(20), device: r.bytes(20), claims: r.bytes(4) }),
    authz.encodeAuthzRequest,
    authz.decodeAuthzRequest,
  ),
  challenge: kind(
    (r) => ({ kdcchallenge: r.bytes(32), exi: r.between(1, 60) }),
    authz.encodeChallenge,
    authz.decodeChallenge,
  ),
  'relay-task': kind(
    (r) => ({ challenge: r.bytes(32), exi: r.between(1, 60), difficulty: r.between(0, 64) }),
    relay.encodeRelayTask,
    relay.decodeRelayTask,
  ),
  'relay-request': kind(
    (r) => ({
      challenge: r.bytes(32),
      solution: r.bytes(8),
      contract: r.bytes(20),
      client: r.bytes(20),
      offer: r.between(0, 9),
      ttlSeconds: r.between(1, 86_400),
      proof: r.bytes(r.between(0, 40)),
      deadline: NOW,
      signature: r.bytes(65),
    }),
    relay.encodeRelayRequest,
    relay.decodeRelayRequest,
  ),
  'relay-reply': kind((r) => r.bytes(32), relay.encodeRelayReply, relay.decodeRelayReply),
  'enrol-body': kind(
    (r) => ({ csr: r.bytes(r.between(1, 300)), coseKey: coseKey(r), device: r.bytes(20), sig: r.bytes(65) }),
    enrolment.encodeEnrolmentBody,
    enrolment.decodeEnrolmentBody,
  ),
  'enrol-reply': kind(
    (r) => ({
      certificate: r.bytes(200),
      caChain: many(r, 3, () => r.bytes(100), 1),
      kdcCred: coseKey(r),
      owner: r.bytes(20),
      keyServer: r.bytes(32),
      chain: {
        chainId: r.between(1, 99),
        registry: r.bytes(20),
        ...(r.chance(0.5) ? { descriptor: r.bytes(50) } : {}),
      },
    }),
    enrolment.encodeEnrolmentReply,
    enrolment.decodeEnrolmentReply,
  ),
  renewal: kind((r) => r.bytes(r.between(1, 300)), enrolment.encodeRenewal, enrolment.decodeRenewal),
  'renewal-reply': kind(
    (r) => ({ certificate: r.bytes(200), caChain: many(r, 3, () => r.bytes(100), 1) }),
    enrolment.encodeRenewalReply,
    enrolment.decodeRenewalReply,
  ),
  batch: kind(
    (r) => many(r, 3, () => ({ path: many(r, 3, () => 's', 1), object: r.bytes(r.between(1, 200)) }), 1),
    batch.encodeBatch,
    batch.decodeBatch,
  ),
  'batch-reply': kind(
    (r) => many(r, 4, () => r.pick([65, 68, 137]), 1),
    batch.encodeBatchReply,
    batch.decodeBatchReply,
  ),
}
