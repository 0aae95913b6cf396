/**
 * Storage proofs (EIP-1186): a token as it stands under a block hash, whatever the node would like to say. The header is
 * checked against the hash before its state root is used, each node of the tries before it is decoded. With the head agreed
 * upon by several nodes, one of them is enough to read from.
 */
import { decodeRlp, encodeRlp, type RlpStructuredData } from 'ethers'
import { concat, fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { keccak256 } from './account.ts'
import { TOKENS_SLOT } from './bytecode.ts'
import type { Rpc } from './rpc.ts'
import { type Head, type Hex, NO_TOKEN, type Token } from './types.ts'

/** The fields of a header in the order in which they are hashed; each fork appended some. */
const HEADER = [
  'parentHash',
  'sha3Uncles',
  'miner',
  'stateRoot',
  'transactionsRoot',
  'receiptsRoot',
  'logsBloom',
  'difficulty',
  'number',
  'gasLimit',
  'gasUsed',
  'timestamp',
  'extraData',
  'mixHash',
  'nonce',
  'baseFeePerGas',
  'withdrawalsRoot',
  'blobGasUsed',
  'excessBlobGas',
  'parentBeaconBlockRoot',
  'requestsHash',
] as const
const QUANTITIES: readonly string[] = [
  'difficulty',
  'number',
  'gasLimit',
  'gasUsed',
  'timestamp',
  'baseFeePerGas',
  'blobGasUsed',
  'excessBlobGas',
]

interface RawProof {
  readonly accountProof: readonly Hex[]
  readonly storageProof: readonly { readonly key: string; readonly proof: readonly Hex[] }[]
}

/** Slots in one request: each brings up to a dozen trie nodes. */
const CHUNK = 100

/**
 * The tokens of clients for a device in a contract, proven under `head.hash`.
 *
 * @throws `chain/bad-proof`, and what the node answers
 */
export async function provenTokens(
  rpc: Rpc,
  contract: Address,
  device: Address,
  clients: readonly Address[],
  head: Head,
): Promise<Token[]> {
  const stateRoot = await provenStateRoot(rpc, head)
  const tokens: Token[] = []
  for (let at = 0; at < clients.length; at += CHUNK) {
    const slots = clients.slice(at, at + CHUNK).map((client) => tokenSlot(client, device))
    const proof = await rpc.call<RawProof>('eth_getProof', [
      contract,
      slots,
      { blockHash: head.hash, requireCanonical: true },
    ])
    const account = readTrie(stateRoot, addressBytes(contract), proof.accountProof)
    const storageRoot = account === undefined ? undefined : storageRootOf(account)
    slots.forEach((slot, i) => {
      const item = proof.storageProof[i]
      // no such contract: nothing stands in it
      if (storageRoot === undefined) tokens.push(NO_TOKEN)
      else if (item === undefined) throw bad('lacks a slot')
      else tokens.push(tokenOf(readTrie(storageRoot, fromHex(slot), item.proof)))
    })
  }
  return tokens
}

/** Slot of _tokens[client][device] (Solidity's layout of nested mappings). */
export function tokenSlot(client: Address, device: Address): Hex {
  const word = (octets: Uint8Array): Uint8Array => concat(new Uint8Array(32 - octets.length), octets)
  const outer = keccak256(concat(word(addressBytes(client)), word(Uint8Array.of(TOKENS_SLOT))))
  return keccak256(concat(word(addressBytes(device)), fromHex(outer)))
}

async function provenStateRoot(rpc: Rpc, head: Head): Promise<Hex> {
  const block = await rpc.call<Record<string, Hex | undefined> | null>('eth_getBlockByHash', [head.hash, false])
  if (block === null) {
    throw new IotchainError('chain/reorged', 'the block that was being read is no longer part of the chain', {
      retryAfterSeconds: 1,
    })
  }
  if (headerHash(block) !== head.hash) throw bad('has a header that does not hash to the block')
  return block['stateRoot'] as Hex
}

/** keccak-256 of the RLP of a header as JSON-RPC shows it. */
export function headerHash(block: Readonly<Record<string, Hex | undefined>>): Hex {
  const fields: Hex[] = []
  for (const name of HEADER) {
    const value = block[name]
    if (value === undefined || value === null) break
    fields.push(QUANTITIES.includes(name) ? quantity(value) : value)
  }
  return keccak256(encodeRlp(fields) as Hex)
}

/** RLP writes integers without leading zeros, and zero as nothing. */
function quantity(value: Hex): Hex {
  const digits = BigInt(value).toString(16)
  return value === '0x0' || digits === '0' ? '0x' : `0x${digits.length % 2 === 1 ? '0' : ''}${digits}`
}

/**
 * The value of a key in a Merkle Patricia trie, undefined if the proof shows that there is none.
 *
 * @param key is hashed first, as in Ethereum's tries
 * @throws `chain/bad-proof`
 */
export function readTrie(root: Hex, key: Uint8Array, proof: readonly Hex[]): Uint8Array | undefined {
  const path = keccak256(key).slice(2)
  if (root === EMPTY_ROOT) return undefined
  let at = 0
  let expected: Hex | RlpStructuredData = root
  let next = 0
  for (;;) {
    let node: RlpStructuredData
    if (typeof expected === 'string' && expected.length === 66) {
      const raw: Hex | undefined = proof[next++]
      if (raw === undefined || keccak256(raw) !== expected) throw bad('has a node that does not hash to its reference')
      node = decoded(raw)
    } else {
      // a node shorter than its hash stands in its parent
      node = expected
    }
    if (!Array.isArray(node)) throw bad('has a node that is none')
    if (node.length === 17) {
      if (at === path.length) return itemOf(node[16])
      const child: RlpStructuredData = node[Number.parseInt(path[at] as string, 16)] as RlpStructuredData
      at++
      if (child === '0x') return undefined
      expected = child as Hex
    } else if (node.length === 2 && typeof node[0] === 'string') {
      const { nibbles, leaf } = compactPath(node[0])
      if (!path.startsWith(nibbles, at)) return undefined
      at += nibbles.length
      if (leaf) return at === path.length ? itemOf(node[1]) : undefined
      expected = node[1] as Hex
    } else throw bad('has a node that is none')
  }
}

const EMPTY_ROOT: Hex = '0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421'

function decoded(raw: Hex): RlpStructuredData {
  try {
    return decodeRlp(raw)
  } catch (cause) {
    throw new IotchainError('chain/bad-proof', 'the storage proof has a node that is no RLP', { cause })
  }
}

/** Hex-prefix encoding of a path: first nibble 0 or 1 extension, 2 or 3 leaf; odd: the second belongs to the path. */
function compactPath(text: string): { nibbles: string; leaf: boolean } {
  const flag = Number.parseInt(text[2] ?? '', 16)
  if (!(flag >= 0 && flag <= 3)) throw bad('has a path that is none')
  return { nibbles: text.slice(flag % 2 === 1 ? 3 : 4), leaf: flag >= 2 }
}

function itemOf(value: RlpStructuredData | undefined): Uint8Array | undefined {
  if (typeof value !== 'string') throw bad('has a value that is none')
  return value === '0x' ? undefined : fromHex(value)
}

function storageRootOf(account: Uint8Array): Hex {
  const fields = decoded(`0x${toHex(account)}`)
  const root = Array.isArray(fields) ? fields[2] : undefined
  if (typeof root !== 'string' || root.length !== 66) throw bad('has an account that is none')
  return root as Hex
}

/** The one slot of a token: issuedAt, expiresAt, claims, grantBlock, serial from the low end. */
function tokenOf(value: Uint8Array | undefined): Token {
  if (value === undefined) return NO_TOKEN
  const item = decoded(`0x${toHex(value)}`)
  if (typeof item !== 'string' || item.length > 66) throw bad('has a value that is none')
  const word = item === '0x' ? 0n : BigInt(item)
  const part = (shift: bigint, bits: bigint): number => {
    const n = (word >> shift) & ((1n << bits) - 1n)
    return Number(n > BigInt(Number.MAX_SAFE_INTEGER) ? BigInt(Number.MAX_SAFE_INTEGER) : n)
  }
  return {
    issuedAt: part(0n, 64n),
    expiresAt: part(64n, 64n),
    claims: part(128n, 32n),
    grantBlock: part(160n, 64n),
    serial: part(224n, 32n),
  }
}

function bad(why: string): IotchainError {
  return new IotchainError('chain/bad-proof', `the storage proof of the node ${why}`, {
    hint: 'The node is broken or lies: use another one.',
    retryAfterSeconds: 60,
  })
}
