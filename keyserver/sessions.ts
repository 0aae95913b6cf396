/**
 * Makes sessions: re-reads the members, rolls the key trees, makes B_{p+1}, commits, publishes. One loop for all
 * groups; its time is the injected clock, so that tests drive it by `tick`.
 */
import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type SessionSchedule, scheduleEpoch, scheduleSession } from '../protocol/groups/schedule.ts'
import type { GroupManager } from '../protocol/groups/scheme.ts'
import type { Logger } from '../runtime/log.ts'
import type { CredentialSubject, Credentials } from './credentials.ts'
import { type Enforcement, isChainAway } from './enforcement.ts'
import type { Group } from './group.ts'
import type { Readings } from './readings.ts'
import type { Roster, ServedDevice } from './roster.ts'
import { Key, putRecord } from './storage.ts'

/** Longest sleep of the loop: a clock that was set is noticed within this. */
const MAX_SLEEP_MS = 1000
/** A group whose broadcast could not be made (disk full) is tried again after this. */
const RETRY_MS = 1000
/** A round of broadcasts that takes longer is stuck. */
const STUCK_MS = 300_000
/** Credentials are looked at so often, however long a session is. */
const CREDENTIALS_MS = 60_000
/** By so much the newest session may lie ahead of this host's clock, beyond the time that it is told ahead, seconds. */
const AHEAD_SECONDS = 60
/** Broadcasts made at once. */
const WIDTH = 8

export interface SessionsOptions {
  readonly roster: Roster
  readonly credentials: Credentials
  readonly enforcement: Enforcement
  readonly readings: Readings
  readonly clock: Clock
  readonly log: Logger
  /** Longest wait for the chain before a broadcast, ms; then the last reading is used. */
  readonly readLimitMs: number
}

interface Pace {
  urgent: boolean
  /** monotonic ms before which the group is left alone */
  notBeforeMs: number
  running: Promise<void> | undefined
}

export class Sessions {
  readonly #o: SessionsOptions
  readonly #paces = new WeakMap<Group, Pace>()
  #wake: (() => void) | undefined
  #tickedMs = 0
  #credentialsMs = Number.NEGATIVE_INFINITY
  #loop: Promise<void> | undefined
  #stopped = false

  constructor(options: SessionsOptions) {
    this.#o = options
  }

  start(): void {
    this.#tickedMs = this.#o.clock.monotonicMs()
    this.#loop = this.#run()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#wake?.()
    await this.#loop
  }

  /** Asks for a session as early as the minimum session allows. */
  hurry(groups: Iterable<Group>): void {
    for (const group of groups) this.#pace(group).urgent = true
    this.#wake?.()
  }

  /** Makes the loop look again: a group is new, or has members again. */
  wake(): void {
    this.#wake?.()
  }

  /** Makes all broadcasts that are due. @returns ms until the next one is, at most `MAX_SLEEP_MS` */
  async tick(): Promise<number> {
    const due: Group[] = []
    for (const group of this.#o.roster.groups.values()) {
      if (this.#isDue(group)) due.push(group)
    }
    for (let at = 0; at < due.length; at += WIDTH) {
      await Promise.all(due.slice(at, at + WIDTH).map((group) => this.renew(group)))
    }
    await this.#lookAtCredentials()
    this.#lookAtClock()
    this.#tickedMs = this.#o.clock.monotonicMs()
    return this.#sleepMs()
  }

  async #lookAtCredentials(): Promise<void> {
    const { clock, roster, log } = this.#o
    const nowMs = clock.monotonicMs()
    if (nowMs - this.#credentialsMs < CREDENTIALS_MS) return
    this.#credentialsMs = nowMs
    for (const group of roster.groups.values()) {
      if (!group.isInhabited) continue
      await this.#renewCredentials(group).catch((error: unknown) =>
        log.limited(`creds/${group.name}`, 'error', { group: group.name, err: error }, 'credentials were not renewed'),
      )
    }
  }

