/** The messages between the parts (protocol/messages): one sample of each, and the rule that octets and value are one to one. */
import { equalBytes, fromUtf8, utf8 } from '../../protocol/bytes.ts'
import * as authz from '../../protocol/messages/authz.ts'
import * as batch from '../../protocol/messages/batch.ts'
import * as enrolment from '../../protocol/messages/enrolment.ts'
import * as code from '../../protocol/messages/enrolment-code.ts'
import * as info from '../../protocol/messages/group-info.ts'
import * as join from '../../protocol/messages/join.ts'
import * as node from '../../protocol/messages/node.ts'
import * as policies from '../../protocol/messages/policies.ts'
import * as registration from '../../protocol/messages/registration.ts'
import * as relay from '../../protocol/messages/relay.ts'
import type { FuzzTarget } from './engine.ts'

const octets = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + length) & 255)
const address = octets(20)
const hash = octets(32)

function target<T>(
  name: string,
  encode: (value: T) => Uint8Array,
  decode: (bytes: Uint8Array) => T,
  ...samples: T[]
): FuzzTarget {
  return {
    name,
    seeds: () => samples.map(encode),
    run(bytes) {
      if (!equalBytes(encode(decode(bytes)), bytes)) throw new Error('other octets of the same value')
    },
  }
}

const groupPolicies: policies.GroupPolicies = {
  sessionSeconds: 900,
  graceSeconds: 60,
  aead: 24,
  window: 96,
  epochSeconds: 86_400,
  maxAgeSeconds: 120,
  confirmations: 12,
}
const keys = [{ session: 5, key: octets(16) }]
const common = { keys, num: 5, exp: 1_800_000_900, exi: 900, serverTime: 1_800_000_000, personalKey: octets(200) }
const keyRequest = {
  client: address,
  device: address,
  claims: octets(4),
  keyServer: hash,
  channel: hash,
  nonce: hash,
  signKey: hash,
  issuedAt: 1_800_000_000,
  expiresAt: 1_800_000_060,
}

export const MESSAGE_TARGETS: readonly FuzzTarget[] = [
  target('authz-request', authz.encodeAuthzRequest, authz.decodeAuthzRequest, {
    client: address,
    device: address,
    claims: octets(4),
  }),
  target('challenge', authz.encodeChallenge, authz.decodeChallenge, { kdcchallenge: hash, exi: 60 }),
  target(
    'join-request',
    join.encodeJoinRequest,
    join.decodeJoinRequest,
    { scope: 3, clientCred: octets(40), clientCredVerify: octets(64) },
    { scope: 3, clientCred: undefined, clientCredVerify: { request: keyRequest, signature: octets(65) } },
  ),
  target('join-response', join.encodeJoinResponse, join.decodeJoinResponse, {
    ...common,
    creds: [octets(90)],
    peerIdentifiers: [octets(1)],
    policies: groupPolicies,
    kdcCred: octets(44),
    senderId: octets(2),
    controlUri: '/ace-group/0011223344556677/nodes/1',
    controlGroupUri: '/bc/0011223344556677',
  }),
  target('node-keys', node.encodeNodeKeys, node.decodeNodeKeys, {
    ...common,
    nextPersonalKey: octets(100),
    senderId: octets(3),
  }),
  target('sender-id', node.encodeSenderId, node.decodeSenderId, octets(1), octets(7)),
  target('policies', policies.encodePolicies, policies.decodePolicies, groupPolicies, {
    ...groupPolicies,
    confirmations: 'finalized',
  }),
  target('kdc-cred', info.encodeKdcCred, info.decodeKdcCred, octets(44)),
  target('num', info.encodeNum, info.decodeNum, 5, 0xffffffff),
  target('creds', info.encodeCreds, info.decodeCreds, { num: 5, creds: [octets(9)], peerIdentifiers: [octets(1)] }),
  target('creds-query', info.encodeCredsQuery, info.decodeCredsQuery, { inclusion: true, senderIds: [octets(2)] }),
  target('groups-query', info.encodeGroupsQuery, info.decodeGroupsQuery, [octets(8)]),
  {
    name: 'groups-reply',
    seeds: () => [info.encodeGroupsReply([{ gid: octets(8), gname: '0011223344556677', guri: '/ace-group/0011' }])],
    run: info.decodeGroupsReply,
  },
  target('enrolment-body', enrolment.encodeEnrolmentBody, enrolment.decodeEnrolmentBody, {
    csr: octets(200),
    coseKey: octets(44),
    device: address,
    sig: octets(65),
  }),
  target('enrolment-reply', enrolment.encodeEnrolmentReply, enrolment.decodeEnrolmentReply, {
    certificate: octets(300),
    caChain: [octets(250)],
    kdcCred: octets(44),
    owner: address,
    keyServer: hash,
    chain: { chainId: 20180415, registry: address, descriptor: octets(30) },
  }),
  target('renewal', enrolment.encodeRenewal, enrolment.decodeRenewal, octets(200)),
  target('renewal-reply', enrolment.encodeRenewalReply, enrolment.decodeRenewalReply, {
    certificate: octets(300),
    caChain: [octets(250)],
  }),
  target('relay-task', relay.encodeRelayTask, relay.decodeRelayTask, { challenge: hash, exi: 60, difficulty: 20 }),
  target('relay-request', relay.encodeRelayRequest, relay.decodeRelayRequest, {
    challenge: hash,
    solution: octets(8),
    contract: address,
    client: address,
    offer: 1,
    ttlSeconds: 3600,
    proof: octets(50),
    deadline: 1_800_000_000,
    signature: octets(65),
  }),
  target('relay-reply', relay.encodeRelayReply, relay.decodeRelayReply, hash),
  target('batch', batch.encodeBatch, batch.decodeBatch, [{ path: ['s', 'temp', '@pack'], object: octets(180) }]),
  target('batch-reply', batch.encodeBatchReply, batch.decodeBatchReply, [65, 68, 137]),
  {
    name: 'registration-ticket',
    seeds: () => [
      utf8(
        registration.encodeRegistrationTicket({
          device: '0x00112233445566778899aabbccddeeff01020304',
          owner: '0x2222222222222222222222222222222222222222',
          signingKey: hash,
          keyServer: hash,
          uri: 'coaps://keys.example',
          nonce: 0,
          deadline: 1_800_000_000,
          deviceSig: octets(65),
        }),
      ),
    ],
    run: (bytes) => registration.decodeRegistrationTicket(fromUtf8(bytes)),
  },
  {
    name: 'enrolment-code',
    seeds: () => [utf8(code.encodeEnrolmentCode(octets(16)))],
    run: (bytes) => code.decodeEnrolmentCode(fromUtf8(bytes)),
  },
]
