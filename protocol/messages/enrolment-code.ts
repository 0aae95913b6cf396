/**
 * The code that binds an unenrolled device to its owner: 16 random octets in base32, from which both sides derive the
 * PSK identity and the PSK of the enrolment association (protocol.md "Enrolment").
 */
import { hkdf } from '@noble/hashes/hkdf.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { toHex, utf8 } from '../bytes.ts'
import { IotchainError } from '../errors.ts'

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
export const ENROLMENT_CODE_OCTETS = 16
const IDENTITY_PREFIX = 'enrol:'

/** Base32 (RFC 4648 §6, no padding) in groups of four: 26 characters for 16 octets. */
export function encodeEnrolmentCode(code: Uint8Array): string {
  requireCode(code)
  let bits = 0
  let held = 0
  let text = ''
  for (const octet of code) {
    held = (held << 8) | octet
    bits += 8
    while (bits >= 5) {
      bits -= 5
      text += ALPHABET[(held >>> bits) & 31]
      held &= (1 << bits) - 1
    }
  }
  if (bits > 0) text += ALPHABET[(held << (5 - bits)) & 31]
  return (text.match(/.{1,4}/g) as string[]).join(' ')
}

/** Case, spaces and hyphens are ignored. @throws `message/bad-code` */
export function decodeEnrolmentCode(text: string): Uint8Array {
  if (text.length > 128) throw badCode()
  const clean = text.replace(/[\s-]/g, '').toUpperCase()
  if (clean.length !== 26) throw badCode()
  const code = new Uint8Array(ENROLMENT_CODE_OCTETS)
  let bits = 0
  let held = 0
  let at = 0
  for (const c of clean) {
    const value = ALPHABET.indexOf(c)
    if (value < 0) throw badCode()
    held = (held << 5) | value
    bits += 5
    if (bits >= 8) {
      bits -= 8
      code[at++] = (held >>> bits) & 255
      held &= (1 << bits) - 1
    }
  }
  if (held !== 0) throw badCode()
  return code
}

/** `enrol:` and the first 8 octets of SHA-256(code) in hex. */
export function enrolmentIdentity(code: Uint8Array): string {
  requireCode(code)
  return IDENTITY_PREFIX + toHex(sha256(code).subarray(0, 8))
}

/** HKDF-SHA-256(salt empty, code, info "iotc1 enrol"), 32 octets. */
export function enrolmentPsk(code: Uint8Array): Uint8Array {
  requireCode(code)
  return hkdf(sha256, code, new Uint8Array(0), utf8('iotc1 enrol'), 32)
}

/** True for text that has the form of a PSK identity of an enrolment. */
export function isEnrolmentIdentity(identity: string): boolean {
  return /^enrol:[0-9a-f]{16}$/.test(identity)
}

function requireCode(code: Uint8Array): void {
  if (code.length !== ENROLMENT_CODE_OCTETS) throw badCode()
}

function badCode(): IotchainError {
  return new IotchainError('message/bad-code', 'this is no enrolment code', {
    hint: 'type the 26 letters and digits that `iotchain-keyserver code` printed; case and spaces do not matter',
  })
}
