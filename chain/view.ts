/** What a decision needs of a chain. `ChainReader` is the real one; tests put their own in its place. */
import type { Address } from '../protocol/messages/address.ts'
import type { DeviceEntry, Head, Token } from './types.ts'

export interface ChainView {
  readonly chainId: number
  readonly registry: Address

  /**
   * The newest block, if the node is fit to be believed.
   *
   * @param maxAgeMs a head read at most this long ago serves too; default 0, in-flight reads are always shared
   * @throws `chain/unreachable`, `chain/wrong-chain`, `chain/no-registry`, `chain/syncing`, `chain/peers`,
   *   `chain/stale`, `chain/no-finality`, `chain/never-final`, `chain/no-proofs`, `chain/bad-proof`: each means "do not decide now"
   */
  head(maxAgeMs?: number): Promise<Head>

  /**
   * The registry's entry for a device at `head`, undefined if it was never registered.
   *
   * @throws `chain/reorged` if the block is no longer canonical: take a new head and read again
   */
  deviceOf(device: Address, head: Head): Promise<DeviceEntry | undefined>

  /** The same for many, in the order asked, in as few exchanges as possible. */
  devicesOf(devices: readonly Address[], head: Head): Promise<(DeviceEntry | undefined)[]>

  /**
   * The tokens of many clients for one device in one contract at `head`, in the order asked; `NO_TOKEN` where
   * none stands or there is no contract. Read in chunks of 500, all pinned to the one block.
   *
   * @throws `chain/reorged`
   */
  tokensOf(contract: Address, device: Address, clients: readonly Address[], head: Head): Promise<Token[]>

  /**
   * True if `signature` over `digest` (32 octets) is that of `address`: a 65-octet ECDSA signature of an
   * ordinary account, else EIP-1271 by a gas-capped call at `head`.
   */
  verifySignature(address: Address, digest: Uint8Array, signature: Uint8Array, head: Head): Promise<boolean>

  /** keccak-256 of the code at an address, at `head`; undefined where there is none. */
  codeHash(address: Address, head: Head): Promise<string | undefined>

  /** Runs `read` with a head, and again with a newer one (at most three times) if a reorg took that block away. */
  atHead<T>(read: (head: Head) => Promise<T>): Promise<T>
}
