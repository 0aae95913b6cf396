/**
 * tokensOf(address[],address) by hand: thousands of tokens are read before each broadcast, and a general ABI coder
 * spends more time on them than the node does. The layout is fixed; a test holds it against ethers.
 */
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { accessToken } from './contracts.ts'
import { type Hex, NO_TOKEN, type Token } from './types.ts'

const WORD = 64
const word = (value: number | string): string =>
  (typeof value === 'number' ? value.toString(16) : value).padStart(WORD, '0')

let selector: Hex | undefined

export function encodeTokensOf(clients: readonly Address[], device: Address): Hex {
  selector ??= accessToken.selector('tokensOf')
  let data = selector + word(64) + word(device.slice(2)) + word(clients.length)
  for (const client of clients) data += word(client.slice(2))
  return data as Hex
}

/**
 * @param count how many tokens were asked for; `0x` (there is no contract) gives that many times `NO_TOKEN`
 * @throws `chain/bad-answer`
 */
export function decodeTokensOf(data: Hex, count: number): Token[] {
  if (data === '0x') return Array.from({ length: count }, () => NO_TOKEN)
  if (data.length !== 2 + WORD * (2 + 5 * count) || unsigned(data, 0) !== 32 || unsigned(data, 1) !== count) {
    throw new IotchainError('chain/bad-answer', 'a contract answered tokensOf with octets that make no sense', {
      hint: 'Is that address an AccessToken contract?',
    })
  }
  return Array.from({ length: count }, (_, i) => {
    const at = 2 + 5 * i
    return {
      issuedAt: unsigned(data, at),
      expiresAt: unsigned(data, at + 1),
      // bytes4 stands at the left of its word
      claims: Number.parseInt(data.slice(2 + WORD * (at + 2), 2 + WORD * (at + 2) + 8), 16),
      grantBlock: unsigned(data, at + 3),
      serial: unsigned(data, at + 4),
    }
  })
}

/** A word as a number; what exceeds 2⁵³ − 1 (a token for ever) is clamped to it. */
function unsigned(data: Hex, index: number): number {
  const start = 2 + WORD * index
  const high = data.slice(start, start + WORD - 16)
  const low = Number.parseInt(data.slice(start + WORD - 16, start + WORD), 16)
  if (/[^0]/.test(high) || low > Number.MAX_SAFE_INTEGER) return Number.MAX_SAFE_INTEGER
  return low
}
