/**
 * The sequence numbers of this device (protocol.md §4.2): strictly increasing over all resources and sessions of a
 * Sender ID, whatever happens to power and disk. `SeqCounter` has the arithmetic; this class has the file.
 */
import { equalBytes } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { SeqCounter } from '../protocol/objects/seq.ts'
import {
  assertSameMachine,
  type GroupSequence,
  readSequenceFile,
  type SequenceState,
  writeSequenceFile,
} from './sequence-file.ts'

export type SequenceStep =
  /** Reserved on disk: use it, once. */
  | { readonly seq: number }
  /** The clock has to move on first. */
  | { readonly waitMs: number }

export class Sequence {
  readonly #path: string
  #state: SequenceState
  /** Made when the time is first known: nothing is sealed before a later second than that. */
  #counter: SeqCounter | undefined
  /** Why the Sender IDs of before are void, if they are. */
  readonly loss: 'missing' | 'damaged' | undefined

  private constructor(path: string, state: SequenceState, loss: 'missing' | 'damaged' | undefined) {
    this.#path = path
    this.#state = state
    this.loss = loss
  }

  /**
   * Reads the file; nothing is written before the first reservation.
   * @param machine from `machineId()`
   * @throws `device/cloned`
   */
  static open(path: string, machine: string): Sequence {
    const found = readSequenceFile(path)
    if (typeof found === 'string') {
      return new Sequence(path, { machine, limit: 0, latest: 0, groups: new Map() }, found)
    }
    assertSameMachine(found, machine, path)
    return new Sequence(path, found, undefined)
  }

  /** Unix seconds: no time before this can be right. */
  get latest(): number {
    return this.#state.latest
  }

  /** The Sender ID for a group, or undefined: then a new one must be asked for before anything is sealed. */
  group(gname: string): GroupSequence | undefined {
    return this.#state.groups.get(gname)
  }

  /** Takes a Sender ID of the key server into use; durable when it returns. */
  setSid(gname: string, sid: Uint8Array): void {
    const old = this.#state.groups.get(gname)
    if (old !== undefined && equalBytes(old.sid, sid)) return
    this.#write({ groups: new Map(this.#state.groups).set(gname, { sid: sid.slice(), session: old?.session ?? 0 }) })
  }

  /** Notes that `session` is sealed under from now on; durable when it returns. @throws `device/old-session` */
  enterSession(gname: string, session: number): void {
    const group = this.#state.groups.get(gname)
    if (group === undefined) throw new IotchainError('device/no-sender-id', `no Sender ID for group ${gname}`)
    if (session < group.session) {
      throw new IotchainError('device/old-session', `session ${session} is older than ${group.session}, which was used`)
    }
    if (session > group.session) {
      this.#write({ groups: new Map(this.#state.groups).set(gname, { sid: group.sid, session }) })
    }
  }

  /**
   * The next number.
   * @param nowMs milliseconds since 1970 of a clock that is known to be right
   * @throws `runtime/disk-full`, `runtime/cannot-write`: then nothing was used; `object/seq-exhausted`, `object/clock`
   */
  next(nowMs: number): SequenceStep {
    this.#counter ??= new SeqCounter(this.#state.limit, nowMs)
    let step = this.#counter.next(nowMs)
    if (step.do === 'reserve') {
      this.#write({ limit: step.limit, latest: Math.max(this.#state.latest, Math.floor(nowMs / 1000)) })
      this.#counter.reserved(step.limit)
      step = this.#counter.next(nowMs)
    }
    return step.do === 'use' ? { seq: step.seq } : { waitMs: step.do === 'wait' ? step.ms : 1 }
  }

  /** Keeps the latest time for the next start; best effort at a clean stop. */
  noteTime(nowSeconds: number): void {
    if (nowSeconds > this.#state.latest) this.#write({ latest: Math.floor(nowSeconds) })
  }

  #write(change: Partial<SequenceState>): void {
    const state = { ...this.#state, ...change }
    writeSequenceFile(this.#path, state)
    this.#state = state
  }
}
