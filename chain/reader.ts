/**
 * What a decision reads from the chain, always pinned to one block hash (`requireCanonical`), never from events and
 * never at an old height: IoTChain §III-C. A head is handed out only while the node is fit to be believed.
 */

import type { Abi } from 'abitype'
import { fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { deviceRegistryAbi } from './abi.ts'
import { keccak256, recoverAddress } from './account.ts'
import type { Answer, CallArgs, Codec, Names } from './codec.ts'
import { deviceRegistry } from './contracts.ts'
import { type ChainDescriptor, checkAgainst } from './descriptor.ts'
import { HeadSource, notRegistry } from './head.ts'
import { StateProofs } from './proof.ts'
import { revertError } from './revert.ts'
import { type Rpc, RpcError } from './rpc.ts'
import { decodeTokensOf, encodeTokensOf } from './token-codec.ts'
import type { Confirmations, DeviceEntry, Head, Hex, Token } from './types.ts'
import type { ChainView } from './view.ts'

export interface ChainReaderOptions {
  readonly rpc: Rpc
  readonly chainId: number
  /** address of the DeviceRegistry */
  readonly registry: Address
  readonly confirmations: Confirmations
  /** A head older than this by the own clock is refused; default 180, more than three block times. */
  readonly maxHeadAgeSeconds?: number
  /** Fewer peers than this are refused; default 0 (anvil has none and does not count them). */
  readonly expectPeers?: number
  /** The own clock, unix milliseconds. */
  readonly nowMs?: () => number
  /** Read tokens, registry entries and code hashes by storage proofs (EIP-1186) instead of calls; default false. */
  readonly proofs?: boolean
  /** What the chain has to look like; checked before the first head and after every failure. */
  readonly descriptor?: ChainDescriptor | undefined
  /** What else has to hold of the node, checked at the same moments (instead of `descriptor`). */
  readonly verify?: (rpc: Rpc) => Promise<void>
}

/** Tokens in one call: within the 50 M gas that a geth call has by default, with room to spare. */
const CHUNK = 500
/** What the code of an account may use to judge a signature. */
const GAS_1271 = 200_000
/** How geth and anvil say that a block hash is not, or no longer, on the chain. */
const GONE = /canonical|header[a-z ]* not found|resource not found|block not found|unknown block/i
const MAGIC_1271 = '0x1626ba7e'

export class ChainReader implements ChainView {
  readonly chainId: number
  readonly registry: Address
  readonly confirmations: Confirmations
  readonly #rpc: Rpc
  readonly #heads: HeadSource
  readonly #proofs: StateProofs | undefined

  constructor(options: ChainReaderOptions) {
    this.chainId = options.chainId
    this.registry = options.registry
    this.confirmations = options.confirmations
    this.#rpc = options.rpc
    this.#proofs = options.proofs === true ? new StateProofs(options.rpc) : undefined
    const { descriptor } = options
    if (descriptor !== undefined) checkSettings(descriptor, options)
    this.#heads = new HeadSource({
      ...options,
      checkHeader: this.#proofs !== undefined,
      ...(descriptor && { verify: (rpc: Rpc) => checkAgainst(descriptor, rpc) }),
    })
  }

  head(maxAgeMs = 0): Promise<Head> {
    return this.#heads.head(maxAgeMs)
  }

  async deviceOf(device: Address, head: Head): Promise<DeviceEntry | undefined> {
    if (this.#proofs !== undefined) return (await this.devicesOf([device], head))[0]
    const data = await this.#registryCall(deviceRegistry.encode('deviceOf', [device]), head)
    return entryOf(device, deviceRegistry.decode('deviceOf', data))
  }

  async devicesOf(devices: readonly Address[], head: Head): Promise<(DeviceEntry | undefined)[]> {
    if (this.#proofs !== undefined) return this.#renamed(this.#proofs.devicesOf(this.registry, devices, head))
    const chunks = await Promise.all(
      chunksOf(devices, 100).map(async (chunk) => {
        const data = await this.#registryCall(deviceRegistry.encode('devicesOf', [chunk]), head)
        const found = deviceRegistry.decode('devicesOf', data)
        return chunk.map((device, i) => entryOf(device, found[i] as (typeof found)[number]))
      }),
    )
    return chunks.flat()
  }

  async #registryCall(data: Hex, head: Head): Promise<Hex> {
    try {
      return await this.call(this.registry, data, head)
    } catch (error) {
      if (error instanceof RpcError && /revert/i.test(error.message)) {
        throw notRegistry(this.registry, this.#rpc.name, error)
      }
      throw error
    }
  }

  async tokensOf(contract: Address, device: Address, clients: readonly Address[], head: Head): Promise<Token[]> {
    if (this.#proofs !== undefined) return this.#renamed(this.#proofs.tokensOf(contract, device, clients, head))
    const chunks = await Promise.all(
      chunksOf(clients, CHUNK).map(async (chunk) =>
        decodeTokensOf(await this.#tokensCall(contract, encodeTokensOf(chunk, device), head), chunk.length),
      ),
    )
    return chunks.flat()
  }

  /** A contract that refuses to answer grants nothing; it must not stop the reading of all others. */
  async #tokensCall(contract: Address, data: Hex, head: Head): Promise<Hex> {
    try {
      return await this.call(contract, data, head)
    } catch (error) {
      if (error instanceof RpcError && /revert/i.test(error.message)) return '0x'
      throw error
    }
  }

  async verifySignature(address: Address, digest: Uint8Array, signature: Uint8Array, head: Head): Promise<boolean> {
    if (recoverAddress(digest, signature) === address) return true
    // an account without code signs in no other way; a call would be the node's word for it
    if (this.#proofs !== undefined && (await this.codeHash(address, head)) === undefined) return false
    const length = signature.length.toString(16).padStart(64, '0')
    const padded = toHex(signature).padEnd(Math.ceil(signature.length / 32) * 64, '0')
    const data = `${MAGIC_1271}${toHex(digest)}${'40'.padStart(64, '0')}${length}${padded}` as Hex
    try {
      const answer = await this.call(address, data, head, GAS_1271)
      return answer.length >= 66 && answer.startsWith(MAGIC_1271) && /^0*$/.test(answer.slice(10, 66))
    } catch (error) {
      // a contract that reverts or loops says no; a node that is gone says nothing
      if (error instanceof RpcError) return false
      throw error
    }
  }

  async codeHash(address: Address, head: Head): Promise<string | undefined> {
    if (this.#proofs !== undefined) return this.#renamed(this.#proofs.codeHash(address, head))
    const code = await this.#pinned<Hex>('eth_getCode', [address, blockOf(head)])
    return code === '0x' ? undefined : keccak256(code)
  }

  async atHead<T>(read: (head: Head) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await read(await this.head())
      } catch (error) {
        if (!isIotchainError(error) || error.code !== 'chain/reorged' || attempt === 3) throw error
      }
    }
  }

  /** One function of one contract at `head`. @throws `chain/bad-answer`, `chain/reverted`, `chain/reorged` */
  async read<const A extends Abi, N extends Names<A>>(
    codec: Codec<A>,
    to: Address,
    name: N,
    args: CallArgs<A, N>,
    head: Head,
  ): Promise<Answer<A, N>> {
    const data = await this.call(to, codec.encode(name, args), head).catch((error: unknown) => {
      throw error instanceof RpcError && error.data !== undefined ? revertError(`reading ${name}`, error) : error
    })
    return codec.decode(name, data, (args as readonly unknown[]).length)
  }

  /** eth_call pinned to a block. @throws `chain/reorged`, `chain/unreachable`, `RpcError` */
  call(to: Address, data: Hex, head: Head, gas?: number): Promise<Hex> {
    const transaction = gas === undefined ? { to, data } : { to, data, gas: `0x${gas.toString(16)}` }
    return this.#pinned<Hex>('eth_call', [transaction, blockOf(head)])
  }

  #pinned<T>(method: string, params: readonly unknown[]): Promise<T> {
    return this.#renamed(this.#rpc.call<T>(method, params))
  }

  /** Each node has its own words for a block that is gone. */
  async #renamed<T>(reading: Promise<T>): Promise<T> {
    try {
      return await reading
    } catch (error) {
      if (error instanceof RpcError && GONE.test(error.message)) {
        throw new IotchainError('chain/reorged', 'the block that was being read is no longer part of the chain', {
          cause: error,
          retryAfterSeconds: 1,
        })
      }
      throw error
    }
  }
}

