import { describe, expect, test } from 'vitest'
import { fromHex, utf8 } from '../../protocol/bytes.ts'
import { encodeCbor, Tagged } from '../../protocol/cbor.ts'
import { encodeProtected } from '../../protocol/cose/headers.ts'
import { coseKeyMapEd25519, kidOf } from '../../protocol/cose/key.ts'
import { sign1 } from '../../protocol/cose/sign1.ts'
import { suite } from '../../protocol/crypto/node.ts'
import { gname, toGid } from '../../protocol/groups/gid.ts'
import { addressHex } from '../../protocol/messages/address.ts'
import {
  type Credential,
  type CredentialClaims,
  issueCredential,
  verifyCredential,
} from '../../protocol/objects/credential.ts'
import { type JudgeOptions, judgeObject } from '../../protocol/objects/judge.ts'
import { deriveIntegrityKey } from '../../protocol/objects/keys.ts'
import { compareOrder, sidPosition } from '../../protocol/objects/order.ts'
import { checkPackSeq } from '../../protocol/objects/pack.ts'
import { createSealer, type SealerOptions } from '../../protocol/objects/seal.ts'
import { verifyMacObject, verifySigned, verifySignedWith } from '../../protocol/objects/verify.ts'
import { codeOf } from './suites.ts'

const NOW = 1_800_000_000
const gid = toGid(utf8('group-01'))
const kdcKey = suite.ed25519.signing(suite.sha256(utf8('key server')))
const kdc = suite.ed25519.verifying(kdcKey.publicKey)
const keyOf = (name: string) => suite.ed25519.signing(suite.sha256(utf8(name)))
const addressOf = (name: string) => suite.sha256(utf8(name)).slice(12)
const sid = (n: number): Uint8Array => Uint8Array.of(n)

function claimsOf(name: string, changes: Partial<CredentialClaims> = {}): CredentialClaims {
  return {
    issuer: 'https://keys.example',
    subject: addressHex(addressOf(name)),
    iat: NOW,
    exp: NOW + 48 * 3600,
    publicKey: keyOf(name).publicKey,
    groups: new Map([[gname(gid), [{ sid: sid(1), from: NOW }]]]),
    ...changes,
  }
}
const credentialOf = (name: string, changes: Partial<CredentialClaims> = {}): Credential =>
  verifyCredential(suite, issueCredential(suite, claimsOf(name, changes), kdcKey), { key: kdc })

const device = addressOf('device')
const path = ['s', 'temp']
const base: SealerOptions = {
  K: new Uint8Array(16).fill(7),
  gid,
  session: 5,
  device,
  sid: sid(1),
  path,
  algorithm: 24,
  signingKey: keyOf('device'),
}
const input = { seq: 9, iat: NOW + 10, contentFormat: 112, plaintext: utf8('reading') }
const sealed = (changes: Partial<SealerOptions> = {}, at = input): Uint8Array =>
  createSealer(suite, { ...base, ...changes }).seal(at).signed

