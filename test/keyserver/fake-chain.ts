/** A chain in memory for tests of everything but the chain: blocks, devices, tokens, all set by hand. */
import { recoverAddress } from '../../chain/account.ts'
import { accessTokenCode } from '../../chain/bytecode.ts'
import { type DeviceEntry, type Head, NO_TOKEN, type Token } from '../../chain/types.ts'
import type { ChainView } from '../../chain/view.ts'
import { IotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import type { TestClock } from './test-clock.ts'

export class FakeChain implements ChainView {
  readonly chainId = 20180415
  readonly registry: Address = `0x${'11'.repeat(20)}`
  readonly devices = new Map<Address, DeviceEntry>()
  readonly tokens = new Map<string, Token>()
  readonly #clock: TestClock
  number = 100
  away = false
  /** tokensOf calls so far */
  reads = 0
  #salt = 0

  constructor(clock: TestClock) {
    this.#clock = clock
  }

  /** Mines blocks. */
  mine(blocks = 1): void {
    this.number += blocks
  }

  /** Replaces the newest block by another of the same number. */
  reorg(): void {
    this.#salt++
  }

  register(entry: Omit<DeviceEntry, 'nonce' | 'changedBlock' | 'active' | 'uri'> & Partial<DeviceEntry>): void {
    this.mine()
    this.devices.set(entry.device, { uri: '', active: true, nonce: 1, changedBlock: this.number, ...entry })
  }

  grant(contract: Address, device: Address, client: Address, claims: number, expiresAt: number): void {
    this.mine()
    const key = `${contract}/${device}/${client}`
    const serial = (this.tokens.get(key)?.serial ?? 0) + 1
    const issuedAt = this.#clock.seconds
    this.tokens.set(key, { issuedAt, expiresAt, claims, grantBlock: this.number, serial })
  }

  revoke(contract: Address, device: Address, client: Address): void {
    this.mine()
    const key = `${contract}/${device}/${client}`
    const serial = (this.tokens.get(key)?.serial ?? 0) + 1
    this.tokens.set(key, { ...NO_TOKEN, grantBlock: this.number, serial })
  }

  async head(): Promise<Head> {
    if (this.away) throw new IotchainError('chain/unreachable', 'the node does not answer')
    const hash = `0x${this.number.toString(16)}${this.#salt.toString(16).padStart(4, '0')}` as const
    return {
      number: this.number,
      hash,
      parentHash: '0x0',
      timestamp: this.#clock.seconds,
      safe: undefined,
      finalized: undefined,
    }
  }

  async deviceOf(device: Address): Promise<DeviceEntry | undefined> {
    return this.devices.get(device)
  }

  async devicesOf(devices: readonly Address[]): Promise<(DeviceEntry | undefined)[]> {
    return devices.map((d) => this.devices.get(d))
  }

  async tokensOf(contract: Address, device: Address, clients: readonly Address[]): Promise<Token[]> {
    if (this.away) throw new IotchainError('chain/unreachable', 'the node does not answer')
    this.reads++
    return clients.map((c) => this.tokens.get(`${contract}/${device}/${c}`) ?? NO_TOKEN)
  }

  async verifySignature(address: Address, digest: Uint8Array, signature: Uint8Array): Promise<boolean> {
    return recoverAddress(digest, signature) === address
  }

  async codeHash(): Promise<string | undefined> {
    return accessTokenCode.codeHash
  }

  async atHead<T>(read: (head: Head) => Promise<T>): Promise<T> {
    return read(await this.head())
  }
}
