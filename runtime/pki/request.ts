/** Certificate signing requests (PKCS #10, RFC 2986) of devices. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { IotchainError } from '../../protocol/errors.ts'
import { type Address, parseAddress } from '../../protocol/messages/address.ts'
import { deviceUri } from './certificate.ts'
import { ECDSA_SHA256, loadX509, requireP256, webCryptoPair } from './x509.ts'

/** PEM text or DER. */
export type CsrLike = string | Uint8Array

/**
 * A request for the device's DTLS certificate: P-256, subject CN = address, SAN = the device URI, signed by the key.
 * The DER is deterministic in content but not in its signature: store it, and renew by sending the same one again.
 */
export async function createCsr(options: { address: Address; privateKey: KeyObject }): Promise<{
  der: Buffer
  pem: string
}> {
  const address = parseAddress(options.address)
  const x509 = await loadX509()
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${address}`,
    keys: await webCryptoPair(options.privateKey),
    signingAlgorithm: ECDSA_SHA256,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'url', value: deviceUri(address) }])],
  })
  return { der: Buffer.from(csr.rawData), pem: csr.toString('pem') }
}

export interface VerifiedCsr {
  /** The one device that the request names. */
  readonly address: Address
  readonly publicKey: KeyObject
  readonly der: Buffer
}

/**
 * Checks what a request must hold before anybody signs it: P-256, its own signature, exactly one alternative name,
 * the device URI. What else it asks for is ignored: the certificate's content is the issuer's.
 * @throws `pki/bad-csr`, `pki/wrong-key`
 */
export async function verifyCsr(csr: CsrLike): Promise<VerifiedCsr> {
  if (csr.length > MAX_CSR) throw new IotchainError('pki/bad-csr', 'the certificate request is too long')
  const x509 = await loadX509()
  let names: { type: string; value: string }[]
  let publicKey: KeyObject
  let der: Buffer
  try {
    const request = new x509.Pkcs10CertificateRequest(typeof csr === 'string' ? csr : Uint8Array.from(csr))
    der = Buffer.from(request.rawData)
    publicKey = createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: 'der', type: 'spki' })
    const alternative = request.extensions.filter((e) => e instanceof x509.SubjectAlternativeNameExtension)
    names = alternative.flatMap((e) => e.names.items.map(({ type, value }) => ({ type, value })))
    requireP256(publicKey, 'the key of the certificate request')
  } catch (cause) {
    if (cause instanceof IotchainError) throw cause
    throw new IotchainError('pki/bad-csr', 'that is not a certificate request', {
      cause,
      hint: 'give the device.csr that iotchain-device init made',
    })
  }
  if (!signedByOwnKey(der, publicKey))
    throw new IotchainError('pki/bad-csr', 'the certificate request is not signed by its own key')
  const [name] = names
  const found = /^urn:iotchain:device:(0x[0-9a-f]{40})$/.exec(name?.value ?? '')
  if (names.length !== 1 || name?.type !== 'url' || found === null) {
    throw new IotchainError('pki/bad-csr', 'the certificate request does not name exactly one device', {
      hint: 'its only alternative name must be the URI urn:iotchain:device:0x<40 lower-case hex digits>',
    })
  }
  return { address: found[1] as Address, publicKey, der }
}

const MAX_CSR = 4096

/** ecdsa-with-SHA256, no parameters (RFC 5758 §3.2). */
const ECDSA_WITH_SHA256 = Buffer.from('300a06082a8648ce3d040302', 'hex')

/**
 * The signature over the octets as they came, in strict DER: the library's parser takes BER and would let the frame
 * around the signed part be rewritten, and the hash of a request must name one request.
 */
function signedByOwnKey(der: Buffer, publicKey: KeyObject): boolean {
  const outer = derItem(der, 0)
  if (outer === undefined || outer.tag !== 0x30 || outer.end !== der.length) return false
  const info = derItem(der, outer.start)
  const algorithm = info && derItem(der, info.end)
  const signature = algorithm && derItem(der, algorithm.end)
  if (signature?.tag !== 0x03 || signature.end !== der.length || der[signature.start] !== 0) return false
  if (!der.subarray(info!.end, algorithm!.end).equals(ECDSA_WITH_SHA256)) return false
  return verify('sha256', der.subarray(outer.start, info!.end), publicKey, der.subarray(signature.start + 1))
}

/** One DER item of at most 65 535 octets in its only permitted form, or undefined. */
function derItem(der: Buffer, at: number): { tag: number; start: number; end: number } | undefined {
  const tag = der[at]
  const first = der[at + 1]
  if (tag === undefined || first === undefined) return undefined
  let length = first
  let start = at + 2
  if (first >= 0x80) {
    const octets = first - 0x80
    if (octets < 1 || octets > 2 || at + 2 + octets > der.length) return undefined
    length = der.readUIntBE(at + 2, octets)
    start += octets
    if (length < (octets === 1 ? 0x80 : 0x100)) return undefined
  }
  const end = start + length
  return end <= der.length ? { tag, start, end } : undefined
}
