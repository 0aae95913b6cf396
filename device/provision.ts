/** `init` and `registration`: the three keys of a device, the request for its certificate, and its signed registration. */
import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { suite } from '#crypto'
import { fromHex, toHex } from '../protocol/bytes.ts'
import { thumbprintOf } from '../protocol/cose/key.ts'
import { addressOf, generatePrivateKey, signDigest } from '../protocol/crypto/secp256k1.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes, parseAddress } from '../protocol/messages/address.ts'
import { type RegistrationTicket, registrationDigest, registrationOf } from '../protocol/messages/registration.ts'
import { readFileIfExists, readFileOrExplain, writeFileAtomic } from '../runtime/atomic-file.ts'
import { makeFolder } from '../runtime/folder.ts'
import { generateKeyPair, privateKeyPem } from '../runtime/pki/keys.ts'
import { createCsr } from '../runtime/pki/request.ts'
import { readSigningSeed } from './identity.ts'

/** File names that `init` writes and the default configuration expects. */
export const IDENTITY_FILES = {
  accountKey: 'account.key',
  key: 'device.key',
  signingKey: 'signing.key',
  request: 'device.csr',
} as const

export interface NewIdentity {
  readonly address: Address
  readonly directory: string
  /** PEM of the certificate request, which also lies in `device.csr`. */
  readonly request: string
  /** RFC 9679 thumbprint of the object-signing key, 32 octets. */
  readonly signingKey: Uint8Array
}

/**
 * Makes the keys of a new device, readable by this user alone.
 * @throws `runtime/exists` when any of the files is there: keys are never overwritten
 */
export async function initIdentity(directory: string): Promise<NewIdentity> {
  makeFolder(directory)
  for (const name of Object.values(IDENTITY_FILES)) {
    if (readFileIfExists(join(directory, name)) !== undefined) {
      throw new IotchainError('runtime/exists', `${join(directory, name)} is there already`, {
        hint: 'this folder holds a device’s keys; choose another one for a new device',
      })
    }
  }
  const account = generatePrivateKey()
  const address = addressOf(account)
  const { privateKey } = generateKeyPair()
  const signing = generateKeyPairSync('ed25519')
  const { pem } = await createCsr({ address, privateKey })
  const write = (name: string, content: string): void =>
    writeFileAtomic(join(directory, name), content, { mode: 0o600, exclusive: true })
  write(IDENTITY_FILES.accountKey, `${toHex(account)}\n`)
  write(IDENTITY_FILES.key, privateKeyPem(privateKey))
  write(IDENTITY_FILES.signingKey, signing.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
  write(IDENTITY_FILES.request, pem)
  const { x } = signing.publicKey.export({ format: 'jwk' })
  return { address, directory, request: pem, signingKey: thumbprintOf(suite, Buffer.from(x as string, 'base64url')) }
}

/** The secp256k1 key in a file of 64 hex digits. @throws `device/bad-identity`, `runtime/cannot-read` */
export function readAccountKey(path: string): Uint8Array {
  const text = readFileOrExplain(path, 'account key').toString().trim()
  if (!/^(0x)?[0-9a-f]{64}$/i.test(text)) {
    throw new IotchainError('device/bad-identity', `${path} is no account key`, { hint: 'it has 64 hex digits' })
  }
  return fromHex(text)
}

export interface RegistrationRequest {
  /** Paths of the key files. */
  readonly accountKey: string
  readonly signingKey: string
  readonly chainId: number
  readonly registry: string
  readonly owner: string
  /** SHA-256 of the key server's SPKI, 32 octets. */
  readonly keyServer: Uint8Array
  readonly uri: string
  readonly nonce: number
  /** Unix seconds. */
  readonly deadline: number
}

/** What the owner submits to the registry: signed by the device, for this owner alone. */
export function createRegistration(request: RegistrationRequest): RegistrationTicket {
  const account = readAccountKey(request.accountKey)
  const publicKey = suite.ed25519.signing(readSigningSeed(request.signingKey)).publicKey
  const unsigned: RegistrationTicket = {
    device: addressOf(account),
    owner: parseAddress(request.owner),
    signingKey: thumbprintOf(suite, publicKey),
    keyServer: request.keyServer,
    uri: request.uri,
    nonce: request.nonce,
    deadline: request.deadline,
    deviceSig: new Uint8Array(65),
  }
  const domain = { chainId: request.chainId, registry: addressBytes(request.registry) }
  return { ...unsigned, deviceSig: signDigest(account, registrationDigest(domain, registrationOf(unsigned))) }
}
