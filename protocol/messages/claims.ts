/** The four octets of rights in a token: bit b set ⇔ (uint32(claims) >> b) & 1, and bit b of device R is group (R, b). */
import { u32 } from '../bytes.ts'
import { IotchainError } from '../errors.ts'

/** The set bits, ascending. @throws `message/malformed` unless there are exactly 4 octets */
export function claimsBits(claims: Uint8Array): number[] {
  const word = claimsWord(claims)
  const bits: number[] = []
  for (let b = 0; b < 32; b++) if ((word >>> b) & 1) bits.push(b)
  return bits
}

/** Claims with exactly these bits. @throws `message/malformed` for a bit outside 0..31 */
export function claimsOfBits(bits: Iterable<number>): Uint8Array {
  let word = 0
  for (const b of bits) {
    if (!Number.isInteger(b) || b < 0 || b > 31) throw new IotchainError('message/malformed', 'a claims bit is 0 to 31')
    word = (word | (1 << b)) >>> 0
  }
  return u32(word)
}

export function hasClaim(claims: Uint8Array, bit: number): boolean {
  return bit >= 0 && bit < 32 && ((claimsWord(claims) >>> bit) & 1) === 1
}

/** The claims as an unsigned 32-bit number. @throws `message/malformed` */
export function claimsWord(claims: Uint8Array): number {
  if (claims.length !== 4) throw new IotchainError('message/malformed', 'claims are 4 octets')
  return new DataView(claims.buffer, claims.byteOffset, 4).getUint32(0)
}
