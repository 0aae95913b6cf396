/**
 * Three geth full nodes under a test's thumb: `a` mines what is sent to it, `k` is the key server's node, `b` may be held
 * back to build another branch. And on `k`'s chain: an owner, a contract, a registered device, and a key server.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from '#crypto'
import { deployIntent } from '../../chain/deployments.ts'
import { registerIntent } from '../../chain/intents.ts'
import { ChainReader } from '../../chain/reader.ts'
import { JsonRpc, type Rpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { Intent, Receipt } from '../../chain/transaction.ts'
import type { Confirmations } from '../../chain/types.ts'
import { type Account, accountFromKey } from '../../chain/wallet.ts'
import { toHex } from '../../protocol/bytes.ts'
import { thumbprint } from '../../protocol/cose/key.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { registrationDigest } from '../../protocol/messages/registration.ts'
import { ANVIL_KEYS } from '../../tools/anvil.ts'
import type { FakeChain } from '../keyserver/fake-chain.ts'
import { createWorld, TestClient, TestDevice, type World, type WorldOptions } from '../keyserver/harness.ts'
import { TestClock } from '../keyserver/test-clock.ts'
import { type Built, build, choose, give, meet, type Settled, tip, until } from './engine.ts'
import { findGeth, type GethNode, startGeth, writeGenesis } from './geth-node.ts'

export const CHAIN_ID = 20180415
const KEY_SERVER = new Uint8Array(32).fill(0xa1)

export class Network {
  readonly folder: string
  readonly genesis: string
  readonly geth: string
  readonly a: GethNode
  readonly b: GethNode
  k: GethNode
  readonly owner: Account = accountFromKey(ANVIL_KEYS[0] as string)
  readonly sender: TransactionSender
  /** the blocks of `a`'s chain that were built here, oldest first */
  readonly blocks: Built[] = []
  registry: Address = '0x'
  contract: Address = '0x'
  #held = false
  #world: World | undefined

  private constructor(folder: string, genesis: string, geth: string, nodes: readonly GethNode[]) {
    const [a, b, k] = nodes as [GethNode, GethNode, GethNode]
    this.folder = folder
    this.genesis = genesis
    this.geth = geth
    this.a = a
    this.b = b
    this.k = k
    this.sender = new TransactionSender({ rpc: a.rpc, chainId: CHAIN_ID, account: this.owner, pollMs: 20 })
  }

  static async start(): Promise<Network> {
    const found = findGeth()
    if ('skipped' in found) throw new Error(found.skipped)
    const folder = mkdtempSync(join(tmpdir(), 'ig-'))
    const genesis = writeGenesis(found.path, folder, CHAIN_ID)
    const common = { geth: found.path, folder, genesis, chainId: CHAIN_ID }
    const nodes = await Promise.all(['a', 'b', 'k'].map((name) => startGeth({ ...common, name })))
    const network = new Network(folder, genesis, found.path, nodes)
    await network.mine(1)
    network.registry = (await network.send(deployIntent({ kind: 'registry' }))).contract as Address
    const resource: Address = `0x${'dd'.repeat(20)}`
    const token = deployIntent({ kind: 'access-token', owner: network.owner.address, resource })
    network.contract = (await network.send(token)).contract as Address
    return network
  }

  async stop(): Promise<void> {
    await this.#world?.close()
    await Promise.all([this.a, this.b, this.k].map((n) => n.stop('SIGKILL')))
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Unix seconds of the newest block. */
  get time(): number {
    return this.blocks.at(-1)?.timestamp ?? 0
  }

  /** Blocks on top of `a`'s chain, for everybody who is not held back. */
  async mine(count: number, options: { wanted?: number; timestamp?: number; settled?: Settled } = {}): Promise<Built> {
    for (let i = 0; i < count; i++) {
      const built = await build(this.a, await tip(this.a), i === 0 ? options : {})
      this.blocks.push(built)
      for (const node of this.#held ? [this.a, this.k] : [this.a, this.b, this.k]) {
        if (node !== this.a) await give(node, built)
        await choose(node, built.hash, options.settled)
      }
    }
    return this.blocks.at(-1) as Built
  }

  /** Sends the owner's transaction and mines it. */
  async send(intent: Intent): Promise<Receipt> {
    const sent = this.sender.send(intent)
    await this.#arrived(1)
    await this.mine(1, { wanted: 1 })
    return sent
  }

  async #arrived(count: number): Promise<void> {
    for (let i = 0; i < 250; i++) {
      const { pending } = await this.a.rpc.call<{ pending: string }>('txpool_status')
      if (Number(pending) >= count) return
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    throw new Error('the transaction did not reach the pool')
  }

  /** From now on `b` stays where it is. */
  holdBack(): void {
    this.#held = true
  }

  /**
   * `b` builds a branch of its own on the block where it was held back, with what was sent to it, and all go over to it.
   *
   * @param conflict a transaction of the owner for the branch; it takes the place of what the other branch mined
   */
  async reorg(length: number, conflict?: Intent): Promise<void> {
    if (conflict !== undefined) {
      const sender = new TransactionSender({ rpc: this.b.rpc, chainId: CHAIN_ID, account: this.owner, pollMs: 20 })
      const sent = sender.send(conflict)
      sent.catch(() => undefined)
      for (let i = 0; i < 250; i++) {
        const { pending } = await this.b.rpc.call<{ pending: string }>('txpool_status')
        if (Number(pending) > 0) break
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
    const branch: Built[] = []
    for (let i = 0; i < length; i++) {
      const options = { extra: 7000 + i, ...(i === 0 && conflict !== undefined ? { wanted: 1 } : {}) }
      const built = await build(this.b, await tip(this.b), options)
      await choose(this.b, built.hash)
      branch.push(built)
    }
    for (const node of [this.a, this.k]) {
      for (const built of branch) await give(node, built)
      await choose(node, (branch.at(-1) as Built).hash)
    }
    this.blocks.push(...branch)
    this.#held = false
  }

  /**
   * Kills `k` in the middle of what it does, and starts it again at the same address with an empty disk: geth 1.17.8 does
   * not recover a chain of a few blocks from a SIGKILL by itself (its head's state was never written), a new disk always.
   */
  async restartK(between: () => Promise<void> = async () => undefined): Promise<void> {
    const ports = Object.fromEntries(
      [
        ['http', this.k.url],
        ['ws', this.k.url],
      ].map(([name, url]) => [name, Number(new URL(url as string).port)]),
    ) as { http: number; ws: number }
    await this.k.stop('SIGKILL')
    await between()
    rmSync(join(this.folder, 'k', 'geth'), { recursive: true, force: true })
    const { geth, folder, genesis } = this
    this.k = await startGeth({
      geth,
      folder,
      genesis,
      chainId: CHAIN_ID,
      name: 'k',
      ports: { ...ports, engine: 0, p2p: 0 },
    })
    // what a power cut took from its disk it gets from its neighbour
    await meet(this.k, this.a)
    // the network goes on meanwhile: a new head is what makes a node look for the blocks that it lacks
    const built = await build(this.a, await tip(this.a))
    this.blocks.push(built)
    await choose(this.a, built.hash)
    if (!this.#held) {
      await give(this.b, built)
      await choose(this.b, built.hash)
    }
    // as a consensus client does: first the block, then the choice; what is missing between comes from the peers
    await give(this.k, built)
    let status = ''
    await until('k has caught up', async () => {
      status = await choose(this.k, built.hash)
      return (await tip(this.k)).hash === built.hash
    }).catch(async (error: Error) => {
      const { number } = await tip(this.k)
      throw new Error(`${error.message}: it is at ${number} of ${built.number}, ${status}`)
    })
  }

  reader(
    confirmations: Confirmations,
    rpc: Rpc = new JsonRpc({ url: this.k.url, timeoutMs: 2_000 }),
    nowMs?: () => number,
    proofs = false,
  ): ChainReader {
    const { registry } = this
    return new ChainReader({ rpc, chainId: CHAIN_ID, registry, confirmations, proofs, ...(nowMs && { nowMs }) })
  }

  /** A key server that believes `k`, and a device that is registered and joined. */
  async keyServer(
    confirmations: Confirmations,
    options: { rpc?: Rpc; proofs?: boolean; number?: number } & Pick<WorldOptions, 'candidates' | 'readAllBelow'> = {},
  ): Promise<{ world: World; device: TestDevice; clock: TestClock }> {
    await this.#world?.close()
    const clock = new TestClock(this.time)
    const reader = this.reader(confirmations, options.rpc, () => clock.nowMs(), options.proofs)
    const chain = Object.assign(reader, { mine: () => undefined }) as unknown as FakeChain
    const world = await createWorld({
      clock,
      chain: () => chain,
      candidates: options.candidates,
      ...(options.readAllBelow !== undefined && { readAllBelow: options.readAllBelow }),
      config: {
        owners: [this.owner.address],
        chain: { rpcUrl: this.k.url, id: CHAIN_ID, registry: this.registry, confirmations },
      },
    })
    this.#world = world
    const device = await TestDevice.create(world, options.number ?? 1, { register: false })
    await this.#register(device)
    await this.mine(4)
    clock.pass(Math.max(0, this.time - clock.seconds))
    return { world, device, clock }
  }

  client(world: World, number: number): TestClient {
    return new TestClient(world, number)
  }

  async #register(device: TestDevice): Promise<void> {
    const reader = this.reader(0)
    if ((await reader.atHead((h) => reader.deviceOf(device.address, h))) !== undefined) return
    await this.send(registrationOf(device, this.owner.address, this.registry, this.contract))
  }
}

/** The transaction by which an owner registers a device of the key server's harness. */
export function registrationOf(device: TestDevice, owner: Address, registry: Address, contract: Address): Intent {
  const r = {
    device: device.octets,
    owner: addressBytes(owner),
    signingKey: thumbprint(suite, device.coseKey),
    keyServer: KEY_SERVER,
    nonce: 0,
    deadline: 2 ** 40,
  }
  const domain = { chainId: CHAIN_ID, registry: addressBytes(registry) }
  const deviceSig = accountFromKey(toHex(device.seed)).signDigest(registrationDigest(domain, r))
  return registerIntent(registry, { ...r, device: device.address, owner, uri: '', deviceSig }, [contract], '')
}
