/**
 * Where AccessToken and DeviceRegistry keep their state (Solidity's storage layout), so that it can be read from proofs
 * instead of from what a node says a contract answers. Both are not upgradeable: the layout is part of the code hash.
 */
import { concat, fromHex } from '../protocol/bytes.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { keccak256 } from './account.ts'
import { DEVICES_SLOT, TOKENS_SLOT } from './bytecode.ts'
import { badProof } from './trie.ts'
import type { DeviceEntry, Hex, Token } from './types.ts'

const octets = (word: bigint): Uint8Array => fromHex(word.toString(16).padStart(64, '0'))
const padded = (address: Address): Uint8Array => concat(new Uint8Array(12), addressBytes(address))
const slotHex = (slot: bigint): Hex => `0x${slot.toString(16).padStart(64, '0')}`
const hashOf = (data: Uint8Array): bigint => BigInt(keccak256(data))
const mask = (bits: bigint): bigint => (1n << bits) - 1n

/** Slot of _tokens[client][device]. */
export function tokenSlot(client: Address, device: Address): Hex {
  const outer = hashOf(concat(padded(client), octets(BigInt(TOKENS_SLOT))))
  return keccak256(concat(padded(device), octets(outer)))
}

/** The one slot of a token: issuedAt, expiresAt, claims, grantBlock, serial from the low end. */
export function tokenIn(word: bigint): Token {
  const part = (shift: bigint, bits: bigint): number => clamp((word >> shift) & mask(bits))
  return {
    issuedAt: part(0n, 64n),
    expiresAt: part(64n, 64n),
    claims: part(128n, 32n),
    grantBlock: part(160n, 64n),
    serial: part(224n, 32n),
  }
}

/** As the registry bounds them. */
const MAX_CONTRACTS = 8
const MAX_URI = 256
/** Contracts that are read without knowing yet how many there are: most devices have one or two. */
const GUESSED = 2

/** Offsets from the entry's first slot. */
const Field = { owner: 0, signingKey: 1, keyServer: 2, nonce: 3, contracts: 4, uri: 5 } as const

/** Slots of _devices[device] that every entry has, then those of the first contracts. */
export function deviceSlots(device: Address): Hex[] {
  const base = baseOf(device)
  const fixed = Object.values(Field).map((offset) => slotHex(base + BigInt(offset)))
  return [...fixed, ...Array.from({ length: GUESSED }, (_, i) => contractSlot(base, i))]
}

/**
 * Slots that are needed beside `deviceSlots`, given their words: more contracts, a long uri. At most 14.
 * @throws `chain/bad-proof` if the words are none that the registry writes
 */
export function furtherSlots(device: Address, words: readonly bigint[]): Hex[] {
  const base = baseOf(device)
  const { contracts, uriSlots } = shapeOf(words)
  return [
    ...Array.from({ length: Math.max(0, contracts - GUESSED) }, (_, i) => contractSlot(base, GUESSED + i)),
    ...Array.from({ length: uriSlots }, (_, i) => slotHex(hashOf(octets(base + BigInt(Field.uri))) + BigInt(i))),
  ]
}

/**
 * The entry from the words of `deviceSlots` and `furtherSlots`; undefined: the device was never registered.
 * @throws `chain/bad-proof`
 */
export function deviceIn(
  device: Address,
  words: readonly bigint[],
  further: readonly bigint[],
): DeviceEntry | undefined {
  const [first, signingKey, keyServer, nonce] = words as [bigint, bigint, bigint, bigint]
  const changedBlock = clamp((first >> 160n) & mask(64n))
  if (changedBlock === 0) return undefined
  const { contracts } = shapeOf(words)
  const more = Math.max(0, contracts - GUESSED)
  const listed = [...words.slice(6, 6 + Math.min(contracts, GUESSED)), ...further.slice(0, more)]
  return {
    device,
    owner: addressIn(first),
    signingKey: octets(signingKey),
    keyServer: octets(keyServer),
    contracts: listed.map(addressIn),
    uri: uriIn(words[Field.uri] as bigint, further.slice(more)),
    active: ((first >> 224n) & mask(8n)) !== 0n,
    changedBlock,
    nonce: clamp(nonce),
  }
}

const baseOf = (device: Address): bigint => hashOf(concat(padded(device), octets(BigInt(DEVICES_SLOT))))

const contractSlot = (base: bigint, index: number): Hex =>
  slotHex(hashOf(octets(base + BigInt(Field.contracts))) + BigInt(index))

/** The registry refuses more than 8 contracts and 256 octets of uri: other words are of another contract. */
function shapeOf(words: readonly bigint[]): { contracts: number; uriSlots: number } {
  const contracts = words[Field.contracts] as bigint
  const uri = words[Field.uri] as bigint
  const isLong = (uri & 1n) === 1n
  const length = isLong ? (uri - 1n) / 2n : (uri & 0xffn) / 2n
  if (contracts > BigInt(MAX_CONTRACTS) || length > BigInt(isLong ? MAX_URI : 31)) {
    throw badProof('shows an entry that is none of the DeviceRegistry')
  }
  return { contracts: Number(contracts), uriSlots: isLong ? Math.ceil(Number(length) / 32) : 0 }
}

function uriIn(word: bigint, further: readonly bigint[]): string {
  const isLong = (word & 1n) === 1n
  const length = Number(isLong ? (word - 1n) / 2n : (word & 0xffn) / 2n)
  return new TextDecoder().decode((isLong ? concat(...further.map(octets)) : octets(word)).subarray(0, length))
}

const addressIn = (word: bigint): Address => `0x${(word & mask(160n)).toString(16).padStart(40, '0')}`

/** What exceeds 2⁵³ − 1 (a token for ever) is clamped to it. */
const clamp = (n: bigint): number => Number(n > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : n)
