/** Who a client is: an address and something that signs in its name. `chain/wallet.ts` accounts are such signers. */
import { addressOf, signDigest } from '../protocol/crypto/secp256k1.ts'
import type { Address } from '../protocol/messages/address.ts'
import {
  type Domain,
  domainSeparator,
  type FieldValue,
  hashStruct,
  type StructType,
  typedDigest,
} from '../protocol/messages/eip712.ts'

export interface ClientSigner {
  readonly address: Address
  /** EIP-712 over one flat struct. @returns 65 octets r ‖ s ‖ v; more for a contract account (EIP-1271) */
  signStruct(domain: Domain, struct: StructType, values: Readonly<Record<string, FieldValue>>): Promise<Uint8Array>
}

/** Signs with a private key at hand. @param privateKey 32 octets */
export function keySigner(privateKey: Uint8Array): ClientSigner {
  return {
    address: addressOf(privateKey),
    signStruct: async (domain, struct, values) =>
      signDigest(privateKey, typedDigest(domainSeparator(domain), hashStruct(struct, values))),
  }
}
