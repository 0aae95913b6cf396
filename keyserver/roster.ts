/** The devices that this key server serves, their groups and the clients in them: what is in memory of the store. */
import type { AdmissionRecord } from '../chain/rule.ts'
import { IotchainError } from '../protocol/errors.ts'
import { clientMemberId, deviceMemberId } from '../protocol/groups/gid.ts'
import type { Address } from '../protocol/messages/address.ts'
import { addressBytes } from '../protocol/messages/address.ts'
import { Gate } from './gate.ts'
import type { Group } from './group.ts'
import type { ClientRecord, DeviceRecord, Storage } from './storage.ts'

export interface ServedClient {
  readonly address: Address
  readonly memberId: Uint8Array
  record: ClientRecord
  /** Number of the block at which it was judged last. */
  judgedAt: number
  /** When it brought another command key, as far as that counts for its ration; unix seconds. */
  newKeysAt: readonly number[]
}

/** One device. The records are what was committed last; replace them, never change them. */
export class ServedDevice {
  readonly address: Address
  readonly octets: Uint8Array
  readonly memberId: Uint8Array
  record: DeviceRecord
  /** Thumbprint that credentials may be issued for now, by the last reading; undefined: none. */
  registeredKey: Uint8Array | undefined
  /** Block of the newest reading by which the device itself was judged: an older one that ends later decides nothing. */
  judgedAt = 0
  /** Whoever replaces a record of the device or of one of its clients holds this. */
  readonly gate = new Gate()
  readonly clients = new Map<Address, ServedClient>()
  /** by claims bit */
  readonly groups = new Map<number, Group>()

  constructor(record: DeviceRecord) {
    this.address = record.device
    this.octets = addressBytes(record.device)
    this.memberId = deviceMemberId(this.octets)
    this.record = record
  }

  client(address: Address): ServedClient {
    let client = this.clients.get(address)
    if (client === undefined) {
      client = {
        address,
        memberId: clientMemberId(addressBytes(address)),
        record: { admissions: {} },
        judgedAt: 0,
        newKeysAt: [],
      }
      this.clients.set(address, client)
    }
    return client
  }

  /** True if the id has a membership in one of the groups that the next broadcast considers, suspended or not. */
  isMember(memberId: Uint8Array): boolean {
    for (const group of this.groups.values()) if (group.isMember(memberId)) return true
    return false
  }
}

export class Roster {
  readonly devices = new Map<Address, ServedDevice>()
  /** by group name */
  readonly groups = new Map<string, Group>()
  readonly #maxGroups: number

  constructor(maxGroups: number) {
    this.#maxGroups = maxGroups
  }

  /** Devices and clients of the store; groups are added by `addGroup`. */
  async load(storage: Storage): Promise<void> {
    for await (const [, record] of storage.records<DeviceRecord>('device/')) this.device(record.device).record = record
    for await (const [key, record] of storage.records<ClientRecord>('client/')) {
      const [, device, client] = key.split('/') as [string, Address, Address]
      this.device(device).client(client).record = record
    }
  }

  /** The entry of a device, made when there is none. */
  device(address: Address): ServedDevice {
    let device = this.devices.get(address)
    if (device === undefined) {
      device = new ServedDevice({ device: address, senderIds: {} })
      this.devices.set(address, device)
    }
    return device
  }

  /** @throws `keyserver/collision` if the name stands for another device or bit; `keyserver/full` */
  checkRoom(name: string, device: Address, bit: number): void {
    const there = this.groups.get(name)
    if (there !== undefined && (there.device !== device || there.bit !== bit)) {
      throw new IotchainError('keyserver/collision', `group ${name} belongs to another device or right`, {
        hint: 'this device address was chosen so that its group identifier collides: use another one',
      })
    }
    if (there === undefined && this.groups.size >= this.#maxGroups) {
      throw new IotchainError('keyserver/full', 'this key server runs as many groups as it may', {
        retryAfterSeconds: 3600,
        hint: 'raise limits.groups, or start another key server',
      })
    }
  }

  addGroup(group: Group): void {
    this.groups.set(group.name, group)
    this.device(group.device).groups.set(group.bit, group)
  }
}

/** What was admitted by each contract, as the rule wants it. */
export function admissionsOf(record: ClientRecord): Map<Address, AdmissionRecord> {
  return new Map(Object.entries(record.admissions) as [Address, AdmissionRecord][])
}

/** True if a token that grants the bit now is the very one that was admitted before. */
export function sameGrant(
  before: ClientRecord,
  now: { readonly admissions: ReadonlyMap<Address, AdmissionRecord> },
  bit: number,
): boolean {
  for (const [contract, admission] of now.admissions) {
    const grants = ((admission.claims >>> bit) & 1) === 1
    if (grants && before.admissions[contract]?.serial === admission.serial) return true
  }
  return false
}