describe('credentials', () => {
  test('say who has which key, which Sender IDs in which groups', () => {
    const bytes = issueCredential(suite, claimsOf('device'), kdcKey)
    const credential = verifyCredential(suite, bytes, { key: kdc, now: NOW + 5 })
    expect(credential).toMatchObject({
      ...claimsOf('device'),
      publicKey: Uint8Array.from(keyOf('device').publicKey),
      kid: kidOf(suite, keyOf('device').publicKey),
      address: device,
      role: undefined,
      bytes,
    })
    expect(bytes.length).toBeLessThan(300)
    const command = credentialOf('client', { role: 'w' })
    expect(command).toMatchObject({ role: 'w', subject: addressHex(addressOf('client')) })
  })

  test('are refused when expired, early, changed, of another issuer', () => {
    const bytes = issueCredential(suite, claimsOf('device'), kdcKey)
    const verify = (now: number | undefined, key = kdc, octets = bytes) =>
      codeOf(() => verifyCredential(suite, octets, { key, now }))
    expect(verify(NOW + 48 * 3600)).toBe('credential/expired')
    expect(verify(NOW + 48 * 3600 - 1)).toBeUndefined()
    expect(verify(NOW - 61)).toBe('credential/not-yet')
    expect(verify(undefined)).toBeUndefined()
    expect(verify(NOW, suite.ed25519.verifying(keyOf('other').publicKey))).toBe('credential/unknown-issuer')
    const changed = bytes.slice()
    changed[50] = (changed[50] as number) ^ 1
    expect(verify(NOW, kdc, changed)).toBe('credential/bad-signature')
    expect(verify(NOW, kdc, bytes.subarray(1))).toBe('credential/malformed')
    expect(verify(NOW, kdc, bytes.subarray(2))).toBe('credential/malformed')
  })

  test('are not issued with claims that nobody takes', () => {
    const issue = (changes: Partial<CredentialClaims>) =>
      codeOf(() => issueCredential(suite, claimsOf('device', changes), kdcKey))
    expect(issue({ exp: NOW })).toBe('credential/bad-claims')
    expect(issue({ exp: NOW + 48 * 3600 + 1 })).toBe('credential/bad-claims')
    expect(issue({ groups: new Map([[gname(gid), []]]) })).toBe('credential/bad-claims')
    expect(issue({ groups: new Map([['GROUP', [{ sid: sid(1), from: NOW }]]]) })).toBe('credential/bad-claims')
    const many = Array.from(
      { length: 33 },
      (_, i) => [i.toString(16).padStart(16, '0'), [{ sid: sid(1), from: 1 }]] as const,
    )
    expect(issue({ groups: new Map(many) })).toBe('credential/bad-claims')
    const sids = Array.from({ length: 1025 }, () => ({ sid: sid(1), from: 1 }))
    expect(issue({ groups: new Map([[gname(gid), sids]]) })).toBe('credential/bad-claims')
    expect(issue({ subject: '0x12' })).toBe('message/bad-address')
  })

  test('with anything else in them are malformed, however well signed', () => {
    const groups = new Map([[gid, [[sid(1), NOW]]]])
    const good = new Map<unknown, unknown>([
      [1, 'issuer'],
      [2, `urn:iotchain:device:${addressHex(device)}`],
      [4, NOW + 100],
      [6, NOW],
      [8, new Map([[1, coseKeyMapEd25519(keyOf('device').publicKey)]])],
      [-70001, groups],
    ])
    const header = new Map<number, unknown>([
      [1, -8],
      [4, kidOf(suite, kdcKey.publicKey)],
    ])
    const signed = (claims: unknown, outer = header): Uint8Array => {
      const cwt = sign1(encodeProtected(outer), encodeCbor(claims), utf8('iotchain-cred-1'), kdcKey)
      return Uint8Array.of(0xd8, 61, ...cwt)
    }
    const verify = (bytes: Uint8Array, acceptEd25519 = false) =>
      codeOf(() => verifyCredential(suite, bytes, { key: kdc, acceptEd25519 }))
    expect(verify(signed(good))).toBeUndefined()
    const changed = (label: number, value: unknown): Uint8Array => {
      const claims = new Map(good)
      if (value === undefined) claims.delete(label)
      else claims.set(label, value)
      return signed(claims)
    }
    const bad: [number, unknown][] = [
      [1, 5],
      [1, undefined],
      [2, 'urn:iotchain:device:0x12'],
      [2, `urn:iotchain:client:${addressHex(device)}`],
      [2, addressHex(device)],
      [4, NOW],
      [4, NOW + 48 * 3600 + 1],
      [4, -1],
      [6, 'now'],
      [6, 2n ** 60n],
      [8, new Map()],
      [8, new Map([[1, 5]])],
      [8, new Map([[1, new Map([[1, 4]])]])],
      [-70001, new Map()],
      [-70001, [gid]],
      [-70001, new Map([[new Uint8Array(7), [[sid(1), NOW]]]])],
      [-70001, new Map([[gid, []]])],
      [-70001, new Map([[gid, [[sid(1)]]]])],
      [-70001, new Map([[gid, [[new Uint8Array(8), NOW]]]])],
      [-70001, new Map([[gid, [[sid(1), -1]]]])],
      [-70002, 'r'],
      [3, 'audience'],
    ]
    for (const [label, value] of bad) expect(verify(changed(label, value))).toBe('credential/malformed')
    expect(verify(signed([1]))).toBe('credential/malformed')
    expect(verify(signed(good, new Map(header).set(1, -19)))).toBe('credential/malformed')
    expect(verify(signed(good, new Map(header).set(1, -19)), true)).toBeUndefined()
    expect(verify(signed(good, new Map(header).set(3, 0)))).toBe('credential/malformed')
    expect(verify(encodeCbor(new Tagged(61, 1)))).toBe('credential/malformed')
    expect(verify(encodeCbor(new Tagged(18, 1)))).toBe('credential/malformed')
    expect(verify(encodeCbor(new Tagged(61, new Tagged(18, [1]))))).toBe('credential/malformed')
  })
})

