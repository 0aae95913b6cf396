/**
 * Storage proofs (EIP-1186): tokens, registry entries and code hashes as they stand under a block hash, whatever the node
 * would like to say. The header is checked against the hash before its state root is used, each node of the tries before
 * it is decoded. With the head agreed upon by several nodes, one of them is enough to read from.
 */
import { fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { isGenuine } from './header.ts'
import { type Rpc, RpcError } from './rpc.ts'
import { deviceIn, deviceSlots, furtherSlots, tokenIn, tokenSlot } from './slots.ts'
import { badProof, decodeItem, type KnownNodes, readTrie, wordOf } from './trie.ts'
import type { DeviceEntry, Head, Hex, Token } from './types.ts'

/** Slots in one request: each brings up to a dozen trie nodes, about 8 kB of JSON in a large contract. */
const CHUNK = 100
/** Devices in one request: eight slots each. */
const DEVICES = 12
/** Requests under way: together they have to be answered within the time of one exchange, by a slow node too. */
const WIDTH = 4
/** State roots remembered; a decision reads under one or two heads. */
const ROOTS = 4
/** JSON-RPC: method not found, invalid params (a node that takes no block hash here). */
const UNKNOWN: readonly number[] = [-32601, -32602]
/** keccak-256 of nothing: an account without code. */
const NO_CODE: Hex = '0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470'

interface Proven {
  /** undefined: there is no such account */
  readonly codeHash: Hex | undefined
  /** the words of the slots, in the order asked */
  readonly words: readonly bigint[]
}

export class StateProofs {
  readonly #rpc: Rpc
  readonly #roots = new Map<Hex, Promise<Hex>>()
  readonly #known: KnownNodes = new Map()
  #under = 0
  readonly #queue: (() => void)[] = []

  constructor(rpc: Rpc) {
    this.#rpc = rpc
  }

  /**
   * The tokens of clients for a device in a contract, in the order asked.
   * @throws `chain/bad-proof`, `chain/reorged`, `chain/no-proofs`, and what the node answers
   */
  async tokensOf(contract: Address, device: Address, clients: readonly Address[], head: Head): Promise<Token[]> {
    const slots = clients.map((client) => tokenSlot(client, device))
    const chunks: Promise<Proven>[] = []
    for (let at = 0; at < slots.length; at += CHUNK) {
      chunks.push(this.#prove(contract, slots.slice(at, at + CHUNK), head))
    }
    return (await Promise.all(chunks)).flatMap(({ words }) => words.map(tokenIn))
  }

  /** The registry's entries, in the order asked; undefined where a device was never registered. @throws as above */
  async devicesOf(registry: Address, devices: readonly Address[], head: Head): Promise<(DeviceEntry | undefined)[]> {
    const chunks: Promise<(DeviceEntry | undefined)[]>[] = []
    for (let at = 0; at < devices.length; at += DEVICES) {
      chunks.push(this.#devices(registry, devices.slice(at, at + DEVICES), head))
    }
    return (await Promise.all(chunks)).flat()
  }

  /** keccak-256 of an account's code; undefined where there is none. @throws as above */
  async codeHash(address: Address, head: Head): Promise<Hex | undefined> {
    const { codeHash } = await this.#prove(address, [], head)
    return codeHash === NO_CODE ? undefined : codeHash
  }

  async #devices(registry: Address, devices: readonly Address[], head: Head): Promise<(DeviceEntry | undefined)[]> {
    const slots = devices.map(deviceSlots)
    const first = takeApart((await this.#prove(registry, slots.flat(), head)).words, slots)
    const further = devices.map((device, i) => furtherSlots(device, first[i] as bigint[]))
    const more = takeApart(await this.#words(registry, further.flat(), head), further)
    return devices.map((device, i) => deviceIn(device, first[i] as bigint[], more[i] as bigint[]))
  }

  async #words(contract: Address, slots: readonly Hex[], head: Head): Promise<bigint[]> {
    const words: bigint[] = []
    for (let at = 0; at < slots.length; at += CHUNK) {
      words.push(...(await this.#prove(contract, slots.slice(at, at + CHUNK), head)).words)
    }
    return words
  }

  async #prove(contract: Address, slots: readonly Hex[], head: Head): Promise<Proven> {
    if (this.#under >= WIDTH) await new Promise<void>((resolve) => this.#queue.push(resolve))
    else this.#under++
    try {
      const root = await this.#stateRoot(head)
      const pin = { blockHash: head.hash, requireCanonical: true }
      return await asked(this.#rpc, 'eth_getProof', [contract, slots, pin], (answer) =>
        proven(root, contract, slots, answer, this.#known),
      )
    } finally {
      const next = this.#queue.shift()
      if (next === undefined) this.#under--
      else next()
    }
  }

  #stateRoot(head: Head): Promise<Hex> {
    let root = this.#roots.get(head.hash)
    if (root === undefined) {
      root = asked(this.#rpc, 'eth_getBlockByHash', [head.hash, false], (block) => rootOf(block, head))
      if (this.#roots.size >= ROOTS) this.#roots.delete(this.#roots.keys().next().value as Hex)
      this.#roots.set(head.hash, root)
      root.catch(() => this.#roots.delete(head.hash))
    }
    return root
  }
}

/** Asks for something that proves itself: of several nodes the first will do whose answer passes. */
async function asked<T>(
  rpc: Rpc,
  method: string,
  params: readonly unknown[],
  check: (answer: unknown) => T,
): Promise<T> {
  const safely = (answer: unknown): T => {
    try {
      return check(answer)
    } catch (error) {
      throw isIotchainError(error) ? error : badProof('makes no sense')
    }
  }
  try {
    if (rpc.checked !== undefined) return await rpc.checked(method, params, safely)
    return safely(await rpc.call<unknown>(method, params))
  } catch (error) {
    if (!(error instanceof RpcError) || method !== 'eth_getProof' || !UNKNOWN.includes(error.rpcCode)) throw error
    throw new IotchainError('chain/no-proofs', `the node at ${rpc.name} gives no storage proofs (eth_getProof)`, {
      hint: 'Use a node that serves eth_getProof for a block hash (geth, Nethermind, Besu do), or set chain.proofs: false.',
      cause: error,
      retryAfterSeconds: 60,
    })
  }
}

function rootOf(block: unknown, head: Head): Hex {
  if (block === null) {
    throw new IotchainError('chain/reorged', 'the block that was being read is no longer part of the chain', {
      retryAfterSeconds: 1,
    })
  }
  if (!isGenuine(block) || block['hash'] !== head.hash) throw badProof('has a header that does not hash to the block')
  return block['stateRoot'] as Hex
}

/** @throws `chain/bad-proof` */
function proven(stateRoot: Hex, contract: Address, slots: readonly Hex[], answer: unknown, known: KnownNodes): Proven {
  const { accountProof, storageProof } = (answer ?? {}) as { accountProof?: unknown; storageProof?: unknown }
  const account = readTrie(stateRoot, addressBytes(contract), accountProof, known)
  // no such account: nothing stands in it
  if (account === undefined) return { codeHash: undefined, words: slots.map(() => 0n) }
  const { storageRoot, codeHash } = accountOf(account)
  const items = Array.isArray(storageProof) ? (storageProof as ({ proof?: unknown } | null)[]) : []
  const words = slots.map((slot, i) => wordOf(readTrie(storageRoot, fromHex(slot), items[i]?.proof, known)))
  return { codeHash, words }
}

/** An account in the state trie: nonce, balance, storage root, code hash. */
function accountOf(account: Uint8Array): { storageRoot: Hex; codeHash: Hex } {
  const fields = decodeItem(`0x${toHex(account)}`)
  const [, , storageRoot, codeHash] = Array.isArray(fields) ? fields : []
  if (typeof storageRoot !== 'string' || typeof codeHash !== 'string') throw badProof('has an account that is none')
  return { storageRoot: storageRoot as Hex, codeHash: codeHash as Hex }
}

/** Splits a flat list as the lists that it was made of. */
function takeApart(words: readonly bigint[], lists: readonly (readonly unknown[])[]): bigint[][] {
  let at = 0
  return lists.map((list) => {
    const from = at
    at += list.length
    return words.slice(from, at)
  })
}
