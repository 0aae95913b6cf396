/** Who the device is: certificate and key for DTLS, the key that signs objects, and the address that both belong to. */
import { createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto'
import { suite } from '#crypto'
import { equalBytes } from '../protocol/bytes.ts'
import { coseKeyEd25519 } from '../protocol/cose/key.ts'
import type { SigningKey } from '../protocol/crypto/suite.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes, parseAddress } from '../protocol/messages/address.ts'
import { readFileIfExists, readFileOrExplain } from '../runtime/atomic-file.ts'
import { certificateLife, deviceAddressOf, parseCertificates, spkiSha256 } from '../runtime/pki/certificate.ts'
import { inFile } from '../runtime/pki/in-file.ts'
import type { DeviceSettings } from './settings.ts'

export interface DeviceIdentity {
  readonly address: Address
  /** The 20 octets of the address. */
  readonly device: Uint8Array
  /** PEM: the leaf, then its issuers. */
  readonly certificate: string
  readonly leaf: X509Certificate
  /** PEM. */
  readonly key: string
  /** PEM of the root for the key server's certificate. */
  readonly ca: string
  readonly signingKey: SigningKey
  /** Encoded COSE_Key of the signing key. */
  readonly coseKey: Uint8Array
}

/**
 * Loads and cross-checks the identity.
 * @param renewed where a renewed certificate lies; it counts when it is of the same key and ends later
 * @returns the names of the files that are not there, when the device is not enrolled yet
 * @throws `device/bad-identity` for files that do not belong together, `runtime/cannot-read`
 */
export function loadIdentity(
  settings: DeviceSettings['identity'],
  resolve: (path: string) => string,
  renewed?: string,
): DeviceIdentity | { readonly missing: readonly string[] } {
  const needed = [settings.certificate, settings.key, settings.ca, settings.signingKey]
  const missing = needed.filter((file) => readFileIfExists(resolve(file)) === undefined)
  if (missing.length > 0) return { missing }
  const certificate = readFileOrExplain(resolve(settings.certificate), 'certificate').toString()
  const key = readFileOrExplain(resolve(settings.key), 'private key').toString()
  const ca = readFileOrExplain(resolve(settings.ca), 'root certificate').toString()
  const leaf = inFile(settings.certificate, () => parseCertificates(certificate)[0] as X509Certificate)
  inFile(settings.ca, () => parseCertificates(ca))
  const named = deviceAddressOf(leaf)
  if (named === undefined) {
    throw bad(`${settings.certificate} names no device`, 'it must carry the URI urn:iotchain:device:0x…')
  }
  if (settings.address !== undefined && parseAddress(settings.address) !== named) {
    throw bad(
      `${settings.certificate} is for ${named}, the configuration says ${settings.address}`,
      'correct identity.address or take the right certificate',
    )
  }
  if (!equalBytes(spkiSha256(privateKey(key, settings.key)), spkiSha256(leaf))) {
    throw bad(`${settings.key} is not the key of ${settings.certificate}`, 'take the key that made the request (CSR)')
  }
  const latest = withRenewed({ certificate, leaf }, renewed)
  const signingKey = suite.ed25519.signing(readSigningSeed(resolve(settings.signingKey)))
  const coseKey = coseKeyEd25519(signingKey.publicKey)
  return { address: named, device: addressBytes(named), ...latest, key, ca, signingKey, coseKey }
}

/** The same device with another certificate of its key. */
export function withCertificate(identity: DeviceIdentity, certificate: string): DeviceIdentity {
  return { ...identity, certificate, leaf: parseCertificates(certificate)[0] as X509Certificate }
}

function withRenewed(
  configured: { certificate: string; leaf: X509Certificate },
  renewed: string | undefined,
): { certificate: string; leaf: X509Certificate } {
  const certificate = renewed === undefined ? undefined : readFileIfExists(renewed)?.toString()
  if (certificate === undefined) return configured
  const leaf = inFile(renewed as string, () => parseCertificates(certificate)[0] as X509Certificate)
  const later = certificateLife(leaf).notAfterSeconds > certificateLife(configured.leaf).notAfterSeconds
  return later && equalBytes(spkiSha256(leaf), spkiSha256(configured.leaf)) ? { certificate, leaf } : configured
}

/** The 32-octet seed in a PKCS#8 PEM file of an Ed25519 key. @throws `device/bad-identity`, `runtime/cannot-read` */
export function readSigningSeed(path: string): Uint8Array {
  const key = privateKey(readFileOrExplain(path, 'signing key').toString(), path)
  const { d } = key.asymmetricKeyType === 'ed25519' ? key.export({ format: 'jwk' }) : { d: undefined }
  if (d === undefined) throw bad(`${path} is no Ed25519 key`, 'iotchain-device init makes one')
  return new Uint8Array(Buffer.from(d, 'base64url'))
}

/** Whole days until the certificate ends; negative when it has. */
export function daysLeft(identity: DeviceIdentity, nowSeconds: number): number {
  return Math.floor((certificateLife(identity.leaf).notAfterSeconds - nowSeconds) / 86_400)
}

function privateKey(pem: string, name: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw new IotchainError('device/bad-identity', `${name} is no private key without a passphrase`, {
      cause,
      hint: 'take the one that iotchain-device init made',
    })
  }
}

function bad(message: string, hint: string): IotchainError {
  return new IotchainError('device/bad-identity', message, { hint })
}
