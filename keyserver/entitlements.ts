/** Who may have what now, by the registry and the tokens: the questions that every request is held against. */
import type { ChainView } from '../chain/view.ts'
import { equalBytes } from '../protocol/bytes.ts'
import { thumbprint } from '../protocol/cose/key.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { isIotchainError } from '../protocol/errors.ts'
import { type Gid, gidOf } from '../protocol/groups/gid.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import type { ClientReading, DeviceReading, Readings } from './readings.ts'
import { confirmationsMissing, notServed, refusal } from './refusals.ts'
import { type Roster, ServedDevice } from './roster.ts'

export interface EntitlementsOptions {
  readonly suite: CryptoSuite
  readonly chain: ChainView
  readonly roster: Roster
  readonly readings: Readings
}

export class Entitlements {
  readonly #o: EntitlementsOptions
  readonly #registry: Uint8Array

  constructor(options: EntitlementsOptions) {
    this.#o = options
    this.#registry = addressBytes(options.chain.registry)
  }

  gid(device: Uint8Array, bit: number): Gid {
    return gidOf(this.#o.suite, { chainId: this.#o.chain.chainId, registry: this.#registry, device, bit })
  }

  /** The device as the roster knows it; a stranger's address leaves no trace there. */
  peek(address: Address): ServedDevice {
    return this.#o.roster.devices.get(address) ?? new ServedDevice({ device: address, senderIds: {} })
  }

  /** Device and client at one head. @throws `chain/…` */
  readClient(served: ServedDevice, client: Address): Promise<{ device: DeviceReading; client: ClientReading }> {
    return this.#o.readings.at(async (head) => {
      const device = await this.#o.readings.device(served, head)
      return { device, client: await this.#o.readings.client(served, device, client) }
    })
  }

  /** When the client's right to a bit ends. @throws `keyserver/…`: not served, no token, confirmations missing */
  entitlement(served: ServedDevice, device: DeviceReading, client: ClientReading, bit: number): number {
    this.checkServed(device)
    const expiresAt = client.bits.get(bit)
    if (expiresAt !== undefined) return expiresAt
    const soon = client.waiting.find((w) => ((w.claims >>> bit) & 1) === 1)
    if (soon !== undefined) throw confirmationsMissing('the token', soon.missing, this.#o.readings.blockSeconds)
    throw refusal('keyserver/no-token', `no token gives this client right ${bit} on ${served.address}`, {
      hint: 'request a token first: `iotchain request`',
    })
  }

  /** @throws `keyserver/not-served`, `keyserver/not-registered`, `keyserver/confirmations` */
  checkServed(reading: DeviceReading): void {
    if (reading.standing === 'good') return
    if (reading.standing === 'waiting' && reading.decision.record !== undefined) return
    throw notServed(reading.standing, reading.decision.missing, this.#o.readings.blockSeconds)
  }

  /** Before a challenge is handed out: is there a token that gives one of these rights, and is it deep enough? */
  async checkToken(deviceAddress: Address, client: Address, claims: number): Promise<void> {
    const served = this.peek(deviceAddress)
    const { device, client: reading } = await this.readClient(served, client)
    this.checkServed(device)
    let refused: unknown
    for (let bit = 0; bit < 32; bit++) {
      if (((claims >>> bit) & 1) === 0) continue
      try {
        this.entitlement(served, device, reading, bit)
        return
      } catch (error) {
        // "not yet" says more than "no"
        if (refused === undefined || (isIotchainError(error) && error.code === 'keyserver/confirmations'))
          refused = error
      }
    }
    throw refused
  }

  /** The device as a member: still served? @throws `keyserver/…`, `chain/…` */
  async checkDevice(served: ServedDevice): Promise<DeviceReading> {
    const reading = await this.#o.readings.at((head) => this.#o.readings.device(served, head))
    this.checkServed(reading)
    return reading
  }

  /** Is `coseKey` the one in the registry? @throws `keyserver/wrong-key`, `keyserver/not-registered`, `keyserver/confirmations` */
  checkDeviceKey(reading: DeviceReading, coseKey: Uint8Array): void {
    const { standing, decision } = reading
    this.checkServed(reading)
    const registered = decision.signingKey
    if (registered === undefined) throw notServed(standing, decision.missing, this.#o.readings.blockSeconds)
    if (!equalBytes(registered, thumbprint(this.#o.suite, coseKey))) {
      throw refusal('keyserver/wrong-key', 'the registry holds another signing key for this device', {
        hint: 'register the present key: `iotchain-device registration`, then `iotchain owner register`',
      })
    }
  }
}
