import { createHash, X509Certificate } from 'node:crypto'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { orderRevocation } from '../../keyserver/revocations.ts'
import { coseKeyEd25519, thumbprint } from '../../protocol/cose/key.ts'
import { signDigest } from '../../protocol/crypto/secp256k1.ts'
import { type Address, addressBytes, addressHex } from '../../protocol/messages/address.ts'
import {
  decodeEnrolmentReply,
  decodeRenewalReply,
  type EnrolmentBody,
  encodeEnrolmentBody,
  encodeRenewal,
  enrolmentDigest,
} from '../../protocol/messages/enrolment.ts'
import { decodeEnrolmentCode, enrolmentIdentity, enrolmentPsk } from '../../protocol/messages/enrolment-code.ts'
import { createCa } from '../../runtime/pki/authority.ts'
import { deviceAddressOf } from '../../runtime/pki/certificate.ts'
import { generateKeyPair } from '../../runtime/pki/keys.ts'
import { createCsr } from '../../runtime/pki/request.ts'
import type { Peer, SecureFacts } from '../../transport/coap/transport.ts'
import { addressOf, association, call, createWorld, live, newest, OWNER, TestDevice, type World } from './harness.ts'

const ca = await createCa({ nowMs: 1_763_800_000_000 })
let world: World
beforeEach(async () => {
  world = await createWorld({
    enrolment: {
      authority: ca.issuing,
      caChain: ca.issuing.certificate + ca.root.certificate,
      days: 90,
      chain: { chainId: 20180415, registry: new Uint8Array(20).fill(0x11) },
    },
  })
})
afterEach(() => world.close())

const seed = new Uint8Array(32).fill(3)
const device = addressOf(seed)
const coseKey = coseKeyEd25519(suite.ed25519.signing(new Uint8Array(32).fill(4)).publicKey)
const csrOf = async (address: Address = device) =>
  Uint8Array.from((await createCsr({ address, privateKey: generateKeyPair().privateKey })).der)

function newCode(options: { device?: Address; ttl?: number; owner?: Address } = {}): string {
  const { text } = world.server.codes.create({
    randomBytes: (n) => suite.randomBytes(n),
    owner: options.owner ?? OWNER,
    device: options.device,
    expiresAt: world.clock.seconds + (options.ttl ?? 3600),
  })
  return text
}

const withCode = (text: string): Peer => association({ pskIdentity: enrolmentIdentity(decodeEnrolmentCode(text)) })

function body(peer: Peer, csr: Uint8Array, patch: Partial<EnrolmentBody> & { by?: Uint8Array } = {}): EnrolmentBody {
  const address = patch.device ?? addressBytes(device)
  const digest = enrolmentDigest({
    device: address,
    csrHash: Uint8Array.from(createHash('sha256').update(csr).digest()),
    signingKey: thumbprint(suite, coseKey),
    channel: (peer.secure as SecureFacts).channelBinding(),
  })
  return { csr, coseKey, device: address, sig: signDigest(patch.by ?? seed, digest), ...patch }
}

const enrol = (peer: Peer, request: EnrolmentBody) =>
  call(world.server.secure, peer, 'POST', '/enroll', encodeEnrolmentBody(request))

