/**
 * Carries out what the chain says about members that are in already: out when a right is gone, longer when it was
 * renewed, suspended while the chain cannot be read (protocol.md "Group manager policy").
 */
import type { DeviceEntry, Head } from '../chain/types.ts'
import type { Clock } from '../protocol/clock.ts'
import { isIotchainError } from '../protocol/errors.ts'
import type { Membership } from '../protocol/groups/manager-state.ts'
import type { GroupManager } from '../protocol/groups/scheme.ts'
import { type Address, addressHex } from '../protocol/messages/address.ts'
import type { Logger } from '../runtime/log.ts'
import type { StoreOperation } from '../store/store.ts'
import type { Group } from './group.ts'
import type { ClientReading, DeviceReading, Readings } from './readings.ts'
import { type Roster, type ServedDevice, sameGrant } from './roster.ts'
import { type ClientRecord, del, Key, putRecord, type Storage } from './storage.ts'

export interface EnforcementOptions {
  readonly roster: Roster
  readonly readings: Readings
  readonly storage: Storage
  readonly clock: Clock
  readonly log: Logger
  /** How long the last good reading of the chain is acted on, ms. */
  readonly chainGraceMs: number
  /** Whether the device's certificate still counts. */
  readonly certificateStands: (served: ServedDevice) => boolean
  /** Who took a right away: the client itself leaves at the next regular session only. */
  readonly revokedBySelf: (
    contract: Address,
    device: Address,
    client: Address,
    serial: number,
    head: Head,
  ) => Promise<boolean>
}

interface Verdicts {
  readonly reading: DeviceReading
  readonly clients: ReadonlyMap<Address, ClientReading>
  readonly entryStands: boolean
  /** clients who took their own token back */
  readonly leftByThemselves: ReadonlySet<Address>
}

export class Enforcement {
  readonly #o: EnforcementOptions
  /** Sessions and the head watch may ask at the same moment: one reading serves both. */
  readonly #running = new Map<ServedDevice, Promise<Group[]>>()

  constructor(options: EnforcementOptions) {
    this.#o = options
  }

  /**
   * Reads all active members of a device at one head and applies the result to its groups.
   * @returns the groups that should get an early session
   * @throws `chain/…` when nothing could be read: the last reading stands, see `suspend`
   */
  refresh(served: ServedDevice): Promise<Group[]> {
    let running = this.#running.get(served)
    if (running === undefined) {
      running = this.#refresh(served).finally(() => this.#running.delete(served))
      this.#running.set(served, running)
    }
    return running
  }

  /** Reads the device and some of its clients only: those that the logs name. */
  async refreshSome(served: ServedDevice, clients: Iterable<Address>): Promise<Group[]> {
    const known = [...clients].filter((c) => served.clients.has(c))
    return known.length === 0 ? [] : this.#refresh(served, known)
  }

  async #refresh(served: ServedDevice, some?: readonly Address[]): Promise<Group[]> {
    const verdicts = await this.#o.readings.at((head) => this.#judge(served, head, some ?? [...served.clients.keys()]))
    return served.gate.run(() => this.#apply(served, verdicts))
  }

  /** Suspends token holders when the chain has been away for too long. @returns true if it has */
  async suspendIfBlind(group: Group): Promise<boolean> {
    const { readings, clock, chainGraceMs, log } = this.#o
    const last = readings.lastGoodMs
    if (last !== undefined && clock.nowMs() - last <= chainGraceMs) return false
    await group.change((m) => {
      let count = 0
      for (const membership of [...m.members()]) {
        if (membership.id[0] !== 0x01 || membership.suspendedFrom !== undefined) continue
        m.suspend(membership.id)
        count++
      }
      if (count > 0) log.warn({ group: group.name, members: count }, 'the chain is away: token holders are suspended')
    })
    return true
  }

