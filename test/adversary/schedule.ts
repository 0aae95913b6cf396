/**
 * One random life of a group: joins in both modes and in the lead, ends of tokens, renewals, revocations, rejoins,
 * suspensions, epochs allocated ahead, discarded, overflowing, a restored backup, windows in sessions and in time.
 * Runs the manager, keeps the model beside it, and collects every octet that anybody ever sees.
 */
import { equalBytes, toHex, utf8 } from '../../protocol/bytes.ts'
import type { CryptoSuite, SigningKey } from '../../protocol/crypto/suite.ts'
import { randomEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import { type ManagerState, newManagerState } from '../../protocol/groups/manager-state.ts'
import { recoverState } from '../../protocol/groups/recovery.ts'
import type { GroupManager, PersonalKey, SessionKey } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { groupKey } from '../../protocol/groups/time-tree.ts'
import { Model, type ModelMembership, type ModelSession } from './model.ts'
import { Random } from './random.ts'
import { Truth } from './wire.ts'

/** What a mutant needs to make its own broadcast in place of the honest one. */
export interface BroadcastContext {
  readonly suite: CryptoSuite
  readonly gid: Uint8Array
  readonly signingKey: SigningKey
  readonly truth: Truth
  readonly secret: Uint8Array
  readonly session: ModelSession
  readonly depth: number
  /** Memberships that the broadcast shall reach, with their leaves. */
  readonly live: readonly { leaf: number; from: number }[]
  /** The same for the broadcasts before, newest first. */
  readonly before: readonly { epoch: number; live: readonly { leaf: number; from: number }[] }[]
  /** Leaves of the epoch given out so far. */
  readonly allocated: ReadonlySet<number>
  readonly sessions: readonly ModelSession[]
}

export type Forge = (context: BroadcastContext) => Uint8Array

export interface World {
  readonly seed: number
  readonly gid: Uint8Array
  readonly suite: CryptoSuite
  readonly signingKey: SigningKey
  readonly model: Model
  readonly truth: Truth
  readonly broadcasts: readonly Uint8Array[]
  /** Personal keys that an id ever had, discarded epochs too. */
  readonly personals: ReadonlyMap<string, readonly PersonalKey[]>
  /** Keys handed over to an id other than by broadcasts. */
  readonly handed: ReadonlyMap<string, readonly SessionKey[]>
  /** What went wrong while running: keys that are not the session's, numbers used twice. */
  readonly faults: readonly string[]
}

const UNLIMITED = { leavesPerMemberAndEpoch: 1e9, rejoinsPerHour: 1e9 }

export function runSchedule(suite: CryptoSuite, seed: number, forge?: Forge): World {
  return new Life(suite, seed, forge).run()
}

class Life {
  private readonly random: Random
  private readonly gid: Uint8Array
  private readonly signingKey: SigningKey
  private readonly window: number | { seconds: number; min: number }
  private readonly dMin: number
  private readonly epochLength: number
  private readonly model: Model
  private readonly truth: Truth
  private manager: GroupManager
  private readonly secrets = new Map<number, Uint8Array>()
  private readonly broadcasts: Uint8Array[] = []
  private readonly personals = new Map<string, PersonalKey[]>()
  private readonly handed = new Map<string, SessionKey[]>()
  private readonly faults: string[] = []
  private readonly reached: { epoch: number; live: { leaf: number; from: number }[] }[] = []
  private readonly leaves = new Map<number, Set<number>>()
  private now = 1_000_000
  private count = 0
  private inEpoch = 0
  private readonly suite: CryptoSuite
  private readonly seed: number
  private readonly forge: Forge | undefined

  constructor(suite: CryptoSuite, seed: number, forge: Forge | undefined) {
    this.suite = suite
    this.seed = seed
    this.forge = forge
    this.random = new Random(seed)
    const { random } = this
    this.gid = random.bytes(8)
    this.signingKey = suite.ed25519.signing(random.bytes(32))
    this.window = random.chance(0.6)
      ? random.between(1, 16)
      : { seconds: random.between(0, 3000), min: random.between(1, 8) }
    this.dMin = random.between(1, 3)
    this.epochLength = random.between(3, 14)
    this.model = new Model(this.window)
    this.truth = new Truth(suite, (epoch) => this.secrets.get(epoch) as Uint8Array)
    const policy = { ...UNLIMITED, window: this.window, dMin: this.dMin, minSessionSeconds: 5, retainEpochs: 2 }
    this.manager = this.managerOf(newManagerState(this.gid, policy))
    this.manager.allocateEpoch({ nbf: this.now })
    this.manager.activateEpoch()
  }

  run(): World {
    const { random } = this
    const sessions = random.between(8, 33)
    const backupAt = random.chance(0.25) ? random.between(2, sessions - 2) : -1
    const restoreAt = backupAt + random.between(1, 4)
    let backup: ManagerState | undefined
    for (let n = 0; n < sessions; n++) {
      for (let k = random.between(0, n === 0 ? 6 : 4); k > 0; k--) this.operation()
      this.epochs()
      this.session()
      if (n === backupAt) backup = structuredClone(this.manager.state())
      if (n === restoreAt && backup !== undefined) this.restore(backup)
    }
    const { seed, gid, suite, signingKey, model, truth, broadcasts, personals, handed, faults } = this
    return { seed, gid, suite, signingKey, model, truth, broadcasts, personals, handed, faults }
  }

  private managerOf(state: ManagerState): GroupManager {
    const inner = randomEpochSecrets((length) => this.random.bytes(length))
    return sdsh(this.suite).manager({
      state,
      signingKey: this.signingKey,
      secrets: {
        create: (epoch) => {
          if (this.secrets.has(epoch)) this.faults.push(`epoch ${epoch} made twice`)
          const secret = inner.create(epoch)
          this.secrets.set(epoch, Uint8Array.from(secret as Uint8Array))
          return secret
        },
        get: (epoch) => inner.get(epoch),
        erase: (epoch) => inner.erase(epoch),
      },
    })
  }

  private operation(): void {
    const { random, model, manager } = this
    const standing = model.memberships.filter((m) => m.out === undefined)
    const gone = [...new Set(model.memberships.map((m) => m.id))].filter((id) => model.standing(id) === undefined)
    // time passes, and with it the lead: now may still lie before the newest session
    this.now += random.between(0, 60)
    const kind = random.between(0, 99)
    if (kind < 40 || standing.length === 0) this.join(`m${String(this.count++).padStart(3, '0')}`)
    else if (kind < 50 && gone.length > 0) this.join(random.pick(gone))
    else if (kind < 56) this.join(random.pick(standing).id)
    else if (kind < 74) {
      const { id } = random.pick(standing)
      model.leave(id)
      manager.leave(utf8(id))
    } else if (kind < 80) {
      const m = random.pick(standing)
      m.expiresAt = random.chance(0.3) ? undefined : this.now + random.between(50, 3000)
      manager.renew(utf8(m.id), m.expiresAt)
    } else if (kind < 90) {
      for (const { id } of random.chance(0.4) ? standing : [random.pick(standing)]) {
        model.suspend(id)
        manager.suspend(utf8(id))
      }
    } else {
      for (const { id } of standing) {
        if (random.chance(0.2)) continue
        model.resume(id)
        manager.resume(utf8(id))
      }
    }
    this.collect()
  }

  private join(id: string): void {
    const { random, now } = this
    const mode = random.chance(0.6) ? 'current' : 'next'
    const expiresAt = random.chance(0.4) ? now + random.between(50, 3000) : undefined
    const expected = this.model.join(id, mode, now, expiresAt)
    const joined = this.manager.join(utf8(id), { mode, expiresAt, now })
    if (joined.start !== expected.start) this.faults.push(`${id} starts at ${joined.start}, not ${expected.start}`)
    this.handOver(id, joined.keys)
    for (const key of [joined.personal, joined.upcoming]) if (key !== undefined) this.addPersonal(id, key)
  }

  private handOver(id: string, keys: readonly SessionKey[]): void {
    this.handed.set(id, [...(this.handed.get(id) ?? []), ...keys])
    for (const { session, K } of keys) {
      const record = this.model.sessions.find((s) => s.session === session)
      const real = record && groupKey(this.suite, this.truth.tree(record.epoch).leaf(session))
      if (real === undefined || !equalBytes(real, K))
        this.faults.push(`a wrong key of session ${session} was handed over`)
      if (!this.model.inGroup(id, session)) this.faults.push(`${id} was handed the key of session ${session}`)
    }
  }

  private addPersonal(id: string, key: PersonalKey): void {
    const list = this.personals.get(id) ?? []
    if (list.some((k) => k.epoch === key.epoch && k.leaf === key.leaf)) return
    list.push(key)
    this.personals.set(id, list)
    const leaves = this.leaves.get(key.epoch) ?? new Set<number>()
    if (leaves.has(key.leaf)) this.faults.push(`leaf ${key.leaf} of epoch ${key.epoch} given out twice`)
    this.leaves.set(key.epoch, leaves.add(key.leaf))
  }

  /** Everybody fetches whatever personal keys there are. */
  private collect(): void {
    const { manager } = this
    for (const m of manager.members()) {
      const id = new TextDecoder().decode(m.id)
      for (const epoch of [manager.epoch, manager.allocatedEpoch]) {
        const leaf = m.leaves.find((l) => l.epoch === epoch)?.leaf
        const held = (this.personals.get(id) ?? []).some((k) => k.epoch === epoch && k.leaf === leaf)
        if (epoch !== undefined && leaf !== undefined && !held) this.addPersonal(id, manager.personal(m.id, epoch))
      }
    }
  }

  private epochs(): void {
    const { random, manager } = this
    const nbf = this.now + 500
    const left = this.epochLength - this.inEpoch
    if (left <= 2 && manager.allocatedEpoch === undefined && random.chance(0.6)) manager.allocateEpoch({ nbf })
    // passed over: an allocated epoch is given up for the next one
    if (manager.allocatedEpoch !== undefined && random.chance(0.1)) manager.allocateEpoch({ nbf })
    this.collect()
    const advice = manager.compaction({ nbf })
    if (left <= 0 || advice.when === 'now') {
      if (manager.allocatedEpoch === undefined) manager.allocateEpoch({ nbf })
      manager.activateEpoch()
      this.inEpoch = 0
      this.collect()
      if (random.chance(0.3)) this.operation()
    }
  }

  private session(): void {
    const { random, manager, model } = this
    const before = model.sessions.at(-1)
    const nbf = Math.max(this.now, (before?.nbf ?? 0) + 5) + random.between(0, 150)
    const exp = nbf + random.between(100, 400)
    let bytes = manager.next({ nbf, exp })
    const changes = manager.changes()
    if (changes?.broadcast === undefined || toHex(changes.broadcast.bytes) !== toHex(bytes)) {
      this.faults.push('a broadcast that is not among the changes')
    }
    manager.committed()
    this.inEpoch++
    const session = model.begin(manager.session, manager.epoch, nbf, exp)
    this.collect()
    const live: { leaf: number; from: number }[] = []
    for (const m of model.live()) {
      const leaf = this.leafOf(m)
      if (leaf === undefined) {
        // no leaf yet: its keys come by GET, session by session
        const keys = manager.keys(utf8(m.id), { now: nbf })
        this.handOver(m.id, keys)
        for (const k of keys) m.given.add(k.session)
        continue
      }
      live.push({ leaf, from: Math.max(m.start, session.from) })
      m.covered.set(session.session, session.from)
    }
    const { suite, gid, signingKey, truth } = this
    if (this.forge !== undefined) {
      bytes = this.forge({
        suite,
        gid,
        signingKey,
        truth,
        secret: this.secrets.get(session.epoch) as Uint8Array,
        session,
        depth: this.depthOf(session.epoch),
        live,
        before: this.reached,
        allocated: this.leaves.get(session.epoch) ?? new Set(),
        sessions: model.sessions,
      })
    }
    this.reached.unshift({ epoch: session.epoch, live })
    this.broadcasts.push(bytes)
    // published somewhere in the lead, or late
    this.now = Math.max(this.now, nbf - random.between(0, 60))
  }

  private depthOf(epoch: number): number {
    return this.manager.state().head.epochs.find((e) => e.epoch === epoch)?.depth as number
  }

  private leafOf(m: ModelMembership): number | undefined {
    const held = this.manager.membership(utf8(m.id))
    return held?.leaves.find((l) => l.epoch === this.manager.epoch)?.leaf
  }

  private restore(backup: ManagerState): void {
    const { random, model } = this
    const highestSession = random.chance(0.5) ? model.newest : undefined
    const recovery = recoverState(backup, { now: this.now, highestSession })
    this.manager = this.managerOf(recovery.state)
    const first = recovery.state.head.session + 1
    if (model.sessions.some((s) => s.session >= first)) this.faults.push('recovery reuses session numbers')
    model.recover(first)
    this.manager.allocateEpoch({ nbf: this.now })
    this.manager.activateEpoch()
    this.inEpoch = 0
  }
}
