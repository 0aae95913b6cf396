import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Address } from '../../protocol/messages/address.ts'
import {
  type Authority,
  createCa,
  issueDeviceCertificate,
  issueServerCertificate,
  openAuthority,
} from '../../runtime/pki/authority.ts'
import {
  certificateLife,
  deviceAddressOf,
  EKU_CLIENT_AUTH,
  EKU_SERVER_AUTH,
  extendedKeyUsages,
  inForce,
  parseCertificate,
  parseCertificates,
  spkiSha256,
} from '../../runtime/pki/certificate.ts'
import { generateKeyPair, loadPrivateKey, privateKeyPem, savePrivateKey } from '../../runtime/pki/keys.ts'
import { createCsr, verifyCsr } from '../../runtime/pki/request.ts'
import { createCrl, isRevoked } from '../../runtime/pki/revocation.ts'

const ADDRESS: Address = '0x00112233445566778899aabbccddeeff00112233'
const NOW = Date.UTC(2026, 5, 1)
const folder = mkdtempSync(join(tmpdir(), 'iotchain-pki-'))
let ca: { root: Authority; issuing: Authority }

beforeAll(async () => {
  ca = await createCa({ nowMs: NOW })
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const openssl = (() => {
  try {
    return execFileSync('openssl', ['version']).toString().trim()
  } catch {
    return undefined
  }
})()

describe('device certificates', () => {
  test('hold the address, the key and clientAuth of the request, nothing else', async () => {
    const { privateKey, publicKey } = generateKeyPair()
    const csr = await createCsr({ address: ADDRESS, privateKey })
    for (const form of [csr.pem, csr.der]) {
      const issued = await issueDeviceCertificate(ca.issuing, form, { nowMs: NOW, days: 30 })
      expect(issued.address).toBe(ADDRESS)
      const leaf = parseCertificate(issued.certificate)
      expect(deviceAddressOf(leaf)).toBe(ADDRESS)
      expect(extendedKeyUsages(leaf)).toEqual([EKU_CLIENT_AUTH])
      expect(leaf.ca).toBe(false)
      expect(spkiSha256(leaf)).toEqual(spkiSha256(publicKey))
      expect(leaf.serialNumber.toLowerCase()).toBe(issued.serial)
      expect(leaf.verify(parseCertificate(ca.issuing.certificate).publicKey)).toBe(true)
      expect(parseCertificates(issued.chain)).toHaveLength(2)
      const life = certificateLife(leaf)
      expect(life.notAfterSeconds).toBe(NOW / 1000 + 30 * 86_400)
      expect(life.renewAtSeconds).toBe(life.notBeforeSeconds + (2 * (30 * 86_400 + 3600)) / 3)
      expect(inForce(leaf, life.notAfterSeconds)).toBe(true)
      expect(inForce(leaf, life.notAfterSeconds + 1)).toBe(false)
      expect(inForce(leaf, life.notBeforeSeconds - 1)).toBe(false)
    }
  })

  test('that live for minutes are not due for renewal at once', async () => {
    const { privateKey } = generateKeyPair()
    const csr = await createCsr({ address: ADDRESS, privateKey })
    const issued = await issueDeviceCertificate(ca.issuing, csr.pem, { nowMs: NOW, days: 0.01 })
    const life = certificateLife(issued.certificate)
    expect(life.notAfterSeconds).toBe(NOW / 1000 + 864)
    expect(life.notBeforeSeconds).toBeLessThan(NOW / 1000 - 60)
    expect(life.renewAtSeconds).toBeGreaterThan(NOW / 1000 + 500)
  })

  test('never outlive their issuer', async () => {
    const { privateKey } = generateKeyPair()
    const csr = await createCsr({ address: ADDRESS, privateKey })
    const issued = await issueDeviceCertificate(ca.issuing, csr.pem, { nowMs: NOW, days: 99_999 })
    expect(parseCertificate(issued.certificate).validTo).toBe(parseCertificate(ca.issuing.certificate).validTo)
  })

  test('are refused for a request that was changed after signing', async () => {
    const { privateKey } = generateKeyPair()
    const csr = await createCsr({ address: ADDRESS, privateKey })
    let refused = 0
    for (let i = 0; i < csr.der.length; i += 3) {
      const changed = Buffer.from(csr.der)
      changed[i] = (changed[i] as number) ^ 1
      await expect(verifyCsr(changed)).rejects.toMatchObject({
        code: expect.stringMatching(/^pki\/(bad-csr|wrong-key)$/),
      })
      refused++
    }
    expect(refused).toBeGreaterThan(80)
  })

  test('are refused for another device, a foreign curve, no or two names, and what is no request', async () => {
    const { privateKey } = generateKeyPair()
    const csr = await createCsr({ address: ADDRESS, privateKey })
    await expect(
      issueDeviceCertificate(ca.issuing, csr.pem, { address: `0x${'11'.repeat(20)}` }),
    ).rejects.toMatchObject({ code: 'pki/wrong-device' })
    await expect(verifyCsr('-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END')).rejects.toMatchObject({
      code: 'pki/bad-csr',
    })
    await expect(verifyCsr(new Uint8Array(5000))).rejects.toMatchObject({ code: 'pki/bad-csr' })
    await expect(verifyCsr(new Uint8Array(0))).rejects.toMatchObject({ code: 'pki/bad-csr' })
  })

  test.skipIf(openssl === undefined)('are refused for requests of openssl that name something else', async () => {
    const key = join(folder, 'o.key')
    for (const [curve, san, code] of [
      ['prime256v1', `URI:urn:iotchain:device:${ADDRESS}`, undefined],
      ['prime256v1', `URI:urn:iotchain:device:${ADDRESS},DNS:keyserver`, 'pki/bad-csr'],
      ['prime256v1', `DNS:urn:iotchain:device:${ADDRESS}`, 'pki/bad-csr'],
      ['prime256v1', `URI:urn:iotchain:device:${ADDRESS.toUpperCase().replace('0X', '0x')}`, 'pki/bad-csr'],
      ['secp384r1', `URI:urn:iotchain:device:${ADDRESS}`, 'pki/wrong-key'],
    ] as const) {
      execFileSync('openssl', ['ecparam', '-name', curve, '-genkey', '-noout', '-out', key], { stdio: 'pipe' })
      const args = ['req', '-new', '-key', key, '-subj', '/CN=x', '-addext', `subjectAltName=${san}`]
      const pem = execFileSync('openssl', args, { stdio: 'pipe' }).toString()
      if (code === undefined) expect((await verifyCsr(pem)).address).toBe(ADDRESS)
      else await expect(verifyCsr(pem)).rejects.toMatchObject({ code })
    }
  })
})

describe('key-server certificates', () => {
  test('name the hosts, allow serverAuth only, and keep the SPKI when renewed', async () => {
    const { publicKey } = generateKeyPair()
    const names = ['keys.example', '192.0.2.1', '2001:db8::1']
    const first = await issueServerCertificate(ca.root, { publicKey, names, nowMs: NOW })
    const second = await issueServerCertificate(ca.root, { publicKey, names, nowMs: NOW + 1e9 })
    const leaf = parseCertificate(first.certificate)
    expect(extendedKeyUsages(leaf)).toEqual([EKU_SERVER_AUTH])
    expect(leaf.checkHost('keys.example')).toBe('keys.example')
    expect(leaf.checkIP('192.0.2.1')).toBe('192.0.2.1')
    expect(leaf.checkIP('2001:db8::1')).toBe('2001:db8::1')
    expect(leaf.checkHost('other.example')).toBeUndefined()
    expect(deviceAddressOf(leaf)).toBeUndefined()
    expect(parseCertificates(first.chain)).toHaveLength(1)
    expect(first.serial).not.toBe(second.serial)
    expect(spkiSha256(first.certificate)).toEqual(spkiSha256(second.certificate))
  })

  test('need a name that is one', async () => {
    const { publicKey } = generateKeyPair()
    for (const names of [[], ['not a name'], ['a..b'], ['-x'], ['ä.example']]) {
      await expect(issueServerCertificate(ca.root, { publicKey, names })).rejects.toMatchObject({
        code: 'pki/bad-name',
      })
    }
  })
})

describe('the authority', () => {
  test.skipIf(openssl === undefined)('is one that openssl follows, each certificate for its purpose only', async () => {
    const { root, issuing } = await createCa()
    const { privateKey, publicKey } = generateKeyPair()
    const csr = await createCsr({ address: ADDRESS, privateKey })
    const device = await issueDeviceCertificate(issuing, csr.pem)
    const server = await issueServerCertificate(root, { publicKey, names: ['localhost'] })
    const posing = await issueServerCertificate(issuing, { publicKey, names: ['localhost'] })
    const file = (name: string, text: string) => {
      writeFileSync(join(folder, name), text)
      return join(folder, name)
    }
    const verify = (purpose: string, leaf: string) => {
      try {
        const args = ['verify', '-purpose', purpose, '-CAfile', file('root.pem', root.certificate)]
        execFileSync('openssl', [...args, '-untrusted', file('chain.pem', issuing.chain), file('leaf.pem', leaf)], {
          stdio: 'pipe',
        })
        return true
      } catch {
        return false
      }
    }
    expect(verify('sslclient', device.certificate)).toBe(true)
    expect(verify('sslserver', device.certificate)).toBe(false)
    expect(verify('sslserver', server.certificate)).toBe(true)
    expect(verify('sslclient', server.certificate)).toBe(false)
    expect(verify('sslserver', posing.certificate)).toBe(false)
  })

  test('opens only with its own key', () => {
    const { privateKey } = generateKeyPair()
    expect(() => openAuthority({ certificate: ca.root.certificate, key: privateKey })).toThrow(
      expect.objectContaining({ code: 'pki/wrong-key' }),
    )
    expect(openAuthority({ certificate: ca.root.certificate, key: ca.root.key }).chain).toBe('')
    const issuing = openAuthority({ certificate: ca.issuing.certificate, key: ca.issuing.key })
    expect(issuing.chain).toBe(ca.issuing.certificate)
  })
})

describe('key files', () => {
  test('are for the owner only, never overwritten by accident, and encrypted where asked', () => {
    const { privateKey, publicKey } = generateKeyPair()
    const path = join(folder, 'device.key')
    savePrivateKey(path, privateKey, { passphrase: 'a passphrase' })
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(readFileSync(path, 'utf8')).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/)
    expect(spkiSha256(loadPrivateKey(path, 'a passphrase').publicKey)).toEqual(spkiSha256(publicKey))
    expect(() => loadPrivateKey(path, 'wrong')).toThrow(expect.objectContaining({ code: 'pki/wrong-passphrase' }))
    expect(() => loadPrivateKey(path)).toThrow(expect.objectContaining({ code: 'pki/wrong-passphrase' }))
    expect(() => savePrivateKey(path, privateKey)).toThrow(expect.objectContaining({ code: 'runtime/exists' }))
    savePrivateKey(path, privateKey, { overwrite: true })
    expect(readFileSync(path, 'utf8')).toBe(privateKeyPem(privateKey))
    writeFileSync(path, 'nonsense')
    expect(() => loadPrivateKey(path)).toThrow(expect.objectContaining({ code: 'pki/bad-key' }))
    expect(() => loadPrivateKey(join(folder, 'missing'))).toThrow(
      expect.objectContaining({ code: 'runtime/cannot-read' }),
    )
  })
})

describe('revocation lists', () => {
  test('name the revoked certificates, and only the issuer can make one', async () => {
    const make = async () => {
      const csr = await createCsr({ address: ADDRESS, privateKey: generateKeyPair().privateKey })
      return issueDeviceCertificate(ca.issuing, csr.pem, { nowMs: NOW })
    }
    const [good, bad] = [await make(), await make()]
    const revoked = [{ serial: bad.serial, atMs: NOW, reason: 'keyCompromise' as const }]
    const crl = await createCrl(ca.issuing, { revoked, number: 300, nowMs: NOW })
    expect(await isRevoked(crl, bad.certificate, ca.issuing.certificate)).toBe(true)
    expect(await isRevoked(crl, good.certificate, ca.issuing.certificate)).toBe(false)
    const forged = await createCrl({ ...ca.issuing, key: ca.root.key }, { revoked, number: 1, nowMs: NOW })
    await expect(isRevoked(forged, bad.certificate, ca.issuing.certificate)).rejects.toMatchObject({
      code: 'pki/bad-crl',
    })
    await expect(isRevoked('x', bad.certificate, ca.issuing.certificate)).rejects.toMatchObject({ code: 'pki/bad-crl' })
    const empty = await createCrl(ca.issuing, { revoked: [], number: 1, nowMs: NOW })
    expect(await isRevoked(empty, bad.certificate, ca.issuing.certificate)).toBe(false)
    if (openssl !== undefined) {
      const text = execFileSync('openssl', ['crl', '-noout', '-text'], { input: crl }).toString()
      expect(text).toMatch(/X509v3 CRL Number:\s*300/)
      expect(text).toContain(bad.serial.toUpperCase())
      expect(text).toContain('Key Compromise')
    }
  })
})

describe('a certificate that tries to name a device by a trick', () => {
  test.skipIf(openssl === undefined)('is refused', () => {
    const make = (san: string) =>
      execFileSync(
        'openssl',
        [
          'req',
          '-x509',
          '-newkey',
          'ec',
          '-pkeyopt',
          'ec_paramgen_curve:prime256v1',
          '-nodes',
          '-subj',
          '/CN=x',
        ].concat(['-keyout', join(folder, 'k'), '-addext', `subjectAltName=${san}`]),
        { stdio: 'pipe' },
      )
    const uri = `URI:urn:iotchain:device:${ADDRESS}`
    expect(deviceAddressOf(make(uri))).toBe(ADDRESS)
    expect(deviceAddressOf(make('DNS:plain.example'))).toBeUndefined()
    expect(() => deviceAddressOf(make(`${uri},URI:urn:iotchain:device:0x${'11'.repeat(20)}`))).toThrow(/more than one/)
    const config = join(folder, 'san.cnf')
    writeFileSync(
      config,
      `[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=x\n[v3]\nsubjectAltName=@names\n[names]\nDNS.1="a, ${uri}, b"\n`,
    )
    const trick = execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-keyout',
        join(folder, 'k'),
      ].concat(['-config', config]),
      { stdio: 'pipe' },
    )
    expect(() => deviceAddressOf(trick)).toThrow(expect.objectContaining({ code: 'pki/bad-certificate' }))
  })
})
