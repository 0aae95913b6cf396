/** Ethereum addresses: lower-case hex text at borders for people, 20 octets in everything that is hashed or sent. */
import { keccak_256 } from '@noble/hashes/sha3.js'
import { fromHex, toHex, utf8 } from '../bytes.ts'
import { IotchainError } from '../errors.ts'

/** `0x` and 40 lower-case hex digits. */
export type Address = `0x${string}`

export const ZERO_ADDRESS: Address = `0x${'00'.repeat(20)}`

/**
 * Reads an address as people write it. One case throughout is taken as it is; mixed case must be the ERC-55 checksum,
 * so that a mistyped digit is found.
 * @throws `message/bad-address`
 */
export function parseAddress(text: string): Address {
  if (!/^0x[0-9a-fA-F]{40}$/.test(text)) {
    throw new IotchainError('message/bad-address', `"${printable(text)}" is not an Ethereum address`, {
      hint: 'an address is 0x and 40 hexadecimal digits',
    })
  }
  const digits = text.slice(2)
  const lower = digits.toLowerCase()
  if (digits !== lower && digits !== digits.toUpperCase() && digits !== checksum(lower)) {
    throw new IotchainError('message/bad-address', `the checksum of address ${text} does not hold`, {
      hint: 'copy it again, or write it in lower case if you are sure of each digit',
    })
  }
  return `0x${lower}`
}

/** The 20 octets of an address. @throws `message/bad-address` */
export function addressBytes(address: string): Uint8Array {
  return fromHex(parseAddress(address))
}

/** Text of 20 octets. @throws `message/bad-address` for any other length */
export function addressHex(octets: Uint8Array): Address {
  if (octets.length !== 20) {
    throw new IotchainError('message/bad-address', `an address has 20 octets, not ${octets.length}`)
  }
  return `0x${toHex(octets)}`
}

/** The mixed-case form of ERC-55, for display to people only. */
export function checksumAddress(address: Address): string {
  return `0x${checksum(address.slice(2).toLowerCase())}`
}

function checksum(lower: string): string {
  const hash = toHex(keccak_256(utf8(lower)))
  return [...lower].map((c, i) => (Number.parseInt(hash[i] as string, 16) >= 8 ? c.toUpperCase() : c)).join('')
}

function printable(text: string): string {
  const clean = [...text].map((c) => (c >= ' ' && c <= '~' ? c : '?')).join('')
  return clean.length > 60 ? `${clean.slice(0, 60)}…` : clean
}
