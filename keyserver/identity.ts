/** Who the key server is: its certificate and key, the broadcast key, and what others pin of them. */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { toHex } from '../protocol/bytes.ts'
import { coseKeyEd25519 } from '../protocol/cose/key.ts'
import type { CryptoSuite, SigningKey } from '../protocol/crypto/suite.ts'
import { IotchainError } from '../protocol/errors.ts'
import { readFileOrExplain, writeFileAtomic } from '../runtime/atomic-file.ts'
import {
  EKU_SERVER_AUTH,
  extendedKeyUsages,
  inForce,
  parseCertificates,
  spkiSha256,
} from '../runtime/pki/certificate.ts'
import { inFile } from '../runtime/pki/in-file.ts'
import { loadPrivateKey } from '../runtime/pki/keys.ts'

export interface ServerIdentity {
  /** PEM, leaf first */
  readonly certificate: string
  /** PEM, unencrypted, for the DTLS layer */
  readonly key: string
  /** SHA-256 of the SPKI, 32 octets: `keyServer` in the registry */
  readonly spki: Uint8Array
  /** DNS names and IP addresses in the certificate */
  readonly names: readonly string[]
  readonly signingKey: SigningKey
  /** encoded COSE_Key of the broadcast key */
  readonly kdcCred: Uint8Array
  /** iss of credentials */
  readonly issuer: string
}

export interface IdentityFiles {
  readonly certificate: string
  readonly key: string
  readonly passphrase?: string | undefined
  readonly broadcast: string
}

/**
 * @throws `runtime/cannot-read`, `pki/…`, `keyserver/bad-identity` when the files do not belong together
 */
export function loadIdentity(suite: CryptoSuite, files: IdentityFiles, nowSeconds: number): ServerIdentity {
  const pem = readFileOrExplain(files.certificate, 'certificate').toString('latin1')
  const [certificate] = inFile(files.certificate, () => parseCertificates(pem))
  const { privateKey } = loadPrivateKey(files.key, files.passphrase)
  if (certificate === undefined || !certificate.checkPrivateKey(privateKey)) {
    throw new IotchainError('keyserver/bad-identity', `the key in ${files.key} is not that of the certificate`, {
      hint: 'name the key that the certificate request was made with',
    })
  }
  if (!extendedKeyUsages(certificate).includes(EKU_SERVER_AUTH)) {
    throw new IotchainError('keyserver/bad-identity', `${files.certificate} is no certificate of a server`, {
      hint: 'it needs the extended key usage serverAuth: have it issued by `iotchain owner ca`',
    })
  }
  if (!inForce(certificate, nowSeconds)) {
    throw new IotchainError('keyserver/bad-identity', `the certificate in ${files.certificate} is not valid now`, {
      hint: 'renew it with the same key, and check the clock',
    })
  }
  const signingKey = loadBroadcastKey(suite, files.broadcast)
  const spki = Uint8Array.from(spkiSha256(certificate))
  return {
    certificate: pem,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    spki,
    names: namesOf(certificate.subjectAltName ?? ''),
    signingKey,
    kdcCred: coseKeyEd25519(signingKey.publicKey),
    issuer: `urn:iotchain:keyserver:${toHex(spki.subarray(0, 8))}`,
  }
}

const PKCS8_ED25519 = Buffer.from('302e020100300506032b657004220420', 'hex')

/** Writes a fresh broadcast key, PKCS#8 PEM, mode 0600. @throws `runtime/exists` */
export function createBroadcastKey(suite: CryptoSuite, path: string): void {
  const der = Buffer.concat([PKCS8_ED25519, suite.ed25519.generate()])
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  writeFileAtomic(path, key.export({ type: 'pkcs8', format: 'pem' }).toString(), { mode: 0o600, exclusive: true })
}

/** The 32-octet seed of an Ed25519 key in PEM. */
function loadBroadcastSeed(path: string): Uint8Array {
  let key: KeyObject
  try {
    key = createPrivateKey(readFileOrExplain(path, 'broadcast key'))
  } catch (cause) {
    if (cause instanceof IotchainError) throw cause
    throw new IotchainError('keyserver/bad-identity', `${path} holds no private key in PEM`, { cause })
  }
  if (key.asymmetricKeyType !== 'ed25519') {
    throw new IotchainError('keyserver/bad-identity', `${path} holds no Ed25519 key`, {
      hint: 'make one with `iotchain-keyserver init`',
    })
  }
  return Uint8Array.from(key.export({ type: 'pkcs8', format: 'der' }).subarray(-32))
}

/** The key that signs broadcasts and credentials. @throws `runtime/cannot-read`, `keyserver/bad-identity` */
export function loadBroadcastKey(suite: CryptoSuite, path: string): SigningKey {
  return suite.ed25519.signing(loadBroadcastSeed(path))
}

/** `DNS:a, IP Address:::1` → names that a URI can carry. */
export function namesOf(subjectAltName: string): string[] {
  return subjectAltName.split(', ').flatMap((item) => {
    if (item.startsWith('DNS:')) return [item.slice(4)]
    if (!item.startsWith('IP Address:')) return []
    const ip = item.slice('IP Address:'.length)
    return [ip.includes(':') ? `[${ip}]` : ip]
  })
}
