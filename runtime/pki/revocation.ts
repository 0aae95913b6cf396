/** Certificate revocation lists (RFC 5280 §5): which device certificates count no more before their time is over. */
import { createPublicKey } from 'node:crypto'
import { IotchainError } from '../../protocol/errors.ts'
import type { Authority } from './authority.ts'
import { type CertificateLike, parseCertificate } from './certificate.ts'
import { ECDSA_SHA256, loadX509, webCryptoPair, webCryptoPublic } from './x509.ts'

export interface Revocation {
  /** Serial number of the certificate, hex. */
  readonly serial: string
  /** Unix ms. */
  readonly atMs: number
  readonly reason?: 'unspecified' | 'keyCompromise' | 'superseded' | 'cessationOfOperation' | 'privilegeWithdrawn'
}

/**
 * A signed list, PEM.
 * @param options `number`: larger in each list than in the one before; `days` until the next (default 7; a peer that
 *   holds an outdated list refuses every certificate of this issuer)
 */
export async function createCrl(
  authority: Authority,
  options: { revoked: readonly Revocation[]; number: number; days?: number; nowMs?: number },
): Promise<string> {
  const x509 = await loadX509()
  const now = options.nowMs ?? Date.now()
  const crl = await x509.X509CrlGenerator.create({
    issuer: new x509.X509Certificate(authority.certificate).subjectName,
    thisUpdate: new Date(now - 3_600_000),
    nextUpdate: new Date(now + (options.days ?? 7) * 86_400_000),
    signingAlgorithm: ECDSA_SHA256,
    signingKey: (await webCryptoPair(authority.key)).privateKey,
    extensions: [
      await x509.AuthorityKeyIdentifierExtension.create(await webCryptoPublic(createPublicKey(authority.key))),
      new x509.Extension('2.5.29.20', false, derInteger(options.number)),
    ],
    entries: options.revoked.map(({ serial, atMs, reason }) => ({
      serialNumber: serial,
      revocationDate: new Date(atMs),
      ...(reason === undefined || reason === 'unspecified' ? {} : { reason: x509.X509CrlReason[reason] }),
    })),
  })
  // The label of RFC 7468 §6; the library writes one that OpenSSL does not know.
  const body = Buffer.from(crl.rawData)
    .toString('base64')
    .replace(/(.{64})(?=.)/g, '$1\n')
  return `-----BEGIN X509 CRL-----\n${body}\n-----END X509 CRL-----\n`
}

/**
 * Whether the list revokes the certificate. The list's signature is checked against `issuer`.
 * @throws `pki/bad-crl` for what is no list, or not this issuer's
 */
export async function isRevoked(
  crl: string | Uint8Array,
  certificate: CertificateLike,
  issuer: CertificateLike,
): Promise<boolean> {
  const x509 = await loadX509()
  let list: InstanceType<typeof x509.X509Crl>
  let genuine = false
  try {
    list = new x509.X509Crl(typeof crl === 'string' ? crl : Uint8Array.from(crl))
    genuine = await list.verify({ publicKey: await webCryptoPublic(parseCertificate(issuer).publicKey) })
  } catch (cause) {
    throw new IotchainError('pki/bad-crl', 'that is not a certificate revocation list', { cause })
  }
  if (!genuine) throw new IotchainError('pki/bad-crl', 'the revocation list is not signed by this issuer')
  return list.findRevoked(parseCertificate(certificate).serialNumber) !== null
}

/** DER of a non-negative integer. */
function derInteger(value: number): Uint8Array<ArrayBuffer> {
  let hex = value.toString(16)
  if (hex.length % 2 === 1) hex = `0${hex}`
  const digits = Buffer.from(hex, 'hex')
  const body = (digits[0] as number) > 0x7f ? Buffer.concat([Buffer.of(0), digits]) : digits
  return Uint8Array.from([2, body.length, ...body])
}
