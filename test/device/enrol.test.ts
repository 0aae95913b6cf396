import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parse } from 'yaml'
import { suite } from '#crypto'
import { type Enrolled, enrol } from '../../device/enrol.ts'
import { writeEnrolledConfig } from '../../device/enrol-config.ts'
import { deleteEnrolFile, readEnrolFile } from '../../device/enrol-file.ts'
import { loadIdentity } from '../../device/identity.ts'
import { createRegistration, initIdentity } from '../../device/provision.ts'
import { deviceSettings } from '../../device/settings.ts'
import { thumbprint } from '../../protocol/cose/key.ts'
import { recoverAddress } from '../../protocol/crypto/secp256k1.ts'
import { addressBytes, addressHex } from '../../protocol/messages/address.ts'
import {
  decodeEnrolmentBody,
  decodeRenewal,
  encodeEnrolmentReply,
  encodeRenewalReply,
  enrolmentDigest,
} from '../../protocol/messages/enrolment.ts'
import { encodeEnrolmentCode, enrolmentIdentity, enrolmentPsk } from '../../protocol/messages/enrolment-code.ts'
import {
  decodeRegistrationTicket,
  encodeRegistrationTicket,
  registrationDigest,
  registrationOf,
} from '../../protocol/messages/registration.ts'
import { createCa, issueDeviceCertificate, issueServerCertificate } from '../../runtime/pki/authority.ts'
import { certificateLife, parseCertificate, parseCertificates } from '../../runtime/pki/certificate.ts'
import { generateKeyPair, privateKeyPem } from '../../runtime/pki/keys.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { problemReply } from '../../transport/coap/problem-details.ts'
import { Router } from '../../transport/coap/server.ts'
import { dtlsServerTransport } from '../../transport/dtls/coap-transport.ts'
import { makeRig } from './device-rig.ts'
import { temporaryFolder } from './fixtures.ts'

const OWNER = new Uint8Array(20).fill(0x22)
const KEY_SERVER = new Uint8Array(32).fill(0xa1)
const CHAIN = { chainId: 20180415, registry: new Uint8Array(20).fill(0x11) }

/** A key server that knows one code. */
async function enroller(code: Uint8Array) {
  const ca = await createCa({ name: 'enrol' })
  const { privateKey, publicKey } = generateKeyPair()
  const server = await issueServerCertificate(ca.root, { publicKey, names: ['127.0.0.1'] })
  const caChain = parseCertificates(ca.issuing.certificate + ca.root.certificate).map((c) => new Uint8Array(c.raw))
  const router = new Router().add({
    pattern: '/enroll',
    bodyOctets: 8192,
    async post(request) {
      const body = decodeEnrolmentBody(request.payload)
      const channel = request.peer.secure?.channelBinding() as Uint8Array
      const csrHash = suite.sha256(body.csr)
      const digest = enrolmentDigest({
        device: body.device,
        csrHash,
        signingKey: thumbprint(suite, body.coseKey),
        channel,
      })
      if (recoverAddress(digest, body.sig) !== addressHex(body.device))
        return problemReply(Code.unauthorized, { detail: 'bad signature' })
      const issued = await issueDeviceCertificate(ca.issuing, body.csr)
      const certificate = new Uint8Array(parseCertificate(issued.certificate).raw)
      const payload = encodeEnrolmentReply({
        certificate,
        caChain,
        kdcCred: Uint8Array.of(1),
        owner: OWNER,
        keyServer: KEY_SERVER,
        chain: CHAIN,
      })
      return { code: Code.changed, payload, contentFormat: ContentFormat.cbor }
    },
  })
  const transport = await dtlsServerTransport({
    host: '127.0.0.1',
    port: 0,
    cert: server.chain,
    key: privateKeyPem(privateKey),
    psk: { [enrolmentIdentity(code)]: enrolmentPsk(code) },
  })
  const endpoint = new CoapEndpoint(transport, { router })
  onTestFinished(() => endpoint.close())
  return { uri: `coaps://127.0.0.1:${transport.address.port}`, ca }
}

