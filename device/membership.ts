/**
 * Keeps the device a member of its groups: joins, asks for a new Sender ID when the old ones are void, fetches the
 * next epoch's personal key and the next credential in time, and joins again when a broadcast leaves it out.
 */
import { equalBytes } from '../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { refreshMoment } from '../protocol/groups/schedule.ts'
import type { Logger } from '../runtime/log.ts'
import type { Credentials } from './credentials.ts'
import type { GroupSession } from './group-session.ts'
import type { KeyServer } from './key-server.ts'
import type { Sequence } from './sequence.ts'
import { Task } from './task.ts'

export interface MembershipOptions {
  readonly group: GroupSession
  readonly keyServer: KeyServer
  readonly sequence: Sequence
  readonly credentials: Credentials
  readonly log: Logger
  readonly nowSeconds: () => number | undefined
  /** Whether the host's clock can be believed by now; the device takes it for its time then. */
  readonly hostClockIsRight: () => Promise<boolean>
  /** The host's clock jumped: only the key server can say whether rightly. */
  readonly needsTime: () => boolean
  readonly retry: { readonly initial: number; readonly max: number }
  /** Joined, or joined anew: broadcasts can be followed. */
  readonly onJoined: () => void
  readonly random?: () => number
}

/** Longest time between two looks at what is due. */
const LOOK_MS = 60_000
/** Between two looks at a clock that is not right yet: nothing is sealed in between, and nobody is asked. */
const CLOCK_MS = 5_000
/** A credential that late does not come by itself. */
const UNCOVERED = 5

export class Membership {
  readonly #options: MembershipOptions
  readonly #task: Task
  #rejoin = false
  #needsPersonal = false
  /** A join made a new membership whose Sender ID is not in use yet, e.g. because the disk was full. */
  #madeAnew = false
  #clockIsLate = false
  /** Times in a row that the key server had no credential for the Sender ID. */
  #uncovered = 0
  #rejoinedAtMs = Number.NEGATIVE_INFINITY
  /** Unix seconds at which the personal key of the next epoch is fetched; chosen at random once per epoch. */
  #refreshAt: number | undefined

  constructor(options: MembershipOptions) {
    this.#options = options
    const { initial, max } = options.retry
    const name = `membership in ${options.group.gname}`
    this.#task = new Task({ name, log: options.log, initialMs: initial, maxMs: max }, () => this.#turn())
  }

  get lastError(): unknown {
    return this.#task.lastError
  }

  start(): void {
    this.#task.start()
  }

  stop(): Promise<void> {
    return this.#task.stop()
  }

  /** A broadcast could not be opened. */
  gap(reason: 'not-for-me' | 'unknown-epoch'): void {
    if (reason === 'unknown-epoch') this.#needsPersonal = true
    else this.#rejoin = true
    this.#task.nudge()
  }

  /** A look at what is due, e.g. because a command came with an unknown Sender ID. */
  async fetchCredentials(): Promise<void> {
    const { group, keyServer, credentials, nowSeconds } = this.#options
    const kdcCred = group.kdcCred
    if (kdcCred === undefined) return
    const { creds } = await keyServer.creds(group.gid)
    await credentials.add(kdcCred, creds, nowSeconds())
  }

  async #turn(): Promise<number | undefined> {
    const { group, credentials, sequence, log, nowSeconds, hostClockIsRight, needsTime } = this.#options
    if (!(await hostClockIsRight())) {
      this.#clockIsLate = true
      log.limited(
        'host-clock',
        'warn',
        {},
        'this host’s clock is not known to be right: nothing is sealed until it is set',
      )
      return CLOCK_MS
    }
    if (this.#clockIsLate) log.info('this host’s clock is right now')
    this.#clockIsLate = false
    if (!group.joined) await this.#join()
    else if (this.#rejoin) {
      // Left out again right after a join: the key server has its reasons, so no more often than this.
      const waitMs = this.#rejoinedAtMs + this.#options.retry.max - performance.now()
      if (waitMs > 0) return waitMs
      await this.#join()
    } else if (this.#needsPersonal) {
      await this.#fetchKeys()
      this.#needsPersonal = false
      this.#options.onJoined()
    }
    // Any answer with keys tells the server's time: where the host's jumped, or shows what has passed already.
    if (needsTime() || nowSeconds() === undefined) await this.#fetchKeys()
    const now = nowSeconds()
    if (now === undefined) return LOOK_MS
    const sid = sequence.group(group.gname)?.sid
    const renewAt = credentials.renewAt
    if (sid !== undefined && (!credentials.covers(group.gname, sid) || renewAt === undefined || renewAt <= now)) {
      await this.fetchCredentials()
      if (!credentials.covers(group.gname, sid)) {
        // It may know another Sender ID for this device: a join tells.
        if (++this.#uncovered >= UNCOVERED) this.#rejoin = true
        throw new IotchainError(
          'device/no-credential',
          'the key server has no credential for this device’s Sender ID yet',
        )
      }
    }
    this.#uncovered = 0
    await this.#refresh(now)
    const next = Math.min(credentials.renewAt ?? now + 60, this.#refreshAt ?? now + 3600) - now
    return Math.min(LOOK_MS, Math.max(1000, next * 1000))
  }

  /** A membership may have ended without a broadcast that says so, e.g. with a key server that was restored. */
  async #fetchKeys(): Promise<void> {
    const { group, keyServer } = this.#options
    try {
      await group.addPersonalKeys(await keyServer.nodeKeys(group.gid))
    } catch (error) {
      if (isIotchainError(error) && error.code === 'device/not-joined') this.#rejoin = true
      throw error
    }
  }

  async #join(): Promise<void> {
    const { group, keyServer, sequence, credentials, log, nowSeconds, onJoined } = this.#options
    const { response, created } = await keyServer.join(group.gid, group.bit)
    this.#madeAnew ||= created
    await group.adopt(response)
    const own = sequence.group(group.gname)?.sid
    const { senderId } = response
    // A new membership comes with a Sender ID of its own; the key server may not know the one of before any more.
    if (this.#madeAnew && senderId !== undefined) sequence.setSid(group.gname, senderId)
    else if (own === undefined || (senderId !== undefined && !equalBytes(own, senderId))) {
      // What was sealed under an older one is not known any more, or the answer that brought a new one was lost.
      sequence.setSid(group.gname, await keyServer.newSenderId(group.gid))
    }
    this.#madeAnew = false
    await credentials.add(response.kdcCred, response.creds, nowSeconds())
    this.#rejoin = false
    this.#needsPersonal = false
    this.#refreshAt = undefined
    this.#rejoinedAtMs = performance.now()
    log.info({ group: group.gname, bit: group.bit, session: response.num }, created ? 'joined' : 'joined again')
    onJoined()
  }

  /** Somewhere in the last stretch of an epoch the key of the next one is fetched; at random, so that not all ask at once. */
  async #refresh(now: number): Promise<void> {
    const { group, random = Math.random } = this.#options
    const ends = group.epochEnds
    if (ends === undefined) return
    if (this.#refreshAt === undefined || this.#refreshAt > ends) {
      this.#refreshAt = refreshMoment(ends, group.policies?.epochSeconds ?? 86_400, random())
    }
    if (now < this.#refreshAt) return
    await this.#fetchKeys()
    this.#refreshAt = group.epochEnds === ends ? now + 60 : undefined
  }
}
