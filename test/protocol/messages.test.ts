import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { encodeCbor } from '../../protocol/cbor.ts'
import { isIotchainError } from '../../protocol/errors.ts'
import * as authz from '../../protocol/messages/authz.ts'
import { claimsBits, claimsOfBits, hasClaim } from '../../protocol/messages/claims.ts'
import * as enrolment from '../../protocol/messages/enrolment.ts'
import * as code from '../../protocol/messages/enrolment-code.ts'
import * as info from '../../protocol/messages/group-info.ts'
import * as join from '../../protocol/messages/join.ts'
import * as node from '../../protocol/messages/node.ts'
import * as policies from '../../protocol/messages/policies.ts'
import * as registration from '../../protocol/messages/registration.ts'
import * as relay from '../../protocol/messages/relay.ts'

const octets = (size: number) => fc.uint8Array({ minLength: size, maxLength: size })
const some = (min: number, max: number) => fc.uint8Array({ minLength: min, maxLength: max })
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const time = fc.integer({ min: 0, max: 2 ** 40 })
const sid = some(1, 7)

const policy: fc.Arbitrary<policies.GroupPolicies> = fc.record({
  sessionSeconds: u32,
  graceSeconds: u32,
  aead: fc.constantFrom(24 as const, 10 as const, 1 as const),
  window: u32,
  epochSeconds: u32,
  maxAgeSeconds: u32,
  confirmations: fc.oneof(u32, fc.constantFrom('safe' as const, 'finalized' as const)),
})
const sessionKey = fc.record({ session: fc.integer({ min: 1, max: 0xffffffff }), key: octets(16) })
const keyRequest = fc
  .record({
    client: octets(20),
    device: octets(20),
    claims: octets(4),
    keyServer: octets(32),
    channel: octets(32),
    nonce: octets(32),
    signKey: octets(32),
    issuedAt: time,
  })
  .map((r) => ({ ...r, expiresAt: r.issuedAt + 60 }))

interface Codec {
  name: string
  value: fc.Arbitrary<unknown>
  encode: (value: never) => Uint8Array
  decode: (octets: Uint8Array) => unknown
}

const codecs: Codec[] = [
  {
    name: 'authz request',
    value: fc.record({ client: octets(20), device: octets(20), claims: octets(4) }),
    encode: authz.encodeAuthzRequest,
    decode: authz.decodeAuthzRequest,
  },
  {
    name: 'challenge',
    value: fc.record({ kdcchallenge: octets(32), exi: fc.nat(86_400) }),
    encode: authz.encodeChallenge,
    decode: authz.decodeChallenge,
  },
  {
    name: 'join request',
    value: fc.record({
      scope: fc.integer({ min: 0, max: 31 }),
      clientCred: fc.option(some(1, 64), { nil: undefined }),
      clientCredVerify: fc.oneof(
        fc.constant(undefined),
        octets(64),
        fc.record({ request: keyRequest, signature: some(65, 200) }),
      ),
    }),
    encode: join.encodeJoinRequest,
    decode: join.decodeJoinRequest,
  },
  {
    name: 'join response',
    value: fc.record({
      keys: fc.array(sessionKey, { maxLength: 3 }),
      num: u32,
      exp: time,
      exi: time,
      serverTime: time,
      creds: fc.array(some(1, 50), { maxLength: 3 }),
      peerIdentifiers: fc.array(sid, { maxLength: 3 }),
      policies: policy,
      kdcCred: some(1, 64),
      senderId: fc.option(sid, { nil: undefined }),
      controlUri: fc.string({ maxLength: 60 }),
      personalKey: some(1, 300),
      controlGroupUri: fc.string({ maxLength: 60 }),
    }),
    encode: join.encodeJoinResponse,
    decode: join.decodeJoinResponse,
  },
  {
    name: 'node keys',
    value: fc.record({
      keys: fc.array(sessionKey, { maxLength: 3 }),
      num: u32,
      exp: time,
      exi: time,
      serverTime: time,
      personalKey: some(1, 300),
      nextPersonalKey: fc.option(some(1, 300), { nil: undefined }),
      senderId: fc.option(sid, { nil: undefined }),
    }),
    encode: node.encodeNodeKeys,
    decode: node.decodeNodeKeys,
  },
  { name: 'sender id', value: sid, encode: node.encodeSenderId, decode: node.decodeSenderId },
  { name: 'policies', value: policy, encode: policies.encodePolicies, decode: policies.decodePolicies },
  { name: 'kdc-cred', value: some(1, 80), encode: info.encodeKdcCred, decode: info.decodeKdcCred },
  { name: 'num', value: u32, encode: info.encodeNum, decode: info.decodeNum },
  {
    name: 'creds',
    value: fc.record({
      num: u32,
      creds: fc.array(some(1, 50), { maxLength: 4 }),
      peerIdentifiers: fc.array(sid, { maxLength: 4 }),
    }),
    encode: info.encodeCreds,
    decode: info.decodeCreds,
  },
  {
    name: 'creds query',
    value: fc.record({ inclusion: fc.boolean(), senderIds: fc.array(sid, { maxLength: 4 }) }),
    encode: info.encodeCredsQuery,
    decode: info.decodeCredsQuery,
  },
  {
    name: 'groups query',
    value: fc.array(octets(8), { minLength: 1, maxLength: 5 }),
    encode: info.encodeGroupsQuery,
    decode: info.decodeGroupsQuery,
  },
  {
    name: 'groups reply',
    value: fc
      .array(octets(8), { maxLength: 5 })
      .map((gids) => gids.map((gid) => ({ gid, gname: toHex(gid), guri: `/ace-group/${toHex(gid)}` }))),
    encode: info.encodeGroupsReply,
    decode: info.decodeGroupsReply,
  },
  {
    name: 'enrolment body',
    value: fc.record({ csr: some(1, 300), coseKey: some(1, 80), device: octets(20), sig: octets(65) }),
    encode: enrolment.encodeEnrolmentBody,
    decode: enrolment.decodeEnrolmentBody,
  },
  {
    name: 'enrolment reply',
    value: fc.record({
      certificate: some(1, 300),
      caChain: fc.array(some(1, 80), { minLength: 1, maxLength: 3 }),
      kdcCred: some(1, 80),
      owner: octets(20),
      keyServer: octets(32),
      chain: fc.record({
        chainId: fc.nat(),
        registry: octets(20),
        descriptor: fc.option(some(1, 80), { nil: undefined }),
      }),
    }),
    encode: enrolment.encodeEnrolmentReply,
    decode: enrolment.decodeEnrolmentReply,
  },
]

