/** Merkle trees of addresses for the Allowlist policy, laid out as OpenZeppelin's standard tree of one `address` column. */
import { compareBytes, concat, fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { keccak256 } from './account.ts'
import type { Hex } from './types.ts'

export interface MerkleTree {
  readonly root: Hex
  /** The siblings from leaf to root. @throws `chain/not-listed` */
  proofOf(client: Address): Hex[]
}

const hash = (octets: Uint8Array): Uint8Array => fromHex(keccak256(octets))
const leafOf = (client: Address): Uint8Array => hash(hash(concat(new Uint8Array(12), addressBytes(client))))
const pair = (a: Uint8Array, b: Uint8Array): Uint8Array => hash(compareBytes(a, b) <= 0 ? concat(a, b) : concat(b, a))

/** @throws `chain/empty-list` */
export function merkleTree(clients: Iterable<Address>): MerkleTree {
  const unique = [...new Set(clients)]
  if (unique.length === 0) {
    throw new IotchainError('chain/empty-list', 'a list of clients needs at least one address')
  }
  const leaves = unique.map((client) => ({ client, leaf: leafOf(client) })).sort((a, b) => compareBytes(a.leaf, b.leaf))
  const nodes: Uint8Array[] = new Array(2 * leaves.length - 1)
  const place = new Map<Address, number>()
  leaves.forEach(({ client, leaf }, i) => {
    const at = nodes.length - 1 - i
    nodes[at] = leaf
    place.set(client, at)
  })
  for (let i = nodes.length - 1 - leaves.length; i >= 0; i--) {
    nodes[i] = pair(nodes[2 * i + 1] as Uint8Array, nodes[2 * i + 2] as Uint8Array)
  }
  const hexOf = (i: number): Hex => `0x${toHex(nodes[i] as Uint8Array)}`
  return {
    root: hexOf(0),
    proofOf(client) {
      let at = place.get(client)
      if (at === undefined) {
        throw new IotchainError('chain/not-listed', `${client} is not on the list`, {
          hint: 'Use the list of addresses that the resource owner published for this offer.',
        })
      }
      const proof: Hex[] = []
      for (; at > 0; at = (at - 1) >> 1) proof.push(hexOf(at % 2 === 1 ? at + 1 : at - 1))
      return proof
    },
  }
}