describe('enrolment by a code', () => {
  test('keys are made here, the certificate comes back, the registration can be signed', async () => {
    const code = suite.randomBytes(16)
    const { uri } = await enroller(code)
    const directory = join(temporaryFolder(), 'device')
    const enrolled = await enrol({ keyserver: uri, code: encodeEnrolmentCode(code).toLowerCase(), directory })
    expect(enrolled).toMatchObject({
      owner: addressHex(OWNER),
      chainId: 20180415,
      registry: addressHex(CHAIN.registry),
    })
    const settings = deviceSettings.shape.identity.parse({})
    const identity = loadIdentity(settings, (file) => join(directory, file))
    expect(identity).toMatchObject({ address: enrolled.address })
    for (const file of ['account.key', 'device.key', 'signing.key'])
      expect(statSync(join(directory, file)).mode & 0o077).toBe(0)
    await expect(enrol({ keyserver: uri, code: encodeEnrolmentCode(code), directory })).rejects.toMatchObject({
      code: 'runtime/exists',
    })
    for (const name of ['ca.crt', 'device.crt']) {
      writeFileSync(join(directory, name), 'nothing')
      expect(() => loadIdentity(settings, (file) => join(directory, file))).toThrow(`${name}: there is no certificate`)
    }
  })

  test('a wrong code gets nothing, leaves the keys, and the right one works afterwards', async () => {
    const code = suite.randomBytes(16)
    const { uri } = await enroller(code)
    const directory = join(temporaryFolder(), 'device')
    const wrong = encodeEnrolmentCode(suite.randomBytes(16))
    await expect(enrol({ keyserver: uri, code: wrong, directory })).rejects.toMatchObject({
      code: 'device/unknown-code',
    })
    const key = readFileSync(join(directory, 'account.key'), 'utf8')
    await expect(enrol({ keyserver: uri, code: 'nonsense', directory })).rejects.toMatchObject({
      code: 'message/bad-code',
    })
    await enrol({ keyserver: uri, code: encodeEnrolmentCode(code), directory })
    expect(readFileSync(join(directory, 'account.key'), 'utf8')).toBe(key)
  })

  test.each([
    'coap://keys.example',
    'coaps+tcp://keys.example',
    'keys.example',
    'coaps://keys.example/x',
    'coaps://h:70000',
  ])('a wrong address, %s, is told before anything is made', async (keyserver) => {
    const directory = join(temporaryFolder(), 'device')
    await expect(enrol({ keyserver, code: 'nonsense', directory })).rejects.toMatchObject({ code: 'coap/bad-uri' })
    expect(existsSync(directory)).toBe(false)
  })

  test('the file on the boot partition is checked, used once and deleted', () => {
    const path = join(temporaryFolder(), 'iotchain-enroll.yaml')
    const code = encodeEnrolmentCode(suite.randomBytes(16))
    writeFileSync(path, `keyserver: "coaps://keys.example:5684"\ncode: ${code}\n`)
    expect(readEnrolFile(path)).toEqual({ keyserver: 'coaps://keys.example:5684', code, uri: '' })
    deleteEnrolFile(path)
    expect(() => readEnrolFile(path)).toThrow(expect.objectContaining({ code: 'config/cannot-read' }))
    expect(() => deleteEnrolFile(path)).toThrow(expect.objectContaining({ code: 'runtime/cannot-write' }))
    writeFileSync(path, 'keyserver: "http://x"\ncode: short\n')
    expect(() => readEnrolFile(path)).toThrow(/keyserver: must look like coaps/)
    expect(() => readEnrolFile(path)).toThrow(expect.objectContaining({ hint: expect.stringContaining('code: "…"') }))
  })

  test('key server and chain go into the configuration, comments and the rest stay', () => {
    const file = join(temporaryFolder(), 'device.yaml')
    const enrolled: Enrolled = {
      address: `0x${'33'.repeat(20)}`,
      owner: `0x${'22'.repeat(20)}`,
      keyServer: KEY_SERVER,
      chainId: 5,
      registry: `0x${'11'.repeat(20)}`,
    }
    writeFileSync(
      file,
      '# mine\nkeyserver: "coaps://old"\nchain: { id: 1, registry: "0x00" } # dummy\nresources:\n  - { path: /s/x, driver: host, group: 3 }\n',
    )
    writeEnrolledConfig(file, 'coaps://new:5684', enrolled)
    const text = readFileSync(file, 'utf8')
    expect(text).toContain('# mine')
    expect(parse(text)).toMatchObject({
      keyserver: 'coaps://new:5684',
      chain: { id: 5, registry: enrolled.registry },
      resources: [{ path: '/s/x', group: 3 }],
    })
    const fresh = join(temporaryFolder(), 'device.yaml')
    writeEnrolledConfig(fresh, 'coaps://new:5684', enrolled)
    expect(deviceSettings.safeParse(parse(readFileSync(fresh, 'utf8'))).success).toBe(true)
  })
})

