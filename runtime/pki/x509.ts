/**
 * Loads the X.509 library on first use: 20 MB and 100 ms that a running device never needs (it renews by sending its
 * stored request again). Its decorators need the metadata polyfill before anything else.
 */
import { createPrivateKey, createPublicKey, type KeyObject, type webcrypto } from 'node:crypto'
import { IotchainError } from '../../protocol/errors.ts'

type X509Library = typeof import('@peculiar/x509')
type WebKey = webcrypto.CryptoKey

let library: Promise<X509Library> | undefined

export function loadX509(): Promise<X509Library> {
  library ??= (async () => {
    await import('reflect-metadata')
    const loaded = await import('@peculiar/x509')
    // In a bundle the CommonJS build has its exports under default alone.
    const x509 = loaded.cryptoProvider === undefined ? (loaded as unknown as { default: X509Library }).default : loaded
    x509.cryptoProvider.set(globalThis.crypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0])
    return x509
  })()
  return library
}

export const P256 = { name: 'ECDSA', namedCurve: 'P-256' }
export const ECDSA_SHA256 = { name: 'ECDSA', hash: 'SHA-256' }

/** The same P-256 key pair as WebCrypto wants it. @throws `pki/wrong-key` for another kind of key */
export async function webCryptoPair(privateKey: KeyObject): Promise<webcrypto.CryptoKeyPair> {
  requireP256(privateKey, 'the key')
  const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' })
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
  return {
    privateKey: await globalThis.crypto.subtle.importKey('pkcs8', pkcs8, P256, true, ['sign']),
    publicKey: await globalThis.crypto.subtle.importKey('spki', spki, P256, true, ['verify']),
  }
}

export async function webCryptoPublic(publicKey: KeyObject): Promise<WebKey> {
  requireP256(publicKey, 'the public key')
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  return globalThis.crypto.subtle.importKey('spki', spki, P256, true, ['verify'])
}

/** @throws `pki/wrong-key` */
export function requireP256(key: KeyObject, what: string): void {
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new IotchainError('pki/wrong-key', `${what} is not an elliptic-curve key on P-256`, {
      hint: 'make one with: openssl ecparam -name prime256v1 -genkey -noout',
    })
  }
}

/** Private key of PEM text. @throws `pki/wrong-passphrase`, `pki/bad-key` */
export function privateKeyOf(pem: string | Uint8Array, passphrase?: string): KeyObject {
  try {
    return createPrivateKey({
      key: Buffer.from(pem as Uint8Array),
      format: 'pem',
      ...(passphrase === undefined ? {} : { passphrase }),
    })
  } catch (cause) {
    if (/-----BEGIN ENCRYPTED|Proc-Type: 4,ENCRYPTED/.test(Buffer.from(pem as Uint8Array).toString('latin1'))) {
      throw new IotchainError(
        'pki/wrong-passphrase',
        passphrase === undefined
          ? 'the private key is encrypted and no passphrase was given'
          : 'the passphrase does not open the private key',
        { cause, hint: 'give the passphrase with which the key was written' },
      )
    }
    throw new IotchainError('pki/bad-key', 'that is not a private key in PEM', {
      cause,
      hint: 'openssl pkey -in FILE -noout -text shows what a file holds',
    })
  }
}