/** Settings and descriptor have to speak of the same chain. */
function checkSettings(descriptor: ChainDescriptor, { chainId, registry }: ChainReaderOptions): void {
  if (descriptor.chainId === chainId && descriptor.registry === registry) return
  throw new IotchainError(
    'chain/bad-descriptor',
    'the chain descriptor is of another chain or registry than the settings',
    {
      hint: `It names chain ${descriptor.chainId} and registry ${descriptor.registry}.`,
    },
  )
}

const blockOf = (head: Head): object => ({ blockHash: head.hash, requireCanonical: true })

function chunksOf<T>(list: readonly T[], size: number): T[][] {
  const chunks: T[][] = []
  for (let at = 0; at < list.length; at += size) chunks.push(list.slice(at, at + size))
  return chunks
}

type RegistryAnswer = Answer<typeof deviceRegistryAbi, 'deviceOf'>

function entryOf(device: Address, d: RegistryAnswer): DeviceEntry | undefined {
  if (d.changedBlock === 0n) return undefined
  return {
    device,
    owner: d.owner,
    signingKey: fromHex(d.signingKey),
    keyServer: fromHex(d.keyServer),
    contracts: d.contracts,
    uri: d.uri,
    active: d.active,
    changedBlock: Number(d.changedBlock),
    nonce: Number(d.nonce),
  }
}
