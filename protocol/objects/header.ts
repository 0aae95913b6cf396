/** The protected header of a sealed object (protocol.md §4.3): what the proxy can read, and nobody can change. */
import { concat, copyOf, u32 } from '../bytes.ts'
import { type AeadAlgorithm, isAeadAlgorithm } from '../crypto/suite.ts'
import { Cursor, uintHead } from '../cursor.ts'
import { IotchainError } from '../errors.ts'
import { type Gid, toGid } from '../groups/gid.ts'

/** Sequence numbers are below 2^40. */
export const SEQ_LIMIT = 2 ** 40

export interface ObjectHeader {
  readonly algorithm: AeadAlgorithm
  /** CoAP content-format of the plaintext. */
  readonly contentFormat: number
  /** Sender ID: 1 to 7 octets. */
  readonly sid: Uint8Array
  /** Sequence number of the sender, below 2^40. */
  readonly seq: number
  readonly gid: Gid
  readonly session: number
  /** Time of sealing, Unix seconds. */
  readonly iat: number
}

/** Partial IV: shortest big-endian form, at least one octet. @throws `object/bad-seq` */
export function partialIv(seq: number): Uint8Array {
  if (!Number.isSafeInteger(seq) || seq < 0 || seq >= SEQ_LIMIT) {
    throw new IotchainError('object/bad-seq', 'a sequence number is from 0 to 2^40 − 1')
  }
  const high = Math.floor(seq / 0x100000000)
  const low = seq >>> 0
  if (high > 0) return Uint8Array.of(high, low >>> 24, low >>> 16, low >>> 8, low)
  if (low > 0xffffff) return Uint8Array.of(low >>> 24, low >>> 16, low >>> 8, low)
  if (low > 0xffff) return Uint8Array.of(low >>> 16, low >>> 8, low)
  return low > 0xff ? Uint8Array.of(low >>> 8, low) : Uint8Array.of(low)
}

/** The constant parts of the headers of one (session, resource), so that sealing writes only what changes. */
export interface HeaderTemplate {
  encode(seq: Uint8Array, contentFormat: number, iat: number): Uint8Array
}

/** @param scope gid of 8 octets, session from 1, sid of 1 to 7 octets */
export function headerTemplate(scope: {
  algorithm: AeadAlgorithm
  sid: Uint8Array
  gid: Uint8Array
  session: number
}): HeaderTemplate {
  const { algorithm, sid, gid, session } = scope
  if (sid.length < 1 || sid.length > 7) throw new IotchainError('object/bad-sid', 'a Sender ID has 1 to 7 octets')
  checkSession(session)
  const start = concat(Uint8Array.of(0xa6, 1), uintHead(algorithm), Uint8Array.of(3))
  const middle = concat(Uint8Array.of(4, 0x40 | sid.length), sid, Uint8Array.of(6))
  const end = concat(Uint8Array.of(10, 0x4c), toGid(gid), u32(session), Uint8Array.of(15, 0xa1, 6))
  return {
    encode(seq, contentFormat, iat) {
      const format = uintHead(contentFormat)
      const time = uintHead(iat)
      const out = new Uint8Array(
        start.length + format.length + middle.length + 1 + seq.length + end.length + time.length,
      )
      out.set(start)
      let at = start.length
      out.set(format, at)
      at += format.length
      out.set(middle, at)
      at += middle.length
      out[at++] = 0x40 | seq.length
      out.set(seq, at)
      at += seq.length
      out.set(end, at)
      at += end.length
      out.set(time, at)
      return out
    },
  }
}

export function encodeHeader(header: ObjectHeader): Uint8Array {
  return headerTemplate(header).encode(partialIv(header.seq), header.contentFormat, header.iat)
}

/**
 * Reads the protected header of an Encrypt0. Its six parameters stand in deterministic order; anything else, missing
 * or more, is refused.
 * @throws `object/malformed`
 */
export function decodeHeader(bytes: Uint8Array): ObjectHeader {
  const cursor = new Cursor(bytes, 'object/malformed')
  cursor.expect(0xa6, 1)
  const algorithm = cursor.uint()
  if (!isAeadAlgorithm(algorithm)) throw malformed('an algorithm that is not used here')
  cursor.expect(3)
  const contentFormat = cursor.uint()
  if (contentFormat > 65_535) throw malformed('a content-format above 65 535')
  cursor.expect(4)
  const sid = copyOf(cursor.bstr(1, 7))
  cursor.expect(6)
  const seq = cursor.bstrUint(1, 5)
  cursor.expect(10)
  const context = cursor.bstr(12, 12)
  const session =
    (((context[8] as number) << 24) |
      ((context[9] as number) << 16) |
      ((context[10] as number) << 8) |
      (context[11] as number)) >>>
    0
  if (session === 0) throw malformed('session 0')
  cursor.expect(15, 0xa1, 6)
  const iat = cursor.uint()
  cursor.end()
  return { algorithm, contentFormat, sid, seq, gid: copyOf(context, 0, 8) as Gid, session, iat }
}

function checkSession(session: number): void {
  if (!Number.isInteger(session) || session < 1 || session > 0xffffffff) {
    throw new IotchainError('object/bad-session', 'a session number is from 1 to 2^32 − 1')
  }
}

function malformed(what: string): IotchainError {
  return new IotchainError('object/malformed', `not a sealed object: ${what}`)
}