test('a registration is signed by the device for one owner', async () => {
  const directory = temporaryFolder()
  const { address } = await initIdentity(directory)
  const registry = addressHex(CHAIN.registry)
  const ticket = createRegistration({
    accountKey: join(directory, 'account.key'),
    signingKey: join(directory, 'signing.key'),
    chainId: 20180415,
    registry,
    owner: addressHex(OWNER),
    keyServer: KEY_SERVER,
    uri: 'coap://[::1]',
    nonce: 2,
    deadline: 1_800_000_000,
  })
  const read = decodeRegistrationTicket(encodeRegistrationTicket(ticket))
  const domain = { chainId: 20180415, registry: addressBytes(registry) }
  expect(recoverAddress(registrationDigest(domain, registrationOf(read)), read.deviceSig)).toBe(address)
  await expect(initIdentity(directory)).rejects.toMatchObject({ code: 'runtime/exists' })
})

test('a certificate is renewed at two thirds of its life, over the old one, and is used after a restart', async () => {
  const rig = await makeRig()
  const old = parseCertificates(readFileSync(join(rig.folder, 'device.crt'), 'utf8'))[0]
  const renewals: number[] = []
  const { issuing, root } = rig.ca
  let life: { days: number; nowMs?: number } = { days: 365 }
  rig.keyServer.onRenew = async (payload) => {
    renewals.push(payload.length)
    const { certificate } = await issueDeviceCertificate(issuing, decodeRenewal(payload), life)
    const caChain = parseCertificates(issuing.certificate + root.certificate).map((c) => new Uint8Array(c.raw))
    return encodeRenewalReply({ certificate: new Uint8Array(parseCertificate(certificate).raw), caChain })
  }
  // The certificate was made for 90 days; the clock of the device stands two months later.
  rig.clock.shiftMs = 61 * 86_400_000
  rig.keyServer.publish(1)
  await rig.restart()
  await expect.poll(() => renewals.length, { timeout: 10_000 }).toBe(1)
  await expect.poll(() => JSON.stringify(rig.lines), { timeout: 5000 }).toContain('certificate renewed')
  const kept = parseCertificates(readFileSync(join(rig.folder, 'state/device.crt'), 'utf8'))[0]
  expect(certificateLife(kept as never).notAfterSeconds).toBeGreaterThan(certificateLife(old as never).notAfterSeconds)
  await rig.restart()
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(renewals).toHaveLength(1)

  // A certificate that is due again at the moment it comes: the key server is not asked every second.
  life = { days: 800, nowMs: Date.now() - 300 * 86_400_000 }
  rig.clock.shiftMs = 300 * 86_400_000
  await rig.restart()
  await expect.poll(() => renewals.length, { timeout: 10_000 }).toBe(2)
  await new Promise((resolve) => setTimeout(resolve, 2500))
  expect(renewals).toHaveLength(2)
})
