/** Who a client is: an address and something that signs in its name. The wallet behind it stays where it is. */
import { addressOf, signDigest } from '../protocol/crypto/secp256k1.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { StructType } from '../protocol/messages/eip712.ts'

/** One EIP-712 message: the digest for a key at hand, the typed data for a wallet that shows what it signs. */
export interface TypedMessage {
  /** 32 octets */
  readonly digest: Uint8Array
  readonly domain: {
    readonly name: string
    readonly version: string
    readonly chainId: number
    readonly verifyingContract: Address
  }
  readonly struct: StructType
  readonly values: Readonly<Record<string, Uint8Array | number | bigint>>
}

export interface ClientSigner {
  readonly address: Address
  /** @returns 65 octets r ‖ s ‖ v; more for a contract account (EIP-1271) */
  sign(message: TypedMessage): Promise<Uint8Array>
}

/** Signs with a private key at hand. @param privateKey 32 octets */
export function keySigner(privateKey: Uint8Array): ClientSigner {
  return {
    address: addressOf(privateKey),
    sign: (message) => Promise.resolve(signDigest(privateKey, message.digest)),
  }
}