codecs.push(
  {
    name: 'relay task',
    value: fc.record({ challenge: octets(32), exi: fc.nat(86_400), difficulty: fc.nat(64) }),
    encode: relay.encodeRelayTask,
    decode: relay.decodeRelayTask,
  },
  {
    name: 'relay request',
    value: fc.record({
      challenge: octets(32),
      solution: octets(8),
      contract: octets(20),
      client: octets(20),
      offer: u32,
      ttlSeconds: time,
      proof: some(0, 100),
      deadline: time,
      signature: some(65, 100),
    }),
    encode: relay.encodeRelayRequest,
    decode: relay.decodeRelayRequest,
  },
  { name: 'relay reply', value: octets(32), encode: relay.encodeRelayReply, decode: relay.decodeRelayReply },
  { name: 'renewal', value: some(1, 300), encode: enrolment.encodeRenewal, decode: enrolment.decodeRenewal },
  {
    name: 'renewal reply',
    value: fc.record({ certificate: some(1, 300), caChain: fc.array(some(1, 80), { minLength: 1, maxLength: 3 }) }),
    encode: enrolment.encodeRenewalReply,
    decode: enrolment.decodeRenewalReply,
  },
)

function refuses(decode: (o: Uint8Array) => unknown, input: Uint8Array): void {
  try {
    decode(input)
  } catch (error) {
    if (!isIotchainError(error)) throw error
  }
}

describe.each(codecs)('$name', ({ value, encode, decode }) => {
  test('decode is the inverse of encode', () => {
    fc.assert(
      fc.property(value, (v) => {
        expect(decode(encode(v as never))).toEqual(v)
      }),
      { numRuns: 60, seed: 7 },
    )
  })

  test('octets that decode are the only octets of their value', () => {
    fc.assert(
      fc.property(value, fc.nat(), fc.nat(255), (v, at, octet) => {
        const bytes = encode(v as never)
        bytes[at % bytes.length] = octet
        let again: unknown
        try {
          again = decode(bytes)
        } catch (error) {
          if (!isIotchainError(error)) throw error
          return
        }
        expect(toHex(encode(again as never))).toBe(toHex(bytes))
      }),
      { numRuns: 150, seed: 8 },
    )
  })

  test('garbage and truncation draw nothing but a coded error', () => {
    fc.assert(
      fc.property(value, fc.nat(), some(0, 80), (v, cut, noise) => {
        const bytes = encode(v as never)
        refuses(decode, bytes.subarray(0, cut % bytes.length))
        refuses(decode, noise)
      }),
      { numRuns: 100, seed: 9 },
    )
    expect(() => decode(new Uint8Array(0))).toThrow(expect.objectContaining({ code: 'message/malformed' }))
  })
})

