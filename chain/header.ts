/** Block headers as JSON-RPC shows them, and the hash that binds them: what a node says of a block is checked, not believed. */
import { encodeRlp } from 'ethers'
import { keccak256 } from './account.ts'
import type { Hex } from './types.ts'

export type RawHeader = Readonly<Record<string, unknown>>

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
  'blockAccessListHash',
  'slotNumber',
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
  'slotNumber',
]
const HEX = /^0x[0-9a-f]*$/i
/** `extraData` of Clique grows with its signers; nothing else is long. */
const MAX_FIELD = 65_536

/** keccak-256 of the RLP of a header; undefined for what is no header at all. */
export function headerHash(block: RawHeader): Hex | undefined {
  const fields: Hex[] = []
  for (const name of HEADER) {
    const value = block[name]
    if (value === undefined || value === null) break
    if (typeof value !== 'string' || value.length > MAX_FIELD || !HEX.test(value)) return undefined
    if (QUANTITIES.includes(name)) fields.push(quantity(value))
    else if (value.length % 2 === 1) return undefined
    else fields.push(value as Hex)
  }
  return keccak256(encodeRlp(fields) as Hex)
}

/** RLP writes integers without leading zeros, and zero as nothing. */
function quantity(value: string): Hex {
  const digits = value.slice(2).replace(/^0+/, '')
  return digits === '' ? '0x' : `0x${digits.length % 2 === 1 ? '0' : ''}${digits}`
}

/** True if what a node shows of a block hashes to the hash that it gives for it. */
export function isGenuine(block: unknown): block is RawHeader {
  if (typeof block !== 'object' || block === null) return false
  const { hash } = block as { hash?: unknown }
  return typeof hash === 'string' && headerHash(block as RawHeader) === hash
}
