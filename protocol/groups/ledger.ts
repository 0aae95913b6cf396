/**
 * The manager's state in memory: the memberships by id, and which records are not durable yet. Changes go through
 * two stages, so that more may come while a write is under way: `take` hands out everything not durable, `settle`
 * marks what was handed out as durable.
 */
import { IotchainError } from '../errors.ts'
import {
  checkState,
  copyHead,
  copyMembership,
  type ManagerChanges,
  type ManagerHead,
  type ManagerState,
  type Membership,
  memberKey,
  type SessionRecord,
} from './manager-state.ts'

interface Dirt {
  head: boolean
  memberships: Set<number>
  dropped: Set<number>
  sessions: SessionRecord[]
  droppedSessions: number[]
  broadcast: ManagerChanges['broadcast']
  newSecrets: { epoch: number; secret: Uint8Array }[]
  erasedSecrets: number[]
}

function clean(): Dirt {
  return {
    head: false,
    memberships: new Set(),
    dropped: new Set(),
    sessions: [],
    droppedSessions: [],
    broadcast: undefined,
    newSecrets: [],
    erasedSecrets: [],
  }
}

export class Ledger {
  readonly head: ManagerHead
  readonly sessions: SessionRecord[]
  private readonly byNumber = new Map<number, Membership>()
  private readonly byId = new Map<string, Membership[]>()
  private dirt = clean()
  private taken: Dirt | undefined

  constructor(state: ManagerState) {
    checkState(state)
    this.head = copyHead(state.head)
    this.sessions = state.sessions.map((s) => ({ ...s })).sort((a, b) => a.session - b.session)
    for (const m of [...state.memberships].sort((a, b) => a.number - b.number)) this.insert(copyMembership(m))
  }

  /** All memberships on record, in order of joining. */
  all(): Iterable<Membership> {
    return this.byNumber.values()
  }

  /** Memberships that an id has or had, oldest first. */
  of(id: Uint8Array): readonly Membership[] {
    return this.byId.get(memberKey(id)) ?? []
  }

  /** The membership of an id that has no end yet. */
  standing(id: Uint8Array): Membership | undefined {
    const newest = this.of(id).at(-1)
    return newest !== undefined && newest.out === undefined ? newest : undefined
  }

  add(m: Membership): void {
    this.insert(m)
    this.touch(m)
  }

  /** To be called after every change of a membership. */
  touch(m: Membership): void {
    this.dirt.memberships.add(m.number)
    this.dirt.head = true
  }

  touchHead(): void {
    this.dirt.head = true
  }

  drop(m: Membership): void {
    this.byNumber.delete(m.number)
    const key = memberKey(m.id)
    const rest = (this.byId.get(key) ?? []).filter((other) => other !== m)
    if (rest.length === 0) this.byId.delete(key)
    else this.byId.set(key, rest)
    this.dirt.memberships.delete(m.number)
    this.dirt.dropped.add(m.number)
  }

  addSession(record: SessionRecord, bytes: Uint8Array): void {
    this.sessions.push(record)
    this.dirt.sessions.push(record)
    this.dirt.head = true
    const { session, nbf, exp } = record
    this.dirt.broadcast = { session, nbf, exp, bytes }
  }

  /** Forgets sessions below `least`. */
  dropSessions(least: number): void {
    const keep = this.sessions.findIndex((s) => s.session >= least)
    const gone = this.sessions.splice(0, keep === -1 ? this.sessions.length : keep)
    this.dirt.droppedSessions.push(...gone.map((s) => s.session))
  }

  newSecret(epoch: number, secret: Uint8Array | undefined): void {
    if (secret !== undefined) this.dirt.newSecrets.push({ epoch, secret })
  }

  eraseSecret(epoch: number): void {
    this.dirt.erasedSecrets.push(epoch)
    this.dirt.head = true
  }

  /** A broadcast was made that may not be durable. */
  get broadcastPending(): boolean {
    return this.dirt.broadcast !== undefined || this.taken?.broadcast !== undefined
  }

  take(): ManagerChanges | undefined {
    this.dirt = merge(this.taken, this.dirt)
    this.taken = undefined
    if (!this.dirt.head) return undefined
    const taken = this.dirt
    this.taken = taken
    this.dirt = clean()
    const memberships: Membership[] = []
    for (const number of taken.memberships) {
      const m = this.byNumber.get(number)
      if (m !== undefined) memberships.push(copyMembership(m))
    }
    return {
      head: copyHead(this.head),
      memberships,
      droppedMemberships: [...taken.dropped],
      sessions: [...taken.sessions],
      droppedSessions: [...taken.droppedSessions],
      broadcast: taken.broadcast,
      newSecrets: [...taken.newSecrets],
      erasedSecrets: [...taken.erasedSecrets],
    }
  }

  /** @returns epochs whose secrets may now be erased @throws `group/uncommitted` when nothing was taken */
  settle(): readonly number[] {
    if (this.taken === undefined) {
      throw new IotchainError('group/uncommitted', 'committed() without changes() before it')
    }
    const { erasedSecrets } = this.taken
    this.taken = undefined
    return erasedSecrets
  }

  snapshot(): ManagerState {
    return {
      head: copyHead(this.head),
      memberships: [...this.byNumber.values()].map(copyMembership),
      sessions: this.sessions.map((s) => ({ ...s })),
    }
  }

  private insert(m: Membership): void {
    this.byNumber.set(m.number, m)
    const key = memberKey(m.id)
    const list = this.byId.get(key)
    if (list === undefined) this.byId.set(key, [m])
    else list.push(m)
  }
}

function merge(older: Dirt | undefined, newer: Dirt): Dirt {
  if (older === undefined) return newer
  return {
    head: older.head || newer.head,
    memberships: new Set([...older.memberships, ...newer.memberships]),
    dropped: new Set([...older.dropped, ...newer.dropped]),
    sessions: [...older.sessions, ...newer.sessions],
    droppedSessions: [...older.droppedSessions, ...newer.droppedSessions],
    broadcast: newer.broadcast ?? older.broadcast,
    newSecrets: [...older.newSecrets, ...newer.newSecrets],
    erasedSecrets: [...older.erasedSecrets, ...newer.erasedSecrets],
  }
}