describe('verification', () => {
  const credentials = [credentialOf('device')]
  const options = { device, path, credentials }
  const verify = (bytes: Uint8Array, changes = {}) => codeOf(() => verifySigned(bytes, { ...options, ...changes }))

  test('of a good object', () => {
    const verified = verifySigned(sealed(), options)
    expect(verified.header).toMatchObject({ seq: 9, session: 5, iat: NOW + 10 })
    expect(verified.credential).toBe(credentials[0])
  })

  test('each attack has its own code', () => {
    // swapped paths: the object of another resource
    expect(verify(sealed({ path: ['s', 'door'] }))).toBe('object/bad-signature')
    expect(
      verify(sealed({ path: ['s', 'door'] }), {
        otherPaths: [
          ['s', 'hall'],
          ['s', 'door'],
        ],
      }),
    ).toBe('object/swapped')
    expect(verify(sealed(), { otherPaths: [['s', 'door']] })).toBeUndefined()
    // swapped devices
    const other = credentialOf('other', { groups: new Map([[gname(gid), [{ sid: sid(2), from: NOW }]]]) })
    const ofOther = sealed({ device: addressOf('other'), sid: sid(2), signingKey: keyOf('other') })
    expect(verify(ofOther)).toBe('object/unknown-signer')
    expect(verify(ofOther, { credentials: [...credentials, other] })).toBe('object/wrong-device')
    // the signature stripped, and made again by another member
    const reSigned = sealed({ signingKey: keyOf('other') })
    expect(verify(reSigned, { credentials: [...credentials, other] })).toBe('object/re-signed')
    // and under the kid of the device
    const encrypt0 = createSealer(suite, base).encrypt(input)
    const forged = createSealer(suite, { ...base, signingKey: { ...keyOf('device'), sign: keyOf('other').sign } }).sign(
      encrypt0,
    )
    expect(verify(forged)).toBe('object/bad-signature')
    // a Sender ID that the device was never given
    expect(verify(sealed({ sid: sid(3) }))).toBe('object/unknown-sid')
    // another group of the same device
    expect(verify(sealed({ gid: toGid(utf8('group-02')) }))).toBe('object/unknown-sid')
    // any octet of the text, the headers or the signature
    for (const at of [20, 60, 90, 130]) {
      const bytes = sealed()
      bytes[at] = (bytes[at] as number) ^ 1
      expect(['object/bad-signature', 'object/malformed', 'object/unknown-signer', 'object/unknown-sid']).toContain(
        verify(bytes),
      )
    }
  })

  test('one credential must cover the time of sealing, clocks being off by a minute', () => {
    const at = (iat: number, list = credentials) => verify(sealed({}, { ...input, iat }), { credentials: list })
    expect(at(NOW - 60)).toBeUndefined()
    expect(at(NOW - 61)).toBe('object/not-covered')
    expect(at(NOW + 48 * 3600)).toBeUndefined()
    expect(at(NOW + 48 * 3600 + 1)).toBe('object/not-covered')
    const renewed = credentialOf('device', { iat: NOW + 24 * 3600, exp: NOW + 72 * 3600 })
    expect(at(NOW + 60 * 3600, [...credentials, renewed])).toBeUndefined()
  })

  test('a command: sealed by a client, for a device', () => {
    const client = credentialOf('client', { role: 'w', groups: new Map([[gname(gid), [{ sid: sid(8), from: NOW }]]]) })
    const command = sealed({ sid: sid(8), signingKey: keyOf('client'), path: ['a', 'lamp'] })
    const at = { path: ['a', 'lamp'], credentials: [...credentials, client] }
    expect(verify(command, { ...at, sender: addressOf('client') })).toBeUndefined()
    expect(verify(command, at)).toBe('object/wrong-device')
    // redirected to another device
    expect(verify(command, { ...at, sender: addressOf('client'), device: addressOf('other') })).toBe(
      'object/bad-signature',
    )
  })

  test('under one known key', () => {
    const verifyKey = suite.ed25519.verifying(keyOf('device').publicKey)
    expect(verifySignedWith(suite, sealed(), { device, path, verifyKey }).seq).toBe(9)
    const other = suite.ed25519.verifying(keyOf('other').publicKey)
    expect(codeOf(() => verifySignedWith(suite, sealed(), { device, path, verifyKey: other }))).toBe(
      'object/unknown-signer',
    )
    expect(codeOf(() => verifySignedWith(suite, sealed(), { device, path: [], verifyKey }))).toBe(
      'object/bad-signature',
    )
  })

  test('a gateway that holds the integrity key alone can check and not open', () => {
    const sealer = createSealer(suite, base)
    const mac = sealer.mac(sealer.encrypt(input))
    const integrityKey = suite.hmac(deriveIntegrityKey(suite, base.K, base))
    expect(verifyMacObject(mac, { device, path, integrityKey }).header.seq).toBe(9)
    expect(codeOf(() => verifyMacObject(mac, { device, path: ['s'], integrityKey }))).toBe('object/bad-mac')
    const otherKey = suite.hmac(deriveIntegrityKey(suite, base.K, { ...base, path: ['s'] }))
    expect(codeOf(() => verifyMacObject(mac, { device, path, integrityKey: otherKey }))).toBe('object/bad-mac')
    const changed = mac.slice()
    changed[changed.length - 10] = (changed.at(-10) as number) ^ 1
    expect(codeOf(() => verifyMacObject(changed, { device, path, integrityKey }))).toBe('object/bad-mac')
    expect(codeOf(() => verifyMacObject(sealed(), { device, path, integrityKey }))).toBe('object/malformed')
  })
})

