/**
 * What a client makes of an object that verified and opened (protocol.md §4.6): rollback, freshness, old sessions.
 * Pure; the caller keeps what was accepted before, for each resource.
 */
import { equalBytes } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import type { SessionTimes } from '../groups/scheme.ts'
import type { SidGrant } from './credential.ts'
import type { ObjectHeader } from './header.ts'
import { compareOrder, type ObjectOrder } from './order.ts'
import { CLOCK_SKEW } from './verify.ts'

/** The newest object accepted of a resource. */
export interface Accepted extends ObjectOrder {
  /** etagOf its octets. */
  readonly etag: Uint8Array
}

export interface JudgeOptions {
  readonly kind: 'signed' | 'mac'
  readonly header: ObjectHeader
  readonly etag: Uint8Array
  /** The device's Sender IDs in this group, from its newest credential. */
  readonly sids: readonly SidGrant[]
  /** Present time, Unix seconds. */
  readonly now: number
  /** Max-age of the group's policy, seconds. */
  readonly maxAgeSeconds: number
  readonly graceSeconds: number
  readonly accepted?: Accepted | undefined
  /** nbf and exp of the object's session, if its broadcast was received. */
  readonly times?: SessionTimes | undefined
  /** When a later session began, if one is known. */
  readonly supersededAt?: number | undefined
  /** For a mac-object: when the newest broadcast was last asked for or seen by observing, Unix seconds. */
  readonly broadcastSeenAt?: number | undefined
}

export interface Judgement {
  /** Older than the group's max-age. */
  readonly stale: boolean
  /** Sealed under a session that had been superseded for longer than the grace. */
  readonly oldSession: boolean
  /** The same object as the newest accepted. */
  readonly repeated: boolean
  /** To be kept as the newest accepted. */
  readonly accepted: Accepted
}

/** Slack around nbf and exp of the session, seconds. */
const SESSION_SLACK = 30
/** A mac-object is taken only by a client whose view of the broadcasts is this fresh, seconds. */
const BROADCAST_FRESHNESS = 60

/**
 * @throws `object/rollback` (lower in the order than one accepted before), `object/equivocation` (same place, other
 * octets), `object/future`, `object/outside-session`, and for mac-objects `object/old-session`,
 * `object/unfresh-broadcast`
 */
export function judgeObject(options: JudgeOptions): Judgement {
  const { kind, header, now, accepted, times, supersededAt } = options
  const order = accepted === undefined ? 1 : compareOrder(options.sids, header, accepted)
  if (order < 0) {
    throw new IotchainError('object/rollback', 'an older object than one accepted before was offered as the latest')
  }
  if (order === 0 && accepted !== undefined && !equalBytes(options.etag, accepted.etag)) {
    throw new IotchainError('object/equivocation', 'two different objects with the same sequence number')
  }
  if (header.iat > now + CLOCK_SKEW) {
    throw new IotchainError('object/future', 'the object was sealed in the future', {
      hint: 'check the clock of this machine and of the device',
    })
  }
  if (times !== undefined && (header.iat < times.nbf - SESSION_SLACK || header.iat > times.exp + SESSION_SLACK)) {
    throw new IotchainError('object/outside-session', 'the object was not sealed within the life of its session')
  }
  const limit = kind === 'mac' ? now : header.iat
  const oldSession = supersededAt !== undefined && supersededAt + options.graceSeconds < limit
  if (kind === 'mac') {
    const over = times !== undefined && times.exp + options.graceSeconds < now
    if (oldSession || over) throw new IotchainError('object/old-session', 'a mac-object of a session that is over')
    const seen = options.broadcastSeenAt
    if (seen === undefined || now - seen > BROADCAST_FRESHNESS) {
      throw new IotchainError('object/unfresh-broadcast', 'a mac-object needs a look at the newest broadcast first', {
        hint: 'fetch the newest broadcast, then the object again',
      })
    }
  }
  return {
    stale: now - header.iat > options.maxAgeSeconds,
    oldSession,
    repeated: order === 0,
    accepted: { sid: header.sid, seq: header.seq, etag: options.etag },
  }
}
