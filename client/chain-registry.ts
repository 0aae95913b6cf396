/** The device registry as a client sees it: which key signs for a device, which key server to pin, whose it is. */
import type { DeviceEntry } from '../chain/types.ts'
import type { ChainView } from '../chain/view.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { SignerRegistry } from './open.ts'

/** A registry entry is read again after so long. */
const FRESH_MS = 60_000

export class ChainRegistry implements SignerRegistry {
  readonly #chain: ChainView
  readonly #clock: Clock
  readonly #entries = new Map<Address, { entry: DeviceEntry | undefined; atMs: number }>()

  constructor(chain: ChainView, clock: Clock) {
    this.#chain = chain
    this.#clock = clock
  }

  /** @throws `chain/…` while the node is not to be believed */
  async entry(device: Address): Promise<DeviceEntry | undefined> {
    const known = this.#entries.get(device)
    const nowMs = this.#clock.monotonicMs()
    if (known !== undefined && nowMs - known.atMs < FRESH_MS) return known.entry
    const entry = await this.#chain.atHead((head) => this.#chain.deviceOf(device, head))
    this.#entries.set(device, { entry, atMs: nowMs })
    return entry
  }

  /** @throws `client/unregistered-device` unless it stands there and is active */
  async activeEntry(device: Address): Promise<DeviceEntry> {
    const entry = await this.entry(device)
    if (entry === undefined || !entry.active) {
      const what = entry === undefined ? 'is not registered' : 'has been deactivated by its owner'
      throw new IotchainError('client/unregistered-device', `device ${device} ${what} in this registry`, {
        hint: 'check the address of the device, the chain and the registry',
      })
    }
    return entry
  }

  async signingKeyOf(device: Address): Promise<Uint8Array | undefined> {
    return (await this.activeEntry(device)).signingKey
  }
}
