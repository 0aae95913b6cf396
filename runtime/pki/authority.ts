/**
 * The certification authority: an offline root, an issuing CA for devices below it (pathlen 0, clientAuth only, so
 * that no device certificate and no certificate of a robbed issuing CA can pose as a key server), and key-server
 * certificates (serverAuth) from the root itself.
 */
import { createPublicKey, type KeyObject, randomBytes, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { deviceUri, EKU_CLIENT_AUTH, EKU_SERVER_AUTH, parseCertificate } from './certificate.ts'
import { generateKeyPair } from './keys.ts'
import { type CsrLike, verifyCsr } from './request.ts'
import { ECDSA_SHA256, loadX509, webCryptoPair, webCryptoPublic } from './x509.ts'

export interface Authority {
  /** PEM. */
  readonly certificate: string
  readonly key: KeyObject
  /** PEM of what a peer that trusts only the root needs besides the leaf: this authority's certificate, or nothing. */
  readonly chain: string
}

export interface Issued {
  /** PEM of the leaf. */
  readonly certificate: string
  /** PEM, leaf first, then the issuing certificates below the root: what DTLS sends. */
  readonly chain: string
  /** Hex. */
  readonly serial: string
}

export interface LifeOptions {
  /** Life in days from `now`; never longer than the issuer's own. */
  readonly days?: number | undefined
  /** Unix ms; default the wall clock. */
  readonly nowMs?: number | undefined
}

const DAY_MS = 86_400_000
/**
 * Certificates begin an hour in the past, because clocks of peers that just booted are behind; short-lived ones a tenth of
 * their life, so that they are not due for renewal at once.
 */
const BACKDATE_MS = 3_600_000

/** An offline root (life 20 years, pathlen 1) and the issuing CA for devices (10 years, pathlen 0, clientAuth). */
export async function createCa(
  options: { name?: string | undefined; nowMs?: number | undefined } = {},
): Promise<{ root: Authority; issuing: Authority }> {
  const name = options.name ?? 'IoTChain'
  const root = await createRoot({ name: `${name} Root CA`, nowMs: options.nowMs })
  const issuing = await createIssuing(root, { name: `${name} Device CA`, nowMs: options.nowMs })
  return { root, issuing }
}

export async function createRoot(options: LifeOptions & { name: string }): Promise<Authority> {
  const x509 = await loadX509()
  const { privateKey } = generateKeyPair()
  const keys = await webCryptoPair(privateKey)
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name: [{ CN: [options.name] }],
    ...validity(options, 7305),
    keys,
    signingAlgorithm: ECDSA_SHA256,
    extensions: [
      new x509.BasicConstraintsExtension(true, 1, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificate: certificate.toString('pem'), key: privateKey, chain: '' }
}

export async function createIssuing(root: Authority, options: LifeOptions & { name: string }): Promise<Authority> {
  const { privateKey, publicKey } = generateKeyPair()
  const { certificate } = await sign(root, {
    subject: options.name,
    publicKey,
    ...validity(options, 3653, root),
    ca: true,
    usages: [EKU_CLIENT_AUTH],
  })
  return { certificate, key: privateKey, chain: certificate + root.chain }
}

/**
 * Signs a device's request after `verifyCsr`. The certificate holds the request's key and address, nothing else of it.
 * @param options `days` default 90; `address`: the only one to accept
 * @throws `pki/bad-csr`, `pki/wrong-key`, `pki/wrong-device`
 */
export async function issueDeviceCertificate(
  authority: Authority,
  csr: CsrLike,
  options: LifeOptions & { address?: Address | undefined } = {},
): Promise<Issued & { address: Address }> {
  const { address, publicKey } = await verifyCsr(csr)
  if (options.address !== undefined && options.address !== address) {
    throw new IotchainError('pki/wrong-device', `the request is for ${address}, not for ${options.address}`)
  }
  const issued = await sign(authority, {
    subject: address,
    publicKey,
    ...validity(options, 90, authority),
    ca: false,
    usages: [EKU_CLIENT_AUTH],
    names: [{ type: 'url', value: deviceUri(address) }],
  })
  return { ...issued, address }
}

/**
 * A key server's certificate. Renew it with the same key: clients pin its SPKI through the registry.
 * @param options `names`: DNS names and IP addresses under which it is reached; `days` default 398
 * @throws `pki/wrong-key`, `pki/bad-name`
 */
export async function issueServerCertificate(
  authority: Authority,
  options: LifeOptions & { publicKey: KeyObject; names: readonly string[] },
): Promise<Issued> {
  const [first] = options.names
  if (first === undefined) {
    throw new IotchainError('pki/bad-name', 'a key server needs at least one name or IP address', {
      hint: 'name the host under which clients and devices reach it',
    })
  }
  return sign(authority, {
    subject: first,
    publicKey: options.publicKey,
    ...validity(options, 398, authority),
    ca: false,
    usages: [EKU_SERVER_AUTH],
    names: options.names.map((value) => {
      if (isIP(value) !== 0) return { type: 'ip' as const, value }
      if (!/^(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$/.test(value)) {
        throw new IotchainError('pki/bad-name', `"${value}" is neither a DNS name nor an IP address`, {
          hint: 'write the host name alone, without scheme or port',
        })
      }
      return { type: 'dns' as const, value }
    }),
  })
}

/** An authority from its stored parts. @throws `pki/wrong-key` if key and certificate do not belong together */
export function openAuthority(parts: { certificate: string; key: KeyObject; root?: boolean }): Authority {
  const parsed = parseCertificate(parts.certificate)
  if (!parsed.checkPrivateKey(parts.key)) {
    throw new IotchainError('pki/wrong-key', 'the private key does not belong to the CA certificate', {
      hint: 'give the key file that was made with it',
    })
  }
  const selfSigned = parsed.issuer === parsed.subject
  return { certificate: parts.certificate, key: parts.key, chain: selfSigned ? '' : parts.certificate }
}

interface Content {
  readonly subject: string
  readonly publicKey: KeyObject
  readonly notBefore: Date
  readonly notAfter: Date
  readonly ca: boolean
  readonly usages: readonly string[]
  readonly names?: readonly { type: 'url' | 'dns' | 'ip'; value: string }[]
}

async function sign(authority: Authority, content: Content): Promise<Issued> {
  const x509 = await loadX509()
  const issuer = new x509.X509Certificate(authority.certificate)
  const publicKey = await webCryptoPublic(content.publicKey)
  const flags = x509.KeyUsageFlags
  const serial = newSerial()
  const made = await x509.X509CertificateGenerator.create({
    serialNumber: serial,
    subject: [{ CN: [content.subject] }],
    issuer: issuer.subjectName,
    notBefore: content.notBefore,
    notAfter: content.notAfter,
    publicKey,
    signingKey: (await webCryptoPair(authority.key)).privateKey,
    signingAlgorithm: ECDSA_SHA256,
    extensions: [
      content.ca ? new x509.BasicConstraintsExtension(true, 0, true) : new x509.BasicConstraintsExtension(false),
      new x509.KeyUsagesExtension(content.ca ? flags.keyCertSign | flags.cRLSign : flags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([...content.usages]),
      ...(content.names === undefined ? [] : [new x509.SubjectAlternativeNameExtension([...content.names])]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(await webCryptoPublic(createPublicKey(authority.key))),
    ],
  })
  const certificate = `${made.toString('pem')}\n`
  return { certificate, chain: certificate + authority.chain, serial }
}

function validity(options: LifeOptions, defaultDays: number, issuer?: Authority): { notBefore: Date; notAfter: Date } {
  const now = options.nowMs ?? Date.now()
  const end = now + (options.days ?? defaultDays) * DAY_MS
  const last = issuer === undefined ? end : Date.parse(new X509Certificate(issuer.certificate).validTo)
  const notAfter = Math.min(end, last)
  const backdate = Math.min(BACKDATE_MS, Math.max(0, notAfter - now) / 10)
  return { notBefore: new Date(now - backdate), notAfter: new Date(notAfter) }
}

/** 16 random octets, positive (RFC 5280 §4.1.2.2). */
function newSerial(): string {
  const octets = randomBytes(16)
  octets[0] = ((octets[0] as number) & 0x7f) | 0x40
  return octets.toString('hex')
}
