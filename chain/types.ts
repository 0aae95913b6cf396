/**
 * What the chain tells the rest of the product: plain data, no ethers objects. Addresses are lower-case hex,
 * hashes of the chain are hex as JSON-RPC writes them, 32-octet values of ours are octets, times unix seconds.
 */
import type { Address } from '../protocol/messages/address.ts'

export type Hex = `0x${string}`

/** A depth in blocks, or a tag whose block number stands for the depth (IoTChain §III-C; chain of the owner's choice). */
export type Confirmations = number | 'safe' | 'finalized'

/** One block that a decision is pinned to. `safe` and `finalized` are block numbers, where the chain has them. */
export interface Head {
  readonly number: number
  readonly hash: Hex
  readonly parentHash: Hex
  /** unix seconds */
  readonly timestamp: number
  readonly safe: number | undefined
  readonly finalized: number | undefined
}

/**
 * One grant (client, device) of one AccessToken contract, as it stands in the slot. `expiresAt` 0 means that no
 * token stands there: never granted (serial 0) or deleted (its serial stays).
 */
export interface Token {
  readonly issuedAt: number
  readonly expiresAt: number
  /** uint32; bit b ↔ group (device, b): (claims >>> b) & 1 */
  readonly claims: number
  /** the block of the last write */
  readonly grantBlock: number
  /** grows with every write of the slot */
  readonly serial: number
}

/** What stands where nothing was ever granted, or where there is no contract. */
export const NO_TOKEN: Token = { issuedAt: 0, expiresAt: 0, claims: 0, grantBlock: 0, serial: 0 }

/** A device's line in the DeviceRegistry. */
export interface DeviceEntry {
  readonly device: Address
  readonly owner: Address
  /** RFC 9679 SHA-256 thumbprint of the object-signing COSE_Key, 32 octets */
  readonly signingKey: Uint8Array
  /** SHA-256 of the key server's SPKI, 32 octets */
  readonly keyServer: Uint8Array
  /** the AccessToken contracts whose tokens count, at most 8 */
  readonly contracts: readonly Address[]
  /** how clients reach the key server (coaps://…): a hint, pinned by keyServer */
  readonly uri: string
  readonly active: boolean
  /** the block of the last change */
  readonly changedBlock: number
  /** the nonce that the next device signature has to carry */
  readonly nonce: number
}