  async #judge(served: ServedDevice, head: Head, addresses: readonly Address[]): Promise<Verdicts> {
    const { readings, revokedBySelf } = this.#o
    const reading = await readings.device(served, head)
    const clients = await readings.clients(served, reading, addresses)
    const leftByThemselves = new Set<Address>()
    for (const [client, { revoked }] of clients) {
      if (revoked.length === 0) continue
      const own = await Promise.all(
        revoked.map(({ contract, serial }) =>
          revokedBySelf(contract, served.address, client, serial, head).catch(() => false),
        ),
      )
      if (own.every(Boolean)) leftByThemselves.add(client)
    }
    const entryStands =
      reading.standing === 'good' || (reading.standing === 'waiting' && reading.decision.record !== undefined)
    return { reading, clients, entryStands, leftByThemselves }
  }

  async #apply(served: ServedDevice, verdicts: Verdicts): Promise<Group[]> {
    const urgent: Group[] = []
    const head = verdicts.reading.head.number
    for (const group of served.groups.values()) {
      const hurry = await group.change((m) => this.#applyTo(served, group, m, verdicts))
      if (hurry) urgent.push(group)
    }
    // The records follow the memberships: after a crash in between they are judged anew, and again the same.
    const operations: StoreOperation[] = []
    for (const [address, reading] of verdicts.clients) {
      const client = served.clients.get(address)
      if (client === undefined || client.judgedAt > head) continue
      client.judgedAt = head
      if (!served.isMember(client.memberId)) {
        operations.push(del(Key.client(served.address, address)))
        served.clients.delete(address)
        continue
      }
      if (sameAdmissions(client.record.admissions, reading.admissions)) continue
      const record = { ...client.record, admissions: Object.fromEntries(reading.admissions) }
      operations.push(putRecord(Key.client(served.address, address), record))
      client.record = record
    }
    const entry = verdicts.reading.decision.record
    if (served.judgedAt <= head) {
      served.judgedAt = head
      served.registeredKey = this.#deviceStands(served, verdicts) ? verdicts.reading.decision.signingKey : undefined
      if (!sameEntry(served.record.entry, entry)) {
        served.record = { ...served.record, entry }
        operations.push(putRecord(Key.device(served.address), served.record))
      }
    }
    if (operations.length > 0) await this.#o.storage.commit(operations)
    return urgent
  }

  /** The certificate is that of now: the device may have joined while the chain was being read. */
  #deviceStands(served: ServedDevice, { entryStands }: Verdicts): boolean {
    return entryStands && this.#o.certificateStands(served)
  }

  #applyTo(served: ServedDevice, group: Group, m: GroupManager, verdicts: Verdicts): boolean {
    const now = Math.floor(this.#o.clock.nowMs() / 1000)
    let hurry = false
    for (const membership of [...m.members()]) {
      if (membership.id[0] === 0x02) {
        if (served.judgedAt > verdicts.reading.head.number || this.#deviceStands(served, verdicts)) continue
        this.#out(m, group, membership, 'the device is no longer served')
        hurry ||= verdicts.reading.standing !== 'good' && verdicts.reading.standing !== 'waiting'
        continue
      }
      const address = addressHex(membership.id.subarray(1))
      const reading = verdicts.clients.get(address)
      // Joined while the chain was being read: judged by its own, newer reading.
      if (reading === undefined || (served.clients.get(address)?.judgedAt ?? 0) > verdicts.reading.head.number) continue
      const expiresAt = reading.bits.get(group.bit)
      if (expiresAt === undefined) {
        const early = membership.expiresAt === undefined || membership.expiresAt > now
        this.#out(m, group, membership, early ? 'its right was taken back' : 'its token ended')
        hurry ||= early && !verdicts.leftByThemselves.has(address)
      } else if (membership.suspendedFrom !== undefined && !sameGrant(recordOf(served, address), reading, group.bit)) {
        this.#out(m, group, membership, 'another token stands than before the chain was away')
      } else {
        if (membership.suspendedFrom !== undefined) m.resume(membership.id)
        if (membership.expiresAt !== expiresAt) m.renew(membership.id, expiresAt)
      }
    }
    return hurry
  }

  #out(m: GroupManager, group: Group, membership: Membership, reason: string): void {
    m.leave(membership.id)
    const member = addressHex(membership.id.subarray(1))
    this.#o.log.info({ group: group.name, member, device: group.device, bit: group.bit, reason }, 'member out')
  }
}

function recordOf(served: ServedDevice, client: Address): ClientRecord {
  return served.clients.get(client)?.record ?? { admissions: {} }
}

/** A change that is not deep takes contracts away from the entry before it: that is to be remembered as well. */
function sameEntry(before: DeviceEntry | undefined, now: DeviceEntry | undefined): boolean {
  if (before === undefined || now === undefined) return before === now
  return before.changedBlock === now.changedBlock && before.contracts.join() === now.contracts.join()
}

function sameAdmissions(before: ClientRecord['admissions'], now: ClientReading['admissions']): boolean {
  if (Object.keys(before).length !== now.size) return false
  for (const [contract, { serial, expiresAt, claims }] of now) {
    const old = before[contract]
    if (old?.serial !== serial || old.expiresAt !== expiresAt || old.claims !== claims) return false
  }
  return true
}

/** True for an error that says "the chain cannot be read now". */
export function isChainAway(error: unknown): boolean {
  return isIotchainError(error) && error.code.startsWith('chain/')
}