describe('what the CDDL forbids', () => {
  const bad = (entries: [number | string, unknown][]) => encodeCbor(new Map(entries) as never)
  const malformed = expect.objectContaining({ code: 'message/malformed' })
  test.each([
    ['scope 32', () => join.decodeJoinRequest(bad([[3, 32]]))],
    ['no scope', () => join.decodeJoinRequest(bad([[5, new Uint8Array(3)]]))],
    [
      'unknown label',
      () =>
        join.decodeJoinRequest(
          bad([
            [3, 1],
            [99, 1],
          ]),
        ),
    ],
    [
      'a proof of 63 octets',
      () =>
        join.decodeJoinRequest(
          bad([
            [3, 1],
            [24, new Uint8Array(63)],
          ]),
        ),
    ],
    ['an array for a map', () => join.decodeJoinRequest(encodeCbor([3, 1]))],
    ['a text scope', () => join.decodeJoinRequest(bad([[3, 'x']]))],
    [
      'a KeyRequest that expired before it was issued',
      () => {
        const z = (n: number) => new Uint8Array(n)
        const fields = [z(20), z(20), z(4), z(32), z(32), z(32), z(32), 10, 10]
        join.decodeJoinRequest(
          bad([
            [3, 1],
            [24, [fields, z(65)]],
          ]),
        )
      },
    ],
    [
      'another key scheme',
      () =>
        join.decodeJoinResponse(
          bad([
            [7, 1],
            [20, 1],
          ]),
        ),
    ],
    [
      'an AEAD that nobody accepts',
      () =>
        policies.decodePolicies(
          bad([
            [
              16,
              new Map([
                [1, 1],
                [2, 1],
                [-70001, 30],
              ]),
            ],
          ]),
        ),
    ],
    [
      'claims of 3 octets',
      () =>
        authz.decodeAuthzRequest(
          bad([
            ['client', new Uint8Array(20)],
            ['device', new Uint8Array(20)],
            ['claims', new Uint8Array(3)],
          ]),
        ),
    ],
    ['session 0', () => join.readSessionKeys([[0, new Uint8Array(16)]])],
    ['role filters', () => info.decodeCredsQuery(bad([[4, [true, [1], []]]]))],
    ['inclusion 1', () => info.decodeCredsQuery(bad([[4, [1, [], []]]]))],
    [
      'text too long',
      () =>
        info.decodeGroupsReply(
          bad([
            [0, [new Uint8Array(8)]],
            [1, ['x'.repeat(65)]],
            [2, ['x']],
          ]),
        ),
    ],
    ['groups without names', () => info.decodeGroupsReply(bad([[0, []]]))],
    ['num beyond 32 bits', () => info.decodeNum(encodeCbor(2 ** 32))],
    ['a channel binding of 31 octets', () => join.joinProofInput(new Uint8Array(8), new Uint8Array(31))],
  ])('%s', (_, run) => {
    expect(run).toThrow(malformed)
  })
})

describe('claims', () => {
  test('bit b ↔ (uint32 >> b) & 1', () => {
    expect(claimsBits(fromHex('80000009'))).toEqual([0, 3, 31])
    expect(toHex(claimsOfBits([0, 3, 31]))).toBe('80000009')
    expect(hasClaim(fromHex('80000009'), 31)).toBe(true)
    expect(hasClaim(fromHex('80000009'), 1)).toBe(false)
    expect(hasClaim(fromHex('ffffffff'), 32)).toBe(false)
  })
  test('inverse for every word', () => {
    fc.assert(
      fc.property(octets(4), (c) => {
        expect(claimsOfBits(claimsBits(c))).toEqual(c)
      }),
      { seed: 3 },
    )
  })
  test('refuses bit 32 and 3 octets', () => {
    expect(() => claimsOfBits([32])).toThrow(expect.objectContaining({ code: 'message/malformed' }))
    expect(() => claimsBits(new Uint8Array(3))).toThrow(expect.objectContaining({ code: 'message/malformed' }))
  })
})