describe('order', () => {
  const list = [3, 1, 7].map((n) => ({ sid: sid(n), from: NOW }))
  const at = (n: number | Uint8Array, seq: number) => ({ sid: typeof n === 'number' ? sid(n) : n, seq })

  test('incarnations first, then sequence numbers', () => {
    expect(compareOrder(list, at(1, 5), at(1, 6))).toBeLessThan(0)
    expect(compareOrder(list, at(1, 6), at(1, 6))).toBe(0)
    expect(compareOrder(list, at(7, 0), at(1, 999))).toBeGreaterThan(0)
    expect(compareOrder(list, at(3, 999), at(1, 0))).toBeLessThan(0)
    expect(sidPosition(list, sid(7))).toBe(2)
  })

  test('who is not listed any more is lower than any listed', () => {
    expect(compareOrder(list, at(9, 999), at(3, 0))).toBeLessThan(0)
    expect(compareOrder(list, at(9, 1), at(9, 2))).toBeLessThan(0)
    expect(compareOrder(list, at(9, 1), at(8, 2))).toBeGreaterThan(0)
    expect(compareOrder(list, at(fromHex('0100'), 1), at(9, 2))).toBeGreaterThan(0)
  })
})

describe('judgement', () => {
  const sids = [sid(1), sid(2)].map((s) => ({ sid: s, from: NOW }))
  const etag = new Uint8Array(8)
  const header = { ...input, algorithm: 24, sid: sid(1), gid, session: 5 } as JudgeOptions['header']
  const judge = (changes: Partial<JudgeOptions> = {}) =>
    judgeObject({ kind: 'signed', header, etag, sids, now: NOW + 20, maxAgeSeconds: 60, graceSeconds: 60, ...changes })
  const accepted = { sid: sid(1), seq: 9, etag }

  test('of a fresh object', () => {
    expect(judge()).toEqual({ stale: false, oldSession: false, repeated: false, accepted })
    expect(judge({ accepted })).toMatchObject({ repeated: true })
    expect(judge({ accepted: { ...accepted, seq: 8 } })).toMatchObject({ repeated: false })
  })

  test('of an old one: stale is said, rollback is refused', () => {
    expect(judge({ now: NOW + 70 })).toMatchObject({ stale: false })
    expect(judge({ now: NOW + 71 })).toMatchObject({ stale: true })
    expect(codeOf(() => judge({ accepted: { ...accepted, seq: 10 } }))).toBe('object/rollback')
    expect(codeOf(() => judge({ accepted: { ...accepted, sid: sid(2), seq: 0 } }))).toBe('object/rollback')
    expect(codeOf(() => judge({ accepted: { ...accepted, etag: new Uint8Array(8).fill(1) } }))).toBe(
      'object/equivocation',
    )
  })

  test('of one from the future', () => {
    expect(codeOf(() => judge({ now: NOW - 50 }))).toBeUndefined()
    expect(codeOf(() => judge({ now: NOW - 51 }))).toBe('object/future')
  })

  test('against its session', () => {
    const times = (nbf: number, exp: number) => ({ times: { session: 5, nbf, exp } })
    expect(codeOf(() => judge(times(NOW, NOW + 900)))).toBeUndefined()
    expect(codeOf(() => judge(times(NOW + 40, NOW + 900)))).toBeUndefined()
    expect(codeOf(() => judge(times(NOW + 41, NOW + 900)))).toBe('object/outside-session')
    expect(codeOf(() => judge(times(NOW - 900, NOW - 20)))).toBeUndefined()
    expect(codeOf(() => judge(times(NOW - 900, NOW - 21)))).toBe('object/outside-session')
    expect(judge({ supersededAt: NOW - 50 })).toMatchObject({ oldSession: false })
    expect(judge({ supersededAt: NOW - 51 })).toMatchObject({ oldSession: true })
  })

  test('of mac-objects is stricter', () => {
    const mac = (changes: Partial<JudgeOptions>) =>
      codeOf(() => judge({ kind: 'mac', broadcastSeenAt: NOW, ...changes }))
    expect(mac({})).toBeUndefined()
    expect(mac({ supersededAt: NOW - 40 })).toBeUndefined()
    expect(mac({ supersededAt: NOW - 41 })).toBe('object/old-session')
    expect(mac({ broadcastSeenAt: undefined })).toBe('object/unfresh-broadcast')
    expect(mac({ broadcastSeenAt: NOW - 41 })).toBe('object/unfresh-broadcast')
  })

  test('of packs: another one than asked for is swapped', () => {
    expect(codeOf(() => checkPackSeq(9, 9))).toBeUndefined()
    expect(codeOf(() => checkPackSeq(9, 10))).toBe('object/swapped')
  })
})
