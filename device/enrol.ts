/**
 * Enrolment by a code (protocol.md "Enrolment"): keys are made here, the request travels over an association that
 * both ends prove by the code, the certificate comes back. Can be repeated with the same code until it has worked.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { suite } from '#crypto'
import { coseKeyEd25519, thumbprintOf } from '../protocol/cose/key.ts'
import { addressOf, signDigest } from '../protocol/crypto/secp256k1.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes, addressHex } from '../protocol/messages/address.ts'
import { decodeEnrolmentReply, encodeEnrolmentBody, enrolmentDigest } from '../protocol/messages/enrolment.ts'
import { decodeEnrolmentCode, enrolmentIdentity, enrolmentPsk } from '../protocol/messages/enrolment-code.ts'
import { readFileIfExists, readFileOrExplain, writeFileAtomic } from '../runtime/atomic-file.ts'
import { deviceAddressOf, parseCertificate, spkiSha256 } from '../runtime/pki/certificate.ts'
import { loadPrivateKey } from '../runtime/pki/keys.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { parseCoapUri } from '../transport/coap/uri.ts'
import { dial } from '../transport/dial.ts'
import { readSigningSeed } from './identity.ts'
import { chainFiles, derOfRequest } from './pem.ts'
import { IDENTITY_FILES, initIdentity, readAccountKey } from './provision.ts'
import { refusal } from './refusal.ts'

export interface EnrolmentRequest {
  /** `coaps://host:port` */
  readonly keyserver: string
  /** The 26 characters that the key server's operator passed on. */
  readonly code: string
  /** Where the keys are, or are made. */
  readonly directory: string
  readonly dial?: ((uri: string, psk: Record<string, Uint8Array>) => Promise<CoapClient>) | undefined
}

export interface Enrolled {
  readonly address: Address
  readonly owner: Address
  /** SHA-256 of the key server's SPKI, 32 octets. */
  readonly keyServer: Uint8Array
  readonly chainId: number
  readonly registry: Address
}

/** Names of the files that an enrolment adds to those of `init`. */
export const ENROLLED_FILES = { certificate: 'device.crt', ca: 'ca.crt' } as const

/**
 * Makes the keys if there are none, and gets the certificate.
 * @throws `message/bad-code`, `device/unknown-code`, `device/refused` with the key server's reason, `dtls/…`, `device/bad-identity`,
 * `runtime/exists` when the device is enrolled already
 */
export async function enrol(request: EnrolmentRequest): Promise<Enrolled> {
  requireKeyServerUri(request.keyserver)
  const code = decodeEnrolmentCode(request.code)
  const file = (name: string): string => join(request.directory, name)
  if (readFileIfExists(file(ENROLLED_FILES.certificate)) !== undefined) {
    throw new IotchainError('runtime/exists', `${file(ENROLLED_FILES.certificate)} is there: the device is enrolled`, {
      hint: 'move the folder away to enrol as a new device',
    })
  }
  if (readFileIfExists(file(IDENTITY_FILES.accountKey)) === undefined) await initIdentity(request.directory)
  const account = readAccountKey(file(IDENTITY_FILES.accountKey))
  const address = addressOf(account)
  const csr = derOfRequest(readFileOrExplain(file(IDENTITY_FILES.request), 'certificate request').toString())
  const { publicKey } = suite.ed25519.signing(readSigningSeed(file(IDENTITY_FILES.signingKey)))
  const psk = { [enrolmentIdentity(code)]: enrolmentPsk(code) }
  const client = await (request.dial ?? dialWithCode)(request.keyserver, psk)
  try {
    const channel = client.peer.secure?.channelBinding()
    if (channel === undefined) throw new IotchainError('device/not-secure', 'the key server is not reached by DTLS')
    const device = addressBytes(address)
    const csrHash = createHash('sha256').update(csr).digest()
    const digest = enrolmentDigest({ device, csrHash, signingKey: thumbprintOf(suite, publicKey), channel })
    const body = { csr, coseKey: coseKeyEd25519(publicKey), device, sig: signDigest(account, digest) }
    const reply = await client.post('/enroll', encodeEnrolmentBody(body), { contentFormat: ContentFormat.cbor })
    if (!reply.ok) throw refusal(reply, 'the key server refused the enrolment')
    const enrolled = decodeEnrolmentReply(reply.payload)
    assertMine(enrolled.certificate, address, file(IDENTITY_FILES.key))
    const { chain, root } = chainFiles(enrolled.certificate, enrolled.caChain)
    // The certificate last: where it is, the device counts as enrolled.
    writeFileAtomic(file(ENROLLED_FILES.ca), root, { mode: 0o644 })
    writeFileAtomic(file(ENROLLED_FILES.certificate), chain, { mode: 0o644 })
    return {
      address,
      owner: addressHex(enrolled.owner),
      keyServer: enrolled.keyServer,
      chainId: enrolled.chain.chainId,
      registry: addressHex(enrolled.chain.registry),
    }
  } finally {
    await client.close()
  }
}

/** @throws `device/bad-identity` for a certificate of another device or key */
export function assertMine(certificate: Uint8Array, address: Address, keyFile: string): void {
  const leaf = parseCertificate(certificate)
  const { publicKey } = loadPrivateKey(keyFile)
  if (deviceAddressOf(leaf) !== address || !spkiSha256(leaf).equals(spkiSha256(publicKey))) {
    throw new IotchainError('device/bad-identity', 'the key server sent a certificate of another device or key')
  }
}

/** `coaps://host[:port]` and nothing more: looked at before a code is asked for or keys are made. @throws `coap/bad-uri` */
export function requireKeyServerUri(uri: string): void {
  const { scheme, path, query } = parseCoapUri(uri)
  if (scheme === 'coaps' && path.length === 0 && query.length === 0) return
  throw new IotchainError('coap/bad-uri', `"${uri}" is no address of a key server`, {
    hint: 'write coaps://HOST or coaps://HOST:PORT',
  })
}

async function dialWithCode(uri: string, psk: Record<string, Uint8Array>): Promise<CoapClient> {
  try {
    return await dial(uri, { secure: { psk } })
  } catch (cause) {
    // The alert of TLS (RFC 4279 §2) for an identity, which is made of the code, that the server does not know.
    const refused = isIotchainError(cause) && cause.code === 'dtls/refused'
    if (!refused || !/psk identity/i.test(cause.message)) throw cause
    throw new IotchainError('device/unknown-code', 'the key server does not know this code, or its time is over', {
      cause,
      hint: 'compare it letter by letter, and the key server’s address; `iotchain-keyserver code` makes another',
    })
  }
}
