/** H and F of protocol.md §2, with the scheme's labels. */
import { concat, utf8 } from '../bytes.ts'
import type { CryptoSuite } from '../crypto/suite.ts'

/** Octets of every tree secret, chain value and group key. */
export const SECRET_LENGTH = 16

export const LABEL = {
  all: utf8('iotc1 all'),
  subset: utf8('iotc1 sd'),
  time: utf8('iotc1 time'),
  key: utf8('iotc1 key'),
  check: utf8('iotc1 kcv'),
  chainStart: utf8('iotc1 z'),
  chainNext: utf8('iotc1 next'),
  wrap: concat(Uint8Array.of(2), utf8('iotc1 wrap')),
  heal: utf8('iotc1 heal'),
} as const

/** F(k, m): the first 16 octets of HMAC-SHA-256. */
export type Prf = (key: Uint8Array, message: Uint8Array) => Uint8Array

export function prfOf(suite: CryptoSuite): Prf {
  return (key, message) => suite.hmacOnce(key, message).subarray(0, SECRET_LENGTH)
}

const LEFT = Uint8Array.of(0)
const RIGHT = Uint8Array.of(1)

/** Secret of a node's left (0) or right (1) child: the GGM step of both trees. */
export function childOf(prf: Prf, secret: Uint8Array, bit: number): Uint8Array {
  return prf(secret, bit === 0 ? LEFT : RIGHT)
}

/** `mask` xor `data`, of the length of `data`. */
export function xor(data: Uint8Array, mask: Uint8Array): Uint8Array {
  const out = new Uint8Array(data.length)
  for (let i = 0; i < data.length; i++) out[i] = (data[i] as number) ^ (mask[i] as number)
  return out
}
