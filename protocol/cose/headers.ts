/** COSE header parameters, and the structures that are signed, authenticated or used as additional data (RFC 9052). */
import { utf8 } from '../bytes.ts'
import { type CborMap, type CborValue, decodeCbor, encodeCbor, Tagged } from '../cbor.ts'
import { IotchainError } from '../errors.ts'

/** Header parameter labels (RFC 9052 §3.1; 15 is RFC 9597's). */
export const HEADER = {
  alg: 1,
  crit: 2,
  contentType: 3,
  kid: 4,
  iv: 5,
  partialIv: 6,
  kidContext: 10,
  cwtClaims: 15,
} as const

/** Algorithm numbers (RFC 9053); −19 is RFC 9864's number for the Ed25519 that −8 means here. */
export const ALG = { eddsa: -8, ed25519: -19, hmac256_64: 4, hmac256_256: 5 } as const

export const COSE_TAG = { encrypt0: 16, mac0: 17, sign1: 18, cwt: 61 } as const

/** A COSE message with one signer or recipient, taken apart but not yet believed. */
export interface CoseMessage {
  /** Octets of the protected header as received: they are what the proof is over. */
  readonly protectedBytes: Uint8Array
  readonly protectedHeader: CborMap
  readonly unprotected: CborMap
  /** Payload of Sign1 and Mac0, ciphertext of Encrypt0. */
  readonly payload: Uint8Array
  /** Signature of Sign1, tag of Mac0, nothing for Encrypt0. */
  readonly proof: Uint8Array
}

const EMPTY = new Uint8Array(0)

/** The content of the bstr for a protected header; an empty map is the empty string (RFC 9052 §3). */
export function encodeProtected(header: ReadonlyMap<number, unknown>): Uint8Array {
  return header.size === 0 ? EMPTY : encodeCbor(header)
}

/** Octets of the head of a CBOR byte string of `length` octets. */
export function bstrHeadLength(length: number): number {
  return length < 24 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : 5
}

/** Writes `bytes` as a CBOR byte string at `at`. @returns the index behind it */
export function writeBstr(out: Uint8Array, at: number, bytes: Uint8Array): number {
  const next = writeBstrHead(out, at, bytes.length)
  out.set(bytes, next)
  return next + bytes.length
}

export function writeBstrHead(out: Uint8Array, at: number, length: number): number {
  if (length < 24) {
    out[at] = 0x40 | length
    return at + 1
  }
  if (length < 0x100) {
    out[at] = 0x58
    out[at + 1] = length
    return at + 2
  }
  if (length < 0x10000) {
    out[at] = 0x59
    out[at + 1] = length >> 8
    out[at + 2] = length & 255
    return at + 3
  }
  out[at] = 0x5a
  new DataView(out.buffer, out.byteOffset + at + 1, 4).setUint32(0, length)
  return at + 5
}

export function bstr(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(bstrHeadLength(bytes.length) + bytes.length)
  writeBstr(out, 0, bytes)
  return out
}

function opening(elements: number, context: string): Uint8Array {
  const text = utf8(context)
  return Uint8Array.of(0x80 | elements, 0x60 | text.length, ...text)
}

const OPENING = {
  Signature1: opening(4, 'Signature1'),
  MAC0: opening(4, 'MAC0'),
  Encrypt0: opening(3, 'Encrypt0'),
}

/**
 * Sig_structure, MAC_structure or Enc_structure for one signer or recipient (RFC 9052 §4.4, §6.3, §5.3).
 * @param payload none for Encrypt0
 */
export function coseStructure(
  context: keyof typeof OPENING,
  protectedBytes: Uint8Array,
  externalAad: Uint8Array,
  payload?: Uint8Array,
): Uint8Array {
  // an encoded empty map counts as the empty string
  const header = protectedBytes.length === 1 && protectedBytes[0] === 0xa0 ? EMPTY : protectedBytes
  const start = OPENING[context]
  const out = new Uint8Array(
    start.length +
      bstrHeadLength(header.length) +
      header.length +
      bstrHeadLength(externalAad.length) +
      externalAad.length +
      (payload === undefined ? 0 : bstrHeadLength(payload.length) + payload.length),
  )
  out.set(start)
  let at = writeBstr(out, start.length, header)
  at = writeBstr(out, at, externalAad)
  if (payload !== undefined) writeBstr(out, at, payload)
  return out
}

/** Tag, protected header, empty unprotected header, payload and, if any, proof: the deterministic encoding. */
export function encodeMessage(
  tag: number,
  protectedBytes: Uint8Array,
  payload: Uint8Array,
  proof?: Uint8Array,
): Uint8Array {
  const out = new Uint8Array(
    3 +
      bstrHeadLength(protectedBytes.length) +
      protectedBytes.length +
      bstrHeadLength(payload.length) +
      payload.length +
      (proof === undefined ? 0 : bstrHeadLength(proof.length) + proof.length),
  )
  out[0] = 0xc0 | tag
  out[1] = proof === undefined ? 0x83 : 0x84
  let at = writeBstr(out, 2, protectedBytes)
  out[at++] = 0xa0
  at = writeBstr(out, at, payload)
  if (proof !== undefined) writeBstr(out, at, proof)
  return out
}

/**
 * Takes apart a tagged COSE message.
 * @param elements 3 for Encrypt0, 4 for Sign1 and Mac0
 * @throws `cose/malformed`, `cbor/…`
 */
export function decodeMessage(bytes: Uint8Array | Tagged, tag: number, elements: 3 | 4): CoseMessage {
  const value: CborValue = bytes instanceof Tagged ? bytes : decodeCbor(bytes)
  if (!(value instanceof Tagged) || value.tag !== tag) throw malformed(`not tagged ${tag}`)
  const parts: unknown = value.value
  if (!Array.isArray(parts) || parts.length !== elements) throw malformed(`not an array of ${elements}`)
  const [protectedBytes, unprotected, payload, proof = EMPTY] = parts as unknown[]
  if (!(protectedBytes instanceof Uint8Array)) throw malformed('the protected header is no byte string')
  if (!(unprotected instanceof Map)) throw malformed('the unprotected header is no map')
  if (!(payload instanceof Uint8Array)) throw malformed('the content is no byte string')
  if (!(proof instanceof Uint8Array)) throw malformed('the signature or tag is no byte string')
  const protectedHeader = protectedBytes.length === 0 ? new Map() : decodeCbor(protectedBytes)
  if (!(protectedHeader instanceof Map)) throw malformed('the protected header is no map')
  for (const label of protectedHeader.keys()) {
    if (unprotected.has(label)) throw malformed('a header parameter both protected and unprotected')
  }
  return { protectedBytes, protectedHeader, unprotected, payload, proof }
}

function malformed(what: string): IotchainError {
  return new IotchainError('cose/malformed', `not the COSE message expected: ${what}`)
}
