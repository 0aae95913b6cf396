/**
 * What the logs are good for: finding who may have changed since the last block that was looked at, and who took a
 * token back. They never decide; a node that keeps them back delays a revocation to the next session, no longer.
 */
import { accessToken, deviceRegistry } from '../chain/contracts.ts'
import { type Log, logsOfBlock, scanLogs } from '../chain/logs.ts'
import type { Rpc } from '../chain/rpc.ts'
import type { Head, Hex } from '../chain/types.ts'
import type { Address } from '../protocol/messages/address.ts'

/** Blocks remembered, and looked back: as far as a node keeps old state. */
const RING = 128

/** The clients of a device whose tokens may have changed; `all`: its registry entry too. */
export type Candidates = Map<Address, Set<Address> | 'all'>

interface Processed {
  readonly number: number
  readonly hash: Hex
  readonly named: Candidates
}

interface RawBlock {
  readonly number: Hex
  readonly hash: Hex
  readonly parentHash: Hex
}

export class ChainLogs {
  readonly #rpc: Rpc
  readonly #registry: Address
  /** newest last; each the parent of the next */
  #ring: Processed[] = []

  constructor(rpc: Rpc, registry: Address) {
    this.#rpc = rpc
    this.#registry = registry
  }

  /**
   * Who is named in the blocks that are new since the last call, or were replaced since.
   * @returns undefined when that cannot be told: the first call, or a gap of more than 128 blocks
   */
  async since(head: Head): Promise<Candidates | undefined> {
    const known = new Map(this.#ring.map((b) => [b.hash, b]))
    const fresh: { number: number; hash: Hex }[] = []
    let hash = head.hash
    let number = head.number
    let parent = head.parentHash
    while (!known.has(hash) && fresh.length < RING) {
      fresh.unshift({ number, hash })
      if (known.has(parent) || number === 0) break
      const block = await this.#rpc.call<RawBlock | null>('eth_getBlockByHash', [parent, false])
      if (block === null) break
      hash = block.hash
      number = Number(block.number)
      parent = block.parentHash
    }
    const joint = known.get(parent) ?? known.get(hash)
    const replaced = joint === undefined ? [] : this.#ring.filter((b) => b.number > joint.number)
    const processed = await Promise.all(fresh.map((b) => this.#process(b)))
    const kept = joint === undefined ? [] : this.#ring.filter((b) => b.number <= joint.number)
    this.#ring = [...kept, ...processed].slice(-RING)
    return joint === undefined ? undefined : union([...replaced, ...processed].map((b) => b.named))
  }

  /** True if the log says that the client itself brought its token to this serial by taking it back. */
  async revokedBySelf(
    contract: Address,
    device: Address,
    client: Address,
    serial: number,
    head: Head,
  ): Promise<boolean> {
    const logs = await scanLogs(this.#rpc, {
      addresses: [contract],
      topics: [accessToken.topic('TokenRevoked'), word(client), word(device)],
      fromBlock: Math.max(0, head.number - RING),
      toBlock: head.number,
    })
    const last = logs.at(-1)
    if (last === undefined) return false
    const decoded = accessToken.decodeLog(last.topics, last.data)
    return Number(decoded?.args['serial']) === serial && addressOf(last.topics[3]) === client
  }

  async #process(block: { number: number; hash: Hex }): Promise<Processed> {
    const tokens = ['TokenGranted', 'TokenRevoked'].map((e) => accessToken.topic(e))
    const entries = ['DeviceRegistered', 'DeviceUpdated', 'DeviceTransferred', 'DeviceDeactivated'].map((e) =>
      deviceRegistry.topic(e),
    )
    // Without addresses: a device may have any contract, and a log that is none of ours only costs a reading.
    const logs = await logsOfBlock(this.#rpc, block.hash, [], [[...tokens, ...entries]])
    const named: Candidates = new Map()
    for (const log of logs) this.#name(named, log, entries)
    return { ...block, named }
  }

  #name(named: Candidates, log: Log, entries: readonly Hex[]): void {
    const first = addressOf(log.topics[1])
    const second = addressOf(log.topics[2])
    if (first === undefined) return
    if (entries.includes(log.topics[0] as Hex)) {
      if (log.address === this.#registry) named.set(first, 'all')
      return
    }
    if (second === undefined || named.get(second) === 'all') return
    const clients = (named.get(second) as Set<Address> | undefined) ?? new Set<Address>()
    named.set(second, clients.add(first))
  }
}

function union(parts: readonly Candidates[]): Candidates {
  const all: Candidates = new Map()
  for (const part of parts) {
    for (const [device, clients] of part) {
      const before = all.get(device)
      if (clients === 'all' || before === 'all') all.set(device, 'all')
      else all.set(device, new Set([...(before ?? []), ...clients]))
    }
  }
  return all
}

function word(address: Address): Hex {
  return `0x${address.slice(2).padStart(64, '0')}`
}

function addressOf(topic: Hex | undefined): Address | undefined {
  return topic === undefined ? undefined : `0x${topic.slice(26)}`
}