describe('enrolment', () => {
  test('a code, a proof, a certificate for this device and its owner', async () => {
    const peer = withCode(newCode())
    const csr = await csrOf()
    const reply = await enrol(peer, body(peer, csr))
    expect(reply.text).toBe('2.04')
    const { certificate, caChain, owner, keyServer, chain } = decodeEnrolmentReply(reply.payload as Uint8Array)
    const parsed = new X509Certificate(certificate)
    expect(deviceAddressOf(parsed)).toBe(device)
    expect(parsed.verify(new X509Certificate(caChain[0] as Uint8Array).publicKey)).toBe(true)
    expect(addressHex(owner)).toBe(OWNER)
    expect(keyServer).toHaveLength(32)
    expect(chain.chainId).toBe(20180415)
    expect(world.server.roster.devices.get(device)?.record.enrolledOwner).toBe(OWNER)
  })

  test('the same request again gets the same certificate, while the code lasts', async () => {
    const text = newCode({ ttl: 600 })
    const csr = await csrOf()
    const first = withCode(text)
    const one = decodeEnrolmentReply((await enrol(first, body(first, csr))).payload as Uint8Array)
    const second = withCode(text)
    const two = decodeEnrolmentReply((await enrol(second, body(second, csr))).payload as Uint8Array)
    expect(two.certificate).toEqual(one.certificate)
    const other = withCode(text)
    expect((await enrol(other, body(other, await csrOf()))).problem).toBe('keyserver/bad-code')
    world.clock.pass(600)
    const late = withCode(text)
    expect((await enrol(late, body(late, csr))).problem).toBe('keyserver/bad-code')
  })

  test('two requests with one code at the same moment: one certificate', async () => {
    const text = newCode()
    const [a, b] = [withCode(text), withCode(text)]
    const replies = await Promise.all([enrol(a, body(a, await csrOf())), enrol(b, body(b, await csrOf()))])
    expect(replies.map((r) => r.text).sort()).toEqual(['2.04', '4.01'])
  })

  test('a second code does not replace a certificate that is in force; revoking it does', async () => {
    const first = withCode(newCode())
    await enrol(first, body(first, await csrOf()))
    const second = withCode(newCode())
    const csr = await csrOf()
    const refused = await enrol(second, body(second, csr))
    expect(refused).toMatchObject({ text: '4.09', problem: 'keyserver/other-certificate' })
    expect(refused.detail).toContain(`revoke --device ${device}`)
    orderRevocation(`${world.folder}/orders`, { device })
    await world.server.revocations.takeOrders()
    expect(readdirSync(`${world.folder}/orders`)).toEqual([])
    expect((await enrol(second, body(second, csr))).text).toBe('2.04')
  })

  test('it survives a restart: the code stays used, the owner stays known', async () => {
    await world.close()
    world = await createWorld({
      onDisk: true,
      enrolment: {
        authority: ca.issuing,
        caChain: ca.issuing.certificate,
        days: 90,
        chain: { chainId: 1, registry: new Uint8Array(20) },
      },
    })
    const text = newCode({ owner: `0x${'0b'.repeat(20)}` })
    const peer = withCode(text)
    await enrol(peer, body(peer, await csrOf()))
    await world.restart()
    expect(world.server.roster.devices.get(device)?.record.enrolledOwner).toBe(`0x${'0b'.repeat(20)}`)
    const again = withCode(text)
    expect((await enrol(again, body(again, await csrOf()))).problem).toBe('keyserver/bad-code')
  })
})

