/** P-256 private keys and their files: PKCS#8 PEM, mode 0600, encrypted where a passphrase is given. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFileOrExplain, writeFileAtomic } from '../atomic-file.ts'
import { inFile } from './in-file.ts'
import { privateKeyOf } from './x509.ts'

export interface KeyPair {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

/** A fresh P-256 key pair: what every certificate here is for. */
export function generateKeyPair(): KeyPair {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

/** PKCS#8 PEM; with a passphrase under AES-256-CBC (PBES2). */
export function privateKeyPem(key: KeyObject, passphrase?: string): string {
  return passphrase === undefined
    ? key.export({ type: 'pkcs8', format: 'pem' }).toString()
    : key.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }).toString()
}

export interface SaveKeyOptions {
  readonly passphrase?: string | undefined
  /** Replace a key that is there. Default false: a key file is never overwritten by accident. */
  readonly overwrite?: boolean | undefined
}

/**
 * Writes the key, readable by its owner only, durable when it returns.
 * @throws `runtime/exists`, `runtime/cannot-write`
 */
export function savePrivateKey(path: string, key: KeyObject, options: SaveKeyOptions = {}): void {
  writeFileAtomic(path, privateKeyPem(key, options.passphrase), { mode: 0o600, exclusive: options.overwrite !== true })
}

/** @throws `runtime/cannot-read`, `pki/wrong-passphrase`, `pki/bad-key` */
export function loadPrivateKey(path: string, passphrase?: string): KeyPair {
  const pem = readFileOrExplain(path, 'private key')
  const privateKey = inFile(path, () => privateKeyOf(pem, passphrase))
  return { privateKey, publicKey: createPublicKey(privateKey) }
}