  /** Sessions are never taken back: where the clock was far ahead once, none begins until it is there again. */
  #lookAtClock(): void {
    const { roster, log } = this.#o
    const now = this.#nowSeconds()
    let behindSeconds = 0
    for (const group of roster.groups.values()) {
      const ahead = (group.newest?.nbf ?? 0) - group.policy.leadSeconds - now
      if (ahead > AHEAD_SECONDS) behindSeconds = Math.max(behindSeconds, ahead)
    }
    if (behindSeconds === 0) return
    log.limited(
      'clock-behind',
      'error',
      { behindSeconds },
      'this host’s clock is behind the newest session: no session begins, and nobody is put out, until it has caught up',
    )
  }

  /** Throws when the loop has been stuck for minutes: the watchdog has to act. @throws `keyserver/stuck` */
  health(): void {
    const stuckMs = this.#o.clock.monotonicMs() - this.#tickedMs
    if (this.#loop !== undefined && stuckMs > STUCK_MS) {
      throw new IotchainError('keyserver/stuck', `no session has been looked after for ${Math.round(stuckMs / 1000)} s`)
    }
  }

  /**
   * A running session for a joiner: makes one if the newest has ended, or there is none.
   * @throws `store/…`, `group/…` if none can be made
   */
  async ensureRunning(group: Group): Promise<void> {
    const nowSeconds = this.#nowSeconds()
    if (group.newest !== undefined && group.newest.exp > nowSeconds) return
    if (group.isInhabited) await this.#reread(group)
    await this.#broadcast(group)
  }

  /** One broadcast of one group, if it is (still) due. Never throws: a fault is logged and tried again. */
  renew(group: Group): Promise<void> {
    const pace = this.#pace(group)
    pace.running ??= this.#renew(group, pace).finally(() => {
      pace.running = undefined
    })
    return pace.running
  }

  async #renew(group: Group, pace: Pace): Promise<void> {
    try {
      // Whom the reading puts out now is no reason for a cut any more, but it was one.
      if (this.#cutAt(group) <= this.#nowSeconds()) pace.urgent = true
      await this.#reread(group)
      await this.#broadcast(group)
      await this.#renewCredentials(group)
    } catch (error) {
      pace.notBeforeMs = this.#o.clock.monotonicMs() + RETRY_MS
      this.#o.log.limited(`session/${group.name}`, 'error', { group: group.name, err: error }, 'no new session')
    }
  }

  async #reread(group: Group): Promise<void> {
    const { enforcement, roster, readLimitMs, log } = this.#o
    const served = roster.device(group.device)
    const refresh = enforcement.refresh(served)
    try {
      this.hurry((await within(readLimitMs, refresh)).filter((g) => g !== group))
    } catch (error) {
      if (!isChainAway(error) && !(error instanceof Late)) throw error
      refresh.then((groups) => this.hurry(groups)).catch(() => undefined)
      log.limited('reread', 'warn', { err: error }, 'the chain cannot be read: the last good reading is used')
    }
    await enforcement.suspendIfBlind(group)
  }

  async #broadcast(group: Group): Promise<void> {
    const pace = this.#pace(group)
    await group.change(
      (m) => {
        const plan = this.#plan(group)
        if (plan.publishAt > this.#nowSeconds()) return
        this.#rollEpoch(group, m, plan)
        m.next({ nbf: plan.nbf, exp: plan.exp })
        pace.urgent = false
      },
      () => [putRecord(Key.chain, { lastGoodMs: this.#o.readings.lastGoodMs })],
    )
  }

  /** Credentials of the device and of its commanders, at half of their life, while they are members. */
  #renewCredentials(group: Group): Promise<void> {
    const { roster, credentials } = this.#o
    const served = roster.device(group.device)
    return credentials.renew(() => credentialSubjects(served, group, credentials), served.gate)
  }

  /** Allocates the next tree ahead of the border, or at once when the present one is worn out, and puts it to use. */
  #rollEpoch(group: Group, m: GroupManager, plan: SessionSchedule): void {
    const { nbf } = plan
    const compaction = m.epoch === 0 ? 'no' : m.compaction({ nbf }).when
    const due = scheduleEpoch(group.head, { now: this.#nowSeconds(), nbf, compaction })
    if (due.allocate !== undefined || group.needsEpoch) m.allocateEpoch(due.allocate ?? { nbf })
    if (due.activate || group.needsEpoch) m.activateEpoch()
    group.needsEpoch = false
  }

  #plan(group: Group): SessionSchedule {
    const { newest } = group
    return scheduleSession({
      head: group.head,
      last: newest === undefined ? undefined : { ...newest, epoch: group.head.active },
      now: this.#nowSeconds(),
      urgent: this.#pace(group).urgent,
      earliestExpiry: this.#cutAt(group),
    })
  }

  /** Strict expiry: the first end of a membership after the newest session began; else never. */
  #cutAt(group: Group): number {
    if (!group.policy.strictExpiry) return Number.POSITIVE_INFINITY
    return firstEnd(group, group.newest?.nbf ?? 0) ?? Number.POSITIVE_INFINITY
  }

  /** A group without anybody in it sleeps until somebody joins. */
  #isDue(group: Group): boolean {
    if (this.#pace(group).notBeforeMs > this.#o.clock.monotonicMs()) return false
    return group.isInhabited && this.#plan(group).publishAt <= this.#nowSeconds()
  }

  #sleepMs(): number {
    let sleep = MAX_SLEEP_MS
    const nowMs = this.#o.clock.nowMs()
    for (const group of this.#o.roster.groups.values()) {
      if (!group.isInhabited) continue
      const dueMs = this.#plan(group).publishAt * 1000 - nowMs
      const heldMs = this.#pace(group).notBeforeMs - this.#o.clock.monotonicMs()
      sleep = Math.min(sleep, Math.max(dueMs, heldMs, 1))
    }
    return sleep
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      let ms = MAX_SLEEP_MS
      try {
        ms = await this.tick()
      } catch (error) {
        this.#o.log.limited('tick', 'error', { err: error }, 'the session loop stumbled')
      }
      if (this.#stopped) return
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = undefined
    }
  }

  #pace(group: Group): Pace {
    let pace = this.#paces.get(group)
    if (pace === undefined) {
      pace = { urgent: false, notBeforeMs: 0, running: undefined }
      this.#paces.set(group, pace)
    }
    return pace
  }

  #nowSeconds(): number {
    return Math.floor(this.#o.clock.nowMs() / 1000)
  }
}

