/** The value of a Block1 or Block2 option (RFC 7959 §2.2): block number, more bit, size exponent. */
import { encodeUint } from './options.ts'

export interface Block {
  /** 0 … 2²⁰−1 */
  readonly number: number
  readonly more: boolean
  /** The block has 2^(szx+4) octets: 0 … 6 are 16 … 1024. */
  readonly szx: number
}

export const MAX_BLOCK_NUMBER = 0xfffff

/** A value of zero octets is block 0, no more, 16 octets. Undefined for the reserved szx 7. */
export function decodeBlock(value: number): Block | undefined {
  const szx = value & 7
  return szx === 7 ? undefined : { number: value >>> 4, more: (value & 8) !== 0, szx }
}

export function encodeBlock(block: Block): Uint8Array {
  return encodeUint(block.number * 16 + (block.more ? 8 : 0) + block.szx)
}

export function blockOctets(szx: number): number {
  return 16 << szx
}

/** The largest szx whose blocks have at most `octets` octets (at least 16). */
export function szxFor(octets: number): number {
  return Math.max(0, Math.min(6, Math.floor(Math.log2(octets)) - 4))
}
