/**
 * Merkle Patricia tries (EIP-1186): the value of a key under a root, from the trie nodes that somebody shows. Each is
 * checked against the hash that refers to it before it is decoded.
 */
import { decodeRlp, type RlpStructuredData } from 'ethers'
import { fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { keccak256 } from './account.ts'
import type { Hex } from './types.ts'

const EMPTY_ROOT: Hex = '0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421'
/** Nodes on one path: 64 nibbles and the root. */
const MAX_PROOF = 65
/** A branch has 16 hashes and a value: 532 octets and the value, which is a slot or an account. */
const MAX_NODE = 2 * 2048

/** Branches that were checked already, by their hash: those near the root stand in every proof. */
export type KnownNodes = Map<string, RlpStructuredData>
/** 2 kB each. */
const MAX_KNOWN = 2000

/**
 * The value of a key, undefined if the proof shows that there is none.
 *
 * @param key is hashed first, as in Ethereum's tries
 * @throws `chain/bad-proof`
 */
export function readTrie(
  root: Hex,
  key: Uint8Array,
  proof: unknown,
  known: KnownNodes = new Map(),
): Uint8Array | undefined {
  if (!Array.isArray(proof) || proof.length > MAX_PROOF) throw badProof('is no list of trie nodes')
  if (root === EMPTY_ROOT) return undefined
  const path = keccak256(key).slice(2)
  let at = 0
  let expected: RlpStructuredData = root
  let next = 0
  for (;;) {
    let node: RlpStructuredData = expected
    if (typeof expected === 'string') {
      node = known.get(expected) ?? checkedNode(proof[next], expected, known)
      next++
    }
    // a node shorter than its hash stands in its parent
    if (!Array.isArray(node)) throw badProof('has a node that is none')
    if (node.length === 17) {
      if (at === path.length) return itemOf(node[16])
      const child: RlpStructuredData = node[Number.parseInt(path[at] as string, 16)] as RlpStructuredData
      at++
      if (child === '0x') return undefined
      expected = child
    } else if (node.length === 2 && typeof node[0] === 'string') {
      const { nibbles, leaf } = compactPath(node[0])
      if (!path.startsWith(nibbles, at)) return undefined
      at += nibbles.length
      if (leaf) return at === path.length ? itemOf(node[1]) : undefined
      expected = node[1] as RlpStructuredData
    } else throw badProof('has a node that is none')
  }
}

/** One RLP item. @throws `chain/bad-proof` */
export function decodeItem(raw: Hex): RlpStructuredData {
  try {
    return decodeRlp(raw)
  } catch (cause) {
    throw new IotchainError('chain/bad-proof', 'the storage proof has a node that is no RLP', { cause })
  }
}

/** A slot's word; 0 where the trie has nothing. @throws `chain/bad-proof` */
export function wordOf(value: Uint8Array | undefined): bigint {
  if (value === undefined) return 0n
  const item = decodeItem(`0x${toHex(value)}`)
  if (typeof item !== 'string' || item.length > 66) throw badProof('has a value that is none')
  return item === '0x' ? 0n : BigInt(item)
}

export function badProof(why: string): IotchainError {
  return new IotchainError('chain/bad-proof', `the storage proof of the node ${why}`, {
    hint: 'The node is broken or lies: use another one.',
    retryAfterSeconds: 60,
  })
}

function checkedNode(raw: unknown, hash: string, known: KnownNodes): RlpStructuredData {
  if (!isNode(raw) || keccak256(raw) !== hash) throw badProof('has a node that does not hash to its reference')
  const node = decodeItem(raw)
  if (Array.isArray(node) && node.length === 17) {
    if (known.size >= MAX_KNOWN) known.clear()
    known.set(hash, node)
  }
  return node
}

function isNode(raw: unknown): raw is Hex {
  return typeof raw === 'string' && raw.length <= MAX_NODE && raw.length % 2 === 0 && /^0x[0-9a-f]*$/i.test(raw)
}

/** Hex-prefix encoding of a path: first nibble 0 or 1 extension, 2 or 3 leaf; odd: the second belongs to the path. */
function compactPath(text: string): { nibbles: string; leaf: boolean } {
  const flag = Number.parseInt(text[2] ?? '', 16)
  if (!(flag >= 0 && flag <= 3)) throw badProof('has a path that is none')
  return { nibbles: text.slice(flag % 2 === 1 ? 3 : 4), leaf: flag >= 2 }
}

function itemOf(value: RlpStructuredData | undefined): Uint8Array | undefined {
  if (typeof value !== 'string') throw badProof('has a value that is none')
  return value === '0x' ? undefined : fromHex(value)
}
