/** The two messages of POST /enroll on an association authenticated by an enrolment code (protocol.md "Enrolment"). */
import { encodeCbor } from '../cbor.ts'
import { bareDomainSeparator, hashStruct, type StructType, typedDigest } from './eip712.ts'
import { decodeMessage, mapOf, optional, readArray, readBytes, readMap, readUint } from './fields.ts'

/** What the device signs with its secp256k1 key. All but `device` (20) have 32 octets. */
export interface Enrolment {
  readonly device: Uint8Array
  /** SHA-256 of the CSR's DER */
  readonly csrHash: Uint8Array
  /** RFC 9679 thumbprint of the object-signing COSE_Key */
  readonly signingKey: Uint8Array
  /** channelBinding() of the association */
  readonly channel: Uint8Array
}

export const ENROLMENT: StructType = {
  name: 'Enrolment',
  fields: [
    { name: 'device', type: 'address' },
    { name: 'csrHash', type: 'bytes32' },
    { name: 'signingKey', type: 'bytes32' },
    { name: 'channel', type: 'bytes32' },
  ],
}

/** 32 octets to sign; the domain has no chain, because the device does not know it yet. */
export function enrolmentDigest(enrolment: Enrolment): Uint8Array {
  return typedDigest(bareDomainSeparator(), hashStruct(ENROLMENT, { ...enrolment }))
}

export interface EnrolmentBody {
  /** PKCS #10, DER */
  readonly csr: Uint8Array
  /** encoded COSE_Key of the object-signing key */
  readonly coseKey: Uint8Array
  /** 20 octets */
  readonly device: Uint8Array
  /** 65 octets r ‖ s ‖ v over the enrolment digest */
  readonly sig: Uint8Array
}

/**
 * ```cddl
 * enrol-body = [ csr: bstr .size (1..4096), cose_key: bstr .size (1..256), device: bstr .size 20, sig: bstr .size 65 ]
 * ```
 */
export function encodeEnrolmentBody(body: EnrolmentBody): Uint8Array {
  return encodeCbor([body.csr, body.coseKey, body.device, body.sig])
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeEnrolmentBody(octets: Uint8Array): EnrolmentBody {
  const [csr, coseKey, device, sig] = readArray(decodeMessage(octets, 'enrolment'), 'enrolment', 4)
  return {
    csr: readBytes(csr, 'csr', [1, 4096]),
    coseKey: readBytes(coseKey, 'cose_key', [1, 256]),
    device: readBytes(device, 'device', 20),
    sig: readBytes(sig, 'sig', 65),
  }
}

/** Which chain the key server reads: enough for a device to compute its gids and to sign its registration. */
export interface ChainInfo {
  readonly chainId: number
  /** 20 octets */
  readonly registry: Uint8Array
  /** the chain descriptor as signed under the deployment's CA, if the key server has one */
  readonly descriptor?: Uint8Array | undefined
}

export interface EnrolmentReply {
  /** DER */
  readonly certificate: Uint8Array
  /** DER, issuing CA first, root last */
  readonly caChain: readonly Uint8Array[]
  /** encoded COSE_Key that signs broadcasts and credentials */
  readonly kdcCred: Uint8Array
  /** 20 octets: the owner that the code was made for */
  readonly owner: Uint8Array
  /** SHA-256 of the SPKI of the key server's certificate */
  readonly keyServer: Uint8Array
  readonly chain: ChainInfo
}

/**
 * ```cddl
 * enrol-reply = [ certificate: bstr, ca-chain: [1*8 bstr], kdc_cred: bstr, owner: bstr .size 20, keyServer: bstr .size 32,
 *                 chain: { 1 => chainId: uint, 2 => registry: bstr .size 20, ? 3 => descriptor: bstr } ]
 * ```
 */
export function encodeEnrolmentReply(reply: EnrolmentReply): Uint8Array {
  const { chain } = reply
  return encodeCbor([
    reply.certificate,
    [...reply.caChain],
    reply.kdcCred,
    reply.owner,
    reply.keyServer,
    mapOf([
      [1, chain.chainId],
      [2, chain.registry],
      [3, chain.descriptor],
    ]),
  ])
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeEnrolmentReply(octets: Uint8Array): EnrolmentReply {
  const f = readArray(decodeMessage(octets, 'enrolment reply'), 'enrolment reply', 6)
  const chain = readMap(f[5], 'chain', [1, 2, 3])
  return {
    certificate: readBytes(f[0], 'certificate', [1, 8192]),
    caChain: readArray(f[1], 'CA chain', [1, 8]).map((c) => readBytes(c, 'CA certificate', [1, 8192])),
    kdcCred: readBytes(f[2], 'kdc_cred', [1, 256]),
    owner: readBytes(f[3], 'owner', 20),
    keyServer: readBytes(f[4], 'keyServer', 32),
    chain: {
      chainId: readUint(chain.get(1), 'chainId'),
      registry: readBytes(chain.get(2), 'registry', 20),
      descriptor: optional(chain.get(3), (v) => readBytes(v, 'chain descriptor', [1, 16_384])),
    },
  }
}

/**
 * POST /renew over the certificate that is to be replaced: the stored CSR again, for the same key.
 * ```cddl
 * renewal = [ csr: bstr .size (1..4096) ]
 * renewal-reply = [ certificate: bstr, ca-chain: [1*8 bstr] ]
 * ```
 */
export function encodeRenewal(csr: Uint8Array): Uint8Array {
  return encodeCbor([csr])
}

/** The CSR. @throws `message/malformed`, `cbor/…` */
export function decodeRenewal(octets: Uint8Array): Uint8Array {
  const [csr] = readArray(decodeMessage(octets, 'renewal'), 'renewal', 1)
  return readBytes(csr, 'csr', [1, 4096])
}

export interface RenewalReply {
  /** DER */
  readonly certificate: Uint8Array
  /** DER, issuing CA first, root last */
  readonly caChain: readonly Uint8Array[]
}

export function encodeRenewalReply(reply: RenewalReply): Uint8Array {
  return encodeCbor([reply.certificate, [...reply.caChain]])
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeRenewalReply(octets: Uint8Array): RenewalReply {
  const [certificate, chain] = readArray(decodeMessage(octets, 'renewal reply'), 'renewal reply', 2)
  return {
    certificate: readBytes(certificate, 'certificate', [1, 8192]),
    caChain: readArray(chain, 'CA chain', [1, 8]).map((c) => readBytes(c, 'CA certificate', [1, 8192])),
  }
}
