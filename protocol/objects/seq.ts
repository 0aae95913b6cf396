/**
 * Sequence numbers that never repeat (protocol.md §4.2): reserved ahead in durable storage, and bound to the clock so
 * that even an old copy of the state repeats none. Pure: the caller writes the file and supplies the time.
 */
import { IotchainError } from '../errors.ts'
import { SEQ_LIMIT } from './header.ts'

/** Sequence numbers reserved with one write. */
export const SEQ_RESERVE = 64
/** Sequence numbers for each second of the clock. */
export const SEQ_PER_SECOND = 256
/** 2024-01-01T00:00:00Z: sequence numbers count from here. */
export const SEQ_EPOCH = 1_704_067_200

/** What `SeqCounter.next` says to do. */
export type SeqStep =
  /** Use it. */
  | { readonly do: 'use'; readonly seq: number }
  /** Write `limit` durably, call `reserved(limit)`, ask again. */
  | { readonly do: 'reserve'; readonly limit: number }
  /** Nothing may be sealed yet; ask again in `ms`. */
  | { readonly do: 'wait'; readonly ms: number }

export class SeqCounter {
  private limit: number
  private readonly startSecond: number
  private following: number | undefined

  /**
   * @param limit the first number that is not reserved, from the state file; 0 for a new Sender ID
   * @param startMs synchronised wall clock at start, milliseconds
   */
  constructor(limit: number, startMs: number) {
    if (!Number.isSafeInteger(limit) || limit < 0) throw new IotchainError('object/bad-seq', 'not a reserved limit')
    this.limit = limit
    this.startSecond = Math.floor(startMs / 1000)
  }

  /** First number that is not reserved. */
  get reservedLimit(): number {
    return this.limit
  }

  /**
   * The next number, or what has to happen first.
   * @param nowMs synchronised wall clock, milliseconds
   * @throws `object/seq-exhausted` at 2^40: a new Sender ID is needed
   */
  next(nowMs: number): SeqStep {
    const second = Math.floor(nowMs / 1000)
    // a start within the second of an earlier run might meet that run's numbers
    if (second <= this.startSecond) return { do: 'wait', ms: Math.max(1, (this.startSecond + 1) * 1000 - nowMs) }
    const t = second - SEQ_EPOCH
    if (t < 0) throw new IotchainError('object/clock', 'the clock shows a time before 2024', { hint: 'set the clock' })
    this.following ??= Math.max(this.limit, t * SEQ_PER_SECOND)
    const seq = this.following
    if (seq >= SEQ_LIMIT)
      throw new IotchainError('object/seq-exhausted', 'all sequence numbers of this Sender ID are used')
    const ceiling = (t + 1) * SEQ_PER_SECOND
    if (seq >= ceiling) {
      const ready = Math.floor(seq / SEQ_PER_SECOND) + SEQ_EPOCH
      return { do: 'wait', ms: Math.max(1, ready * 1000 - nowMs) }
    }
    if (seq >= this.limit) return { do: 'reserve', limit: seq + SEQ_RESERVE }
    this.following = seq + 1
    return { do: 'use', seq }
  }

  /** The limit stands in durable storage. */
  reserved(limit: number): void {
    if (limit < this.limit) throw new IotchainError('object/bad-seq', 'a reservation never goes back')
    this.limit = limit
  }
}
