/**
 * The admission rule of a key server, pure: what a token read at one head is worth (chain rules of
 * docs/protocol.md, "Admission"; IoTChain §III-C, step 6). A renewal never interrupts a membership, an added right waits for its
 * confirmations, a removed one is gone at once.
 */
import type { Address } from '../protocol/messages/address.ts'
import type { Confirmations, DeviceEntry, Head, Token } from './types.ts'

/** What a key server last admitted for one (client, device, contract); plain data, to be stored. */
export interface AdmissionRecord {
  readonly serial: number
  readonly expiresAt: number
  /** uint32 */
  readonly claims: number
}

/**
 * good: deep enough, the record is the token's. kept: another token waits for its confirmations, what both
 * grant stays. waiting: nothing is admitted yet. expired, absent: nothing is admitted.
 */
export type AdmissionStatus = 'good' | 'kept' | 'waiting' | 'expired' | 'absent'

export interface Admission {
  readonly status: AdmissionStatus
  /** What counts now, and what to hand in as `previous` next time; undefined: not a member by this contract. */
  readonly record: AdmissionRecord | undefined
  /** For waiting and kept: blocks still missing; undefined while waiting for `safe` or `finalized`. */
  readonly missing: number | undefined
}

/** A head that lags behind the own clock by a minute does not prolong a token by more than that. */
const CLOCK_SLACK_SECONDS = 60

/** T of the rule: the time that an expiry is held against. */
export function decisionTime(head: Head, nowSeconds: number): number {
  return Math.max(head.timestamp, nowSeconds - CLOCK_SLACK_SECONDS)
}

/** True if what was written in `block` has stood long enough at `head`. */
export function isDeep(block: number, head: Head, confirmations: Confirmations): boolean {
  if (typeof confirmations === 'number') return head.number - block >= confirmations
  const settled = confirmations === 'safe' ? head.safe : head.finalized
  return settled !== undefined && block <= settled
}

/** Blocks that are still missing until `block` is deep: 0 when it is, undefined for `safe` and `finalized`. */
export function missingBlocks(block: number, head: Head, confirmations: Confirmations): number | undefined {
  if (isDeep(block, head, confirmations)) return 0
  return typeof confirmations === 'number' ? Math.max(0, confirmations - (head.number - block)) : undefined
}

/**
 * One token of one contract at one head.
 *
 * @param previous what this function returned last time as `record`
 * @param nowSeconds the own clock, unix seconds
 */
export function decide(
  previous: AdmissionRecord | undefined,
  token: Token,
  head: Head,
  confirmations: Confirmations,
  nowSeconds: number,
): Admission {
  const time = decisionTime(head, nowSeconds)
  if (token.expiresAt === 0 || token.claims === 0) return { status: 'absent', record: undefined, missing: undefined }
  if (token.expiresAt <= time) return { status: 'expired', record: undefined, missing: undefined }
  if (isDeep(token.grantBlock, head, confirmations)) {
    const { serial, expiresAt, claims } = token
    return { status: 'good', record: { serial, expiresAt, claims }, missing: 0 }
  }
  const missing = missingBlocks(token.grantBlock, head, confirmations)
  const record = previous && overlap(previous, token)
  if (record === undefined || record.expiresAt <= time || record.claims === 0) {
    return { status: 'waiting', record: undefined, missing }
  }
  return { status: 'kept', record, missing }
}

/** What an admitted token and one that is not deep yet both grant. A narrowed record stays narrow until one is deep. */
function overlap(previous: AdmissionRecord, token: Token): AdmissionRecord {
  return {
    serial: previous.serial,
    expiresAt: Math.min(previous.expiresAt, token.expiresAt),
    claims: (previous.claims & token.claims) >>> 0,
  }
}

/** Joins the records of several contracts of one device: bit → the largest expiresAt (unix seconds) that grants it. */
export function membershipsOf(records: Iterable<AdmissionRecord | undefined>): Map<number, number> {
  const bits = new Map<number, number>()
  for (const record of records) {
    if (record === undefined) continue
    for (const bit of bitsOf(record.claims)) {
      bits.set(bit, Math.max(bits.get(bit) ?? 0, record.expiresAt))
    }
  }
  return bits
}

/** The set bits of a uint32, ascending. */
export function bitsOf(claims: number): number[] {
  const bits: number[] = []
  for (let bit = 0; bit < 32; bit++) if ((claims >>> bit) & 1) bits.push(bit)
  return bits
}

/**
 * good: the entry is deep and counts as it stands. waiting: registered or changed too recently. inactive,
 * unregistered, other-owner, other-key-server: nothing of it counts, at once.
 */
export type DeviceStatus = 'good' | 'waiting' | 'inactive' | 'unregistered' | 'other-owner' | 'other-key-server'

export interface DeviceDecision {
  readonly status: DeviceStatus
  /** What was last admitted, to be stored and handed in as `previous` next time. */
  readonly record: DeviceEntry | undefined
  /** The contracts whose tokens count now. */
  readonly contracts: readonly Address[]
  /** The thumbprint that a new credential may be issued for; undefined: none now. */
  readonly signingKey: Uint8Array | undefined
  readonly missing: number | undefined
}

const sameOctets = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((v, i) => v === b[i])

/**
 * A device's registry entry at one head. Until a change is deep, contracts in both the old and the new entry
 * count and a changed signing key gets no credential; another owner, another key server and a deactivation act
 * at once.
 */
export function decideDevice(
  previous: DeviceEntry | undefined,
  entry: DeviceEntry | undefined,
  head: Head,
  confirmations: Confirmations,
): DeviceDecision {
  const out = (status: DeviceStatus): DeviceDecision => ({
    status,
    record: undefined,
    contracts: [],
    signingKey: undefined,
    missing: undefined,
  })
  if (entry === undefined) return out('unregistered')
  if (!entry.active) return out('inactive')
  if (isDeep(entry.changedBlock, head, confirmations)) {
    return { status: 'good', record: entry, contracts: entry.contracts, signingKey: entry.signingKey, missing: 0 }
  }
  const missing = missingBlocks(entry.changedBlock, head, confirmations)
  if (previous === undefined) return { ...out('waiting'), missing }
  if (previous.owner !== entry.owner) return { ...out('other-owner'), missing }
  if (!sameOctets(previous.keyServer, entry.keyServer)) return { ...out('other-key-server'), missing }
  const contracts = entry.contracts.filter((c) => previous.contracts.includes(c))
  const signingKey = sameOctets(previous.signingKey, entry.signingKey) ? entry.signingKey : undefined
  return { status: 'waiting', record: { ...previous, contracts }, contracts, signingKey, missing }
}