/** The first end of a membership after `since`. */
function firstEnd(group: Group, since: number): number | undefined {
  let first: number | undefined
  for (const { expiresAt, suspendedFrom } of group.manager.members()) {
    if (expiresAt === undefined || suspendedFrom !== undefined || expiresAt <= since) continue
    if (first === undefined || expiresAt < first) first = expiresAt
  }
  return first
}

class Late extends Error {}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Late('the chain answers too slowly')), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Who of a group has a credential that has to be kept fresh. */
function credentialSubjects(served: ServedDevice, group: Group, credentials: Credentials): CredentialSubject[] {
  const { coseKey, senderIds } = served.record
  const subjects: CredentialSubject[] = []
  if (coseKey !== undefined && group.isMember(served.memberId) && credentials.isFor(served.registeredKey, coseKey)) {
    subjects.push({ device: served.address, subject: served.address, coseKey, senderIds })
  }
  for (const { address, memberId, record } of served.clients.values()) {
    if (record.commandKey === undefined || record.senderIds === undefined || !group.isMember(memberId)) continue
    const until = group.manager.membership(memberId)?.expiresAt
    const { commandKey, senderIds: mine } = record
    subjects.push({
      device: served.address,
      subject: address,
      role: 'w',
      coseKey: commandKey,
      senderIds: mine,
      until,
    })
  }
  return subjects
}