describe('attacks', () => {
  const stranger = new Uint8Array(32).fill(66)

  test('the address of another device', async () => {
    const peer = withCode(newCode())
    const victim = addressOf(new Uint8Array(32).fill(9))
    const csr = await csrOf(victim)
    const reply = await enrol(peer, body(peer, csr, { device: addressBytes(victim), by: stranger }))
    expect(reply).toMatchObject({ text: '4.01', problem: 'keyserver/bad-proof' })
  })

  test('a request for another address than the enrolment', async () => {
    const peer = withCode(newCode())
    const csr = await csrOf(addressOf(stranger))
    expect((await enrol(peer, body(peer, csr))).problem).toBe('keyserver/bad-proof')
  })

  test('the code of another device', async () => {
    const peer = withCode(newCode({ device: addressOf(stranger) }))
    expect((await enrol(peer, body(peer, await csrOf()))).problem).toBe('keyserver/not-yours')
  })

  test('a recorded request on another association', async () => {
    const text = newCode()
    const heard = withCode(text)
    const recorded = body(heard, await csrOf())
    expect((await enrol(withCode(text), recorded)).problem).toBe('keyserver/bad-proof')
  })

  test('another object-signing key than the one signed for', async () => {
    const peer = withCode(newCode())
    const other = coseKeyEd25519(suite.ed25519.signing(stranger).publicKey)
    expect((await enrol(peer, { ...body(peer, await csrOf()), coseKey: other })).problem).toBe('keyserver/bad-proof')
  })

  test('no code, an unknown one, one that is over', async () => {
    const csr = await csrOf()
    const over = withCode(newCode({ ttl: 10 }))
    world.clock.pass(11)
    for (const peer of [association(), association({ pskIdentity: 'enrol:0000000000000000' }), over]) {
      expect(await enrol(peer, body(peer, csr))).toMatchObject({ text: '4.01', problem: 'keyserver/bad-code' })
    }
  })

  test('a tampered or malformed request', async () => {
    const peer = withCode(newCode())
    const csr = await csrOf()
    const broken = csr.slice()
    broken[broken.length - 5] = (broken[broken.length - 5] ?? 0) ^ 1
    expect((await enrol(peer, body(peer, broken))).text).toMatch(/^4/)
    expect((await enrol(peer, body(peer, Uint8Array.of(1, 2, 3)))).text).toBe('4.00')
    expect((await call(world.server.secure, peer, 'POST', '/enroll', Uint8Array.of(0x80))).text).toBe('4.00')
  })

  test('guessing gets slower and slower', async () => {
    const text = newCode()
    const identity = enrolmentIdentity(decodeEnrolmentCode(text))
    const peer = withCode(text)
    const wrong = { ...body(peer, await csrOf()), sig: new Uint8Array(65) }
    for (let i = 0; i < 5; i++) await enrol(peer, wrong)
    const slowed = await enrol(peer, wrong)
    expect(slowed).toMatchObject({ text: '4.29', problem: 'keyserver/guessing' })
    expect(slowed.maxAge).toBeGreaterThan(0)
    expect(world.server.codes.lookup(identity)).toBeUndefined()
    world.clock.pass(61)
    expect(world.server.codes.lookup(identity)).toEqual(enrolmentPsk(decodeEnrolmentCode(text)))
  })

  test('handshakes that never get through slow down too, unknown identities are rationed', () => {
    const text = newCode()
    const identity = enrolmentIdentity(decodeEnrolmentCode(text))
    let answered = 0
    for (let i = 0; i < 50; i++) if (world.server.codes.lookup(identity) !== undefined) answered++
    expect(answered).toBe(5)
    for (let i = 0; i < 200; i++) {
      expect(world.server.codes.lookup(`enrol:${i.toString(16).padStart(16, '0')}`)).toBeUndefined()
    }
    for (const odd of ['', 'enrol:../../etc', 'enrol:ABCDEF0123456789', 'x'.repeat(500)]) {
      expect(world.server.codes.lookup(odd)).toBeUndefined()
    }
  })

  test('a damaged code file is no code', () => {
    const text = newCode()
    const identity = enrolmentIdentity(decodeEnrolmentCode(text))
    writeFileSync(`${world.folder}/codes/${identity.slice(6)}.json`, '{"identity":')
    expect(world.server.codes.find(identity)).toBeUndefined()
  })

  test('a code’s file holds no code', () => {
    const text = newCode()
    const [file = ''] = readdirSync(`${world.folder}/codes`)
    expect(file).not.toContain(text.replaceAll(' ', ''))
  })

  test('codes whose time is over are swept', () => {
    newCode({ ttl: 10 })
    newCode({ ttl: 86_400 })
    world.clock.pass(7200)
    world.server.codes.lookup('enrol:0000000000000000')
    expect(readdirSync(`${world.folder}/codes`)).toHaveLength(1)
  })
})

