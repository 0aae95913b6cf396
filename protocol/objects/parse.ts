/** Takes sealed objects apart (protocol.md §4.3). Nothing parsed here is verified yet. */

import { Cursor } from '../cursor.ts'
import { IotchainError } from '../errors.ts'
import { decodeHeader, type ObjectHeader } from './header.ts'

/** The largest object that is looked at, octets. */
export const OBJECT_LIMIT = 65_536

/** COSE_Encrypt0: the sealed reading without proof of its origin. Never accepted by itself. */
export interface ParsedEncrypt0 {
  readonly header: ObjectHeader
  readonly protectedBytes: Uint8Array
  readonly ciphertext: Uint8Array
}

/** COSE_Sign1 over COSE_Encrypt0. */
export interface ParsedSigned extends ParsedEncrypt0 {
  readonly kind: 'signed'
  /** First 8 octets of the thumbprint of the signer's key. */
  readonly kid: Uint8Array
  /** Protected header of the Sign1. */
  readonly outer: Uint8Array
  /** The Encrypt0, encoded: what the signature is over. */
  readonly encrypt0: Uint8Array
  readonly signature: Uint8Array
}

/** COSE_Mac0 over COSE_Encrypt0. */
export interface ParsedMac extends ParsedEncrypt0 {
  readonly kind: 'mac'
  readonly outer: Uint8Array
  readonly encrypt0: Uint8Array
  /** 8 octets. */
  readonly tag: Uint8Array
}

export type ParsedObject = ParsedSigned | ParsedMac

export interface ParseOptions {
  /** Also take alg −19 (RFC 9864), if the group's configuration says so. */
  readonly acceptEd25519?: boolean | undefined
}

/** @throws `object/malformed`, `object/too-large` */
export function parseObject(bytes: Uint8Array, options: ParseOptions = {}): ParsedObject {
  return bytes[0] === 0xd1 ? parseMac(bytes) : parseSigned(bytes, options)
}

/** @throws `object/malformed`, `object/too-large` */
export function parseSigned(bytes: Uint8Array, options: ParseOptions = {}): ParsedSigned {
  checkSize(bytes)
  const cursor = new Cursor(bytes, 'object/malformed')
  cursor.expect(0xd2, 0x84)
  const outer = cursor.bstr(15, 15)
  const inside = new Cursor(outer, 'object/malformed')
  inside.expect(0xa3, 1, options.acceptEd25519 && outer[2] === 0x32 ? 0x32 : 0x27, 3, 0x10, 4)
  const kid = inside.bstr(8, 8)
  inside.end()
  cursor.expect(0xa0)
  const encrypt0 = cursor.bstr(0, OBJECT_LIMIT)
  const signature = cursor.bstr(64, 64)
  cursor.end()
  return { kind: 'signed', kid, outer, encrypt0, signature, ...parseEncrypt0(encrypt0) }
}

/** @throws `object/malformed`, `object/too-large` */
export function parseMac(bytes: Uint8Array): ParsedMac {
  checkSize(bytes)
  const cursor = new Cursor(bytes, 'object/malformed')
  cursor.expect(0xd1, 0x84)
  const outer = cursor.bstr(8, 14)
  const inside = new Cursor(outer, 'object/malformed')
  inside.expect(0xa3, 1, 4, 3, 0x10, 4)
  const sid = inside.bstr(1, 7)
  inside.end()
  cursor.expect(0xa0)
  const encrypt0 = cursor.bstr(0, OBJECT_LIMIT)
  const tag = cursor.bstr(8, 8)
  cursor.end()
  const parsed = parseEncrypt0(encrypt0)
  const own = parsed.header.sid
  if (own.length !== sid.length || own.some((octet, i) => octet !== sid[i])) {
    throw new IotchainError('object/malformed', 'not a sealed object: two different Sender IDs')
  }
  return { kind: 'mac', outer, encrypt0, tag, ...parsed }
}

/** @throws `object/malformed`, `object/too-large` */
export function parseEncrypt0(bytes: Uint8Array): ParsedEncrypt0 {
  checkSize(bytes)
  const cursor = new Cursor(bytes, 'object/malformed')
  cursor.expect(0xd0, 0x83)
  const protectedBytes = cursor.bstr(0, 255)
  cursor.expect(0xa0)
  const ciphertext = cursor.bstr(0, OBJECT_LIMIT)
  cursor.end()
  return { header: decodeHeader(protectedBytes), protectedBytes, ciphertext }
}

/** The header of an object in any of the three forms. @throws `object/malformed`, `object/too-large` */
export function parseHeader(bytes: Uint8Array, options: ParseOptions = {}): ObjectHeader {
  return bytes[0] === 0xd0 ? parseEncrypt0(bytes).header : parseObject(bytes, options).header
}

function checkSize(bytes: Uint8Array): void {
  if (bytes.length > OBJECT_LIMIT) throw new IotchainError('object/too-large', 'an object over 65 536 octets')
}