describe('enrolment codes', () => {
  test('base32 in groups of four, read back whatever the case and the spaces', () => {
    fc.assert(
      fc.property(octets(16), fc.boolean(), (c, lower) => {
        const text = code.encodeEnrolmentCode(c)
        expect(text).toMatch(/^([A-Z2-7]{4} ){6}[A-Z2-7]{2}$/)
        expect(code.decodeEnrolmentCode(lower ? text.toLowerCase().replaceAll(' ', '') : ` ${text}\n`)).toEqual(c)
      }),
      { seed: 4 },
    )
  })
  test('identity and PSK', () => {
    const c = fromHex('000102030405060708090a0b0c0d0e0f')
    // printf '\0\1…\17' | sha256sum; openssl kdf HKDF with an empty salt and info "iotc1 enrol"
    expect(code.enrolmentIdentity(c)).toBe('enrol:be45cb2605bf36be')
    expect(code.isEnrolmentIdentity(code.enrolmentIdentity(c))).toBe(true)
    expect(toHex(code.enrolmentPsk(c))).toBe('549de7931b9be88361c423a9bf65f3448e7d001230b855f36599ad7a5c7747e2')
  })
  test.each(['', 'AAAA', '1AAAAAAAAAAAAAAAAAAAAAAAAA', 'AAAAAAAAAAAAAAAAAAAAAAAAAB', 'A'.repeat(200)])(
    'refuses %o',
    (t) => {
      expect(() => code.decodeEnrolmentCode(t)).toThrow(expect.objectContaining({ code: 'message/bad-code' }))
    },
  )
  test('refuses a code of another length', () => {
    expect(() => code.enrolmentPsk(new Uint8Array(15))).toThrow(expect.objectContaining({ code: 'message/bad-code' }))
  })
})

describe('registration tickets', () => {
  const ticket: registration.RegistrationTicket = {
    device: `0x${'ab'.repeat(20)}`,
    owner: `0x${'cd'.repeat(20)}`,
    signingKey: new Uint8Array(32).fill(1),
    keyServer: new Uint8Array(32).fill(2),
    uri: 'coap://[2001:db8::1]',
    nonce: 0,
    deadline: 1766392000,
    deviceSig: new Uint8Array(65).fill(3),
  }
  test('text and back', () => {
    const text = registration.encodeRegistrationTicket(ticket)
    expect(registration.decodeRegistrationTicket(text)).toEqual(ticket)
    expect(registration.registrationOf(ticket).device).toHaveLength(20)
  })
  test.each([
    ['no JSON', 'x'],
    ['an array', '[]'],
    ['null', 'null'],
    ['too long', ' '.repeat(5000)],
    ['unknown entry', JSON.stringify({ ...JSON.parse(registration.encodeRegistrationTicket(ticket)), x: 1 })],
    ['bad address', registration.encodeRegistrationTicket({ ...ticket, device: '0x12' })],
    ['missing address', registration.encodeRegistrationTicket({ ...ticket, owner: undefined as never })],
    ['short key', registration.encodeRegistrationTicket({ ...ticket, signingKey: new Uint8Array(31) })],
    ['negative nonce', registration.encodeRegistrationTicket({ ...ticket, nonce: -1 })],
    ['long uri', registration.encodeRegistrationTicket({ ...ticket, uri: 'x'.repeat(300) })],
  ])('refuses %s', (_, text) => {
    expect(() => registration.decodeRegistrationTicket(text)).toThrow(
      expect.objectContaining({ code: 'message/bad-registration' }),
    )
  })
})

describe('the relay’s puzzle', () => {
  const puzzle = {
    challenge: new Uint8Array(32).fill(1),
    contract: new Uint8Array(20).fill(2),
    client: new Uint8Array(20).fill(3),
  }
  test('is solved by search, and the solution is for this request only', () => {
    const solution = relay.searchRelaySolution(puzzle, 10, 0, 100_000) as Uint8Array
    expect(relay.solvesRelayPuzzle(puzzle, solution, 10)).toBe(true)
    expect(relay.solvesRelayPuzzle({ ...puzzle, client: new Uint8Array(20) }, solution, 10)).toBe(false)
    expect(relay.searchRelaySolution(puzzle, 64, 0, 10)).toBeUndefined()
    expect(() => relay.searchRelaySolution(puzzle, 1, -1, 1)).toThrow()
  })
  test('difficulty 0 is no puzzle, 256 cannot be', () => {
    expect(relay.solvesRelayPuzzle(puzzle, new Uint8Array(8), 0)).toBe(true)
    expect(relay.solvesRelayPuzzle(puzzle, new Uint8Array(8), 256)).toBe(false)
  })
})
