/** What a certificate says, read with Node alone: no X.509 library, so that a running device can call it. */
import { createHash, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto'
import { IotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'

export type CertificateLike = X509Certificate | string | Uint8Array

const DEVICE_URI = /^URI:urn:iotchain:device:(0x[0-9a-f]{40})$/
const LOOK = 'openssl x509 -in FILE -noout -text shows what a file holds'
const PEM_BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** The SAN URI that names a device: `urn:iotchain:device:0x<40 lower-case hex>`. */
export function deviceUri(address: Address): string {
  return `urn:iotchain:device:${address}`
}

/** @throws `pki/bad-certificate` */
export function parseCertificate(certificate: CertificateLike): X509Certificate {
  if (certificate instanceof X509Certificate) return certificate
  try {
    return new X509Certificate(certificate)
  } catch (cause) {
    throw new IotchainError('pki/bad-certificate', 'that is not an X.509 certificate', { cause, hint: LOOK })
  }
}

/** The certificates of a PEM bundle, in order. @throws `pki/bad-certificate` if there is none or one is broken */
export function parseCertificates(pem: string | Uint8Array): X509Certificate[] {
  const blocks = Buffer.from(pem as Uint8Array)
    .toString('latin1')
    .match(PEM_BLOCK)
  if (blocks === null) throw new IotchainError('pki/bad-certificate', 'there is no certificate in PEM', { hint: LOOK })
  return blocks.map((block) => parseCertificate(block))
}

/**
 * SHA-256 of the SubjectPublicKeyInfo, 32 octets: how the registry names a key server (RFC 7469's pin, raw).
 * A renewed certificate of the same key has the same value.
 */
export function spkiSha256(of: CertificateLike | KeyObject): Buffer {
  const given = isKeyObject(of) ? of : parseCertificate(of).publicKey
  const key = given.type === 'private' ? createPublicKey(given) : given
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest()
}

/** SHA-256 of the whole certificate (DER), 32 octets. */
export function certificateSha256(certificate: CertificateLike): Buffer {
  return createHash('sha256').update(parseCertificate(certificate).raw).digest()
}

/**
 * The Ethereum address in the certificate's only device URI; undefined where there is none. Says nothing about who
 * issued it: look at the association's `authorized` first.
 * @throws `pki/bad-certificate` for two device URIs, or alternative names that Node had to quote
 */
export function deviceAddressOf(certificate: CertificateLike): Address | undefined {
  const names = parseCertificate(certificate).subjectAltName ?? ''
  // Node quotes a name that holds a comma or a quote; inside one, an item below could be forged.
  if (names.includes('"')) {
    throw new IotchainError('pki/bad-certificate', 'the alternative names of the certificate are not plain text')
  }
  const found = names.split(', ').flatMap((name) => DEVICE_URI.exec(name)?.[1] ?? [])
  if (found.length > 1) throw new IotchainError('pki/bad-certificate', 'the certificate names more than one device')
  return found[0] as Address | undefined
}

/** Extended key usages, dotted OIDs; empty where the certificate restricts nothing. */
export function extendedKeyUsages(certificate: CertificateLike): readonly string[] {
  return parseCertificate(certificate).keyUsage ?? []
}

export const EKU_SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
export const EKU_CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

export interface CertificateLife {
  readonly notBeforeSeconds: number
  readonly notAfterSeconds: number
  /** When two thirds of the life are over: the time to renew. */
  readonly renewAtSeconds: number
}

/** Unix seconds. */
export function certificateLife(certificate: CertificateLike): CertificateLife {
  const parsed = parseCertificate(certificate)
  const notBeforeSeconds = Math.floor(Date.parse(parsed.validFrom) / 1000)
  const notAfterSeconds = Math.floor(Date.parse(parsed.validTo) / 1000)
  return {
    notBeforeSeconds,
    notAfterSeconds,
    renewAtSeconds: notBeforeSeconds + Math.floor(((notAfterSeconds - notBeforeSeconds) * 2) / 3),
  }
}

export function inForce(certificate: CertificateLike, nowSeconds: number): boolean {
  const { notBeforeSeconds, notAfterSeconds } = certificateLife(certificate)
  return nowSeconds >= notBeforeSeconds && nowSeconds <= notAfterSeconds
}

function isKeyObject(value: CertificateLike | KeyObject): value is KeyObject {
  return typeof value === 'object' && 'asymmetricKeyType' in value
}