describe('renewal over the old certificate', () => {
  async function enrolled() {
    const pair = generateKeyPair()
    const csr = Uint8Array.from((await createCsr({ address: device, privateKey: pair.privateKey })).der)
    const peer = withCode(newCode())
    const reply = decodeEnrolmentReply((await enrol(peer, body(peer, csr))).payload as Uint8Array)
    const certificate = new X509Certificate(reply.certificate)
    world.chain.register({
      device,
      owner: OWNER,
      signingKey: thumbprint(suite, coseKey),
      keyServer: reply.keyServer,
      contracts: [],
    })
    world.chain.mine(3)
    return { pair, csr, certificate, peer: association({ certificate, authorized: true }) }
  }
  const renew = (peer: Peer, csr: Uint8Array) => call(world.server.secure, peer, 'POST', '/renew', encodeRenewal(csr))

  test('the same early on, a later one after half of its life, and the member stays one', async () => {
    const { csr, certificate, peer } = await enrolled()
    const soon = decodeRenewalReply((await renew(peer, csr)).payload as Uint8Array)
    expect(new X509Certificate(soon.certificate).serialNumber).toBe(certificate.serialNumber)
    const member = await TestDevice.create(world, 3, { register: false, certificate: certificate.toString() })
    Object.assign(member, { signing: suite.ed25519.signing(new Uint8Array(32).fill(4)), coseKey })
    const joined = await member.join()
    world.clock.pass(60 * 86_400)
    const later = decodeRenewalReply((await renew(peer, csr)).payload as Uint8Array)
    const fresh = new X509Certificate(later.certificate)
    expect(Date.parse(fresh.validTo)).toBeGreaterThan(Date.parse(certificate.validTo))
    expect(deviceAddressOf(fresh)).toBe(device)
    expect(fresh.publicKey.equals(certificate.publicKey)).toBe(true)
    const group = [...world.server.roster.groups.values()][0]
    await world.server.sessions.tick()
    world.clock.pass(40 * 86_400)
    await world.server.sessions.tick()
    expect([...(group?.manager.members() ?? [])]).toHaveLength(1)
    expect(joined.response.senderId).toBeDefined()
  })

  test('not for another key, another device, a revoked or foreign certificate', async () => {
    const { csr, certificate, peer } = await enrolled()
    expect((await renew(peer, await csrOf())).problem).toBe('keyserver/wrong-key')
    expect((await renew(peer, await csrOf(addressOf(new Uint8Array(32).fill(9))))).problem).toBe('keyserver/not-yours')
    const foreign = await TestDevice.create(world, 3, { register: false })
    expect((await renew(foreign.peer, csr)).problem).toBe('keyserver/not-yours')
    expect((await renew(association(), csr)).problem).toBe('keyserver/certificate')
    world.server.certificates.revoke([certificate.serialNumber])
    expect((await renew(peer, csr)).problem).toBe('keyserver/certificate')
  })

  test('not for a device that its owner deactivated', async () => {
    const { csr, peer } = await enrolled()
    world.chain.register({
      device,
      owner: OWNER,
      signingKey: new Uint8Array(32),
      keyServer: new Uint8Array(32).fill(0xa1),
      contracts: [],
      active: false,
    })
    expect((await renew(peer, csr)).problem).toBe('keyserver/not-served')
  })
})

test('revoked: off the line and out at the next session', async () => {
  await world.close()
  const dropped: string[] = []
  world = await createWorld({ onRevoked: (devices) => dropped.push(...devices) })
  const member = await TestDevice.create(world, 1)
  const other = await TestDevice.create(world, 2)
  await other.join()
  const { member: keys } = await member.join()
  await member.join(4)
  orderRevocation(`${world.folder}/orders`, { device: member.address })
  await world.server.revocations.takeOrders()
  expect(dropped).toEqual([member.address])
  await live(world, 11)
  expect([...(world.server.roster.groups.get(member.name(0))?.manager.members() ?? [])]).toEqual([])
  expect([...(world.server.roster.groups.get(other.name(0))?.manager.members() ?? [])]).toHaveLength(1)
  expect(keys.receive(await newest(world, member))).toBe('not-for-me')
  expect((await member.tryJoin()).problem).toBe('keyserver/certificate')
  await world.restart()
  expect((await member.tryJoin()).problem).toBe('keyserver/certificate')
})

test('an order that cannot be read holds up no other', async () => {
  const member = await TestDevice.create(world)
  await member.join()
  mkdirSync(`${world.folder}/orders/device-0.order`, { recursive: true })
  orderRevocation(`${world.folder}/orders`, { device: member.address })
  await expect(world.server.revocations.takeOrders()).rejects.toMatchObject({ code: 'runtime/cannot-read' })
  expect(readdirSync(`${world.folder}/orders`)).toEqual(['device-0.order'])
  expect((await member.tryJoin()).problem).toBe('keyserver/certificate')
})
