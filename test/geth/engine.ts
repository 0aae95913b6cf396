/**
 * Builds blocks on geth through the Engine API. This is a test harness, not a consensus protocol: whoever holds the
 * secret decides what the chain is, which is exactly what tests of reorgs and finality need.
 */
import type { Hex } from '../../chain/types.ts'
import type { GethNode } from './geth-node.ts'

interface ExecutionPayload {
  readonly blockHash: Hex
  readonly blockNumber: Hex
  readonly timestamp: Hex
  readonly transactions: readonly Hex[]
}

export interface Built {
  readonly payload: ExecutionPayload
  readonly requests: readonly Hex[]
  readonly hash: Hex
  readonly number: number
  readonly timestamp: number
}

const ZERO: Hex = `0x${'00'.repeat(32)}`
const hex = (n: number): Hex => `0x${n.toString(16)}`
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export interface Settled {
  readonly safe?: Hex
  readonly finalized?: Hex
}

/**
 * Builds a block on `parent`, from the transaction pool of `builder`, and gives it to that node only.
 *
 * @param wanted waits until so many transactions are in (they arrive in the pool a moment after they were sent)
 */
export async function build(
  builder: GethNode,
  parent: { hash: Hex; timestamp: number },
  options: { wanted?: number; timestamp?: number; extra?: number } = {},
): Promise<Built> {
  const timestamp = options.timestamp ?? Math.max(parent.timestamp + 1, Math.floor(Date.now() / 1000))
  for (let attempt = 0; ; attempt++) {
    const { payloadId } = await builder.engine<{ payloadId: Hex | null }>('engine_forkchoiceUpdatedV3', [
      { headBlockHash: parent.hash, safeBlockHash: ZERO, finalizedBlockHash: ZERO },
      {
        timestamp: hex(timestamp),
        prevRandao: `0x${(options.extra ?? attempt).toString(16).padStart(64, '0')}`,
        suggestedFeeRecipient: `0x${'fe'.repeat(20)}`,
        withdrawals: [],
        parentBeaconBlockRoot: ZERO,
      },
    ])
    if (payloadId === null) throw new Error(`${builder.name} builds nothing on ${parent.hash}: is it an old block?`)
    await pause(options.wanted === undefined ? 30 : 120)
    const { executionPayload: payload, executionRequests: requests } = await builder.engine<{
      executionPayload: ExecutionPayload
      executionRequests: Hex[]
    }>('engine_getPayloadV5', [payloadId])
    if (payload.transactions.length < (options.wanted ?? 0) && attempt < 20) continue
    const built = { payload, requests, hash: payload.blockHash, number: Number(payload.blockNumber), timestamp }
    await give(builder, built)
    return built
  }
}

/** Hands a block to a node; it is known then, but not yet part of its chain. */
export async function give(node: GethNode, block: Built): Promise<void> {
  const { status } = await node.engine<{ status: string }>('engine_newPayloadV4', [
    block.payload,
    [],
    ZERO,
    block.requests,
  ])
  if (status === 'INVALID') throw new Error(`${node.name} calls block ${block.number} invalid`)
}

/** Makes a block the head of a node's chain: with blocks it knows at once, else by syncing them from its peers. */
export async function choose(node: GethNode, head: Hex, settled: Settled = {}): Promise<string> {
  const state = {
    headBlockHash: head,
    safeBlockHash: settled.safe ?? ZERO,
    finalizedBlockHash: settled.finalized ?? ZERO,
  }
  const { payloadStatus } = await node.engine<{ payloadStatus: { status: string } }>('engine_forkchoiceUpdatedV3', [
    state,
    null,
  ])
  if (payloadStatus.status === 'INVALID') throw new Error(`${node.name} refuses ${head}`)
  return payloadStatus.status
}

/** Connects two nodes. */
export async function meet(node: GethNode, other: GethNode): Promise<void> {
  await node.rpc.call('admin_addPeer', [other.enode])
  await until(
    `${node.name} meets ${other.name}`,
    async () => (await node.rpc.call<unknown[]>('admin_peers')).length > 0,
  )
}

/** The chain that a node has, as a place to build on. */
export async function tip(node: GethNode): Promise<{ hash: Hex; number: number; timestamp: number }> {
  const b = await node.rpc.call<{ hash: Hex; number: Hex; timestamp: Hex }>('eth_getBlockByNumber', ['latest', false])
  return { hash: b.hash, number: Number(b.number), timestamp: Number(b.timestamp) }
}

/** Waits until something is so, at most `ms`. */
export async function until(what: string, probe: () => Promise<boolean>, ms = 30_000): Promise<void> {
  const end = Date.now() + ms
  while (!(await probe().catch(() => false))) {
    if (Date.now() > end) throw new Error(`it did not happen within ${ms} ms: ${what}`)
    await pause(50)
  }
}
