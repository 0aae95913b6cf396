/** Reads logs over a long range of blocks, in pieces that the node accepts. For people and candidates, never for decisions. */
import type { Address } from '../protocol/messages/address.ts'
import { type Rpc, RpcError } from './rpc.ts'
import type { Hex } from './types.ts'

export interface Log {
  readonly address: Address
  readonly topics: readonly Hex[]
  readonly data: Hex
  readonly block: number
  readonly blockHash: Hex
  readonly transaction: Hex
  readonly index: number
}

export interface LogQuery {
  readonly addresses: readonly Address[]
  /** as in eth_getLogs: null for "any", a list for "one of" */
  readonly topics?: readonly (Hex | readonly Hex[] | null)[]
  readonly fromBlock: number
  readonly toBlock: number
}

interface RawLog {
  readonly address: string
  readonly topics: readonly Hex[]
  readonly data: Hex
  readonly blockNumber: Hex
  readonly blockHash: Hex
  readonly transactionHash: Hex
  readonly logIndex: Hex
}

const FIRST_SPAN = 10_000

/** All logs of the range, in order. @param onProgress the last block that was read */
export async function scanLogs(rpc: Rpc, query: LogQuery, onProgress?: (block: number) => void): Promise<Log[]> {
  const found: Log[] = []
  let span = FIRST_SPAN
  for (let from = query.fromBlock; from <= query.toBlock; ) {
    const to = Math.min(query.toBlock, from + span - 1)
    try {
      found.push(...(await getLogs(rpc, { ...query, fromBlock: from, toBlock: to })))
    } catch (error) {
      // every provider has its own limit, and its own words for it
      if (!(error instanceof RpcError) || span === 1) throw error
      span = Math.max(1, span >> 1)
      continue
    }
    onProgress?.(to)
    from = to + 1
  }
  return found
}

async function getLogs(rpc: Rpc, query: LogQuery): Promise<Log[]> {
  const filter = {
    address: query.addresses,
    fromBlock: `0x${query.fromBlock.toString(16)}`,
    toBlock: `0x${query.toBlock.toString(16)}`,
    ...(query.topics && { topics: query.topics }),
  }
  return (await rpc.call<RawLog[]>('eth_getLogs', [filter])).map(toLog)
}

/** The logs of one block by its hash. */
export async function logsOfBlock(
  rpc: Rpc,
  blockHash: Hex,
  addresses: readonly Address[],
  topics?: LogQuery['topics'],
): Promise<Log[]> {
  const filter = { blockHash, address: addresses, ...(topics && { topics }) }
  return (await rpc.call<RawLog[]>('eth_getLogs', [filter])).map(toLog)
}

function toLog(raw: RawLog): Log {
  return {
    address: raw.address.toLowerCase() as Address,
    topics: raw.topics,
    data: raw.data,
    block: Number(raw.blockNumber),
    blockHash: raw.blockHash,
    transaction: raw.transactionHash,
    index: Number(raw.logIndex),
  }
}
