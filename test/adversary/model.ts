/**
 * The oracle: who was entitled to which session, kept by the rules of protocol.md §3.2 and nothing else. It shares no
 * code with the manager.
 */
export interface ModelMembership {
  readonly id: string
  readonly start: number
  expiresAt: number | undefined
  out: number | undefined
  suspendedFrom: number | undefined
  /** Sessions whose keys were handed over by other means than a broadcast (join, GET of a member without a leaf). */
  readonly given: Set<number>
  /** Sessions whose broadcast covered it → the oldest session that it heals. */
  readonly covered: Map<number, number>
}

export interface ModelSession {
  readonly session: number
  readonly epoch: number
  readonly nbf: number
  readonly exp: number
  /** Oldest session that its broadcast may heal: max(r − w, f). */
  readonly from: number
}

export class Model {
  readonly memberships: ModelMembership[] = []
  readonly sessions: ModelSession[] = []
  /** f of the present life of the key server, and the number of its first session. */
  floor = 1
  /** Sessions of the present life; a restored key server knows none of the earlier ones. */
  private life: ModelSession[] = []
  /** p: newest session, or one below the first of this life. */
  newest = 0
  private readonly window: number | { seconds: number; min: number }

  constructor(window: number | { seconds: number; min: number }) {
    this.window = window
  }

  standing(id: string): ModelMembership | undefined {
    return this.memberships.findLast((m) => m.id === id && m.out === undefined)
  }

  /** The session in use at `now`. */
  running(now: number): number {
    const begun = this.life.filter((s) => s.nbf <= now)
    const last = begun.at(-1)
    if (last !== undefined && last.exp > now) return last.session
    return this.life.find((s) => s.nbf > now)?.session ?? this.newest + 1
  }

  join(id: string, mode: 'current' | 'next', now: number, expiresAt: number | undefined): ModelMembership {
    const standing = this.standing(id)
    if (standing !== undefined) {
      standing.expiresAt = expiresAt
      standing.suspendedFrom = undefined
      for (let j = Math.max(standing.start, this.running(now)); j <= this.newest; j++) standing.given.add(j)
      return standing
    }
    const start = mode === 'next' ? this.newest + 1 : this.running(now)
    const m: ModelMembership = {
      id,
      start,
      expiresAt,
      out: undefined,
      suspendedFrom: undefined,
      given: new Set(),
      covered: new Map(),
    }
    for (let j = Math.max(start, this.running(now)); j <= this.newest; j++) m.given.add(j)
    this.memberships.push(m)
    return m
  }

  leave(id: string): void {
    const m = this.standing(id)
    if (m !== undefined) this.end(m, this.newest + 1)
  }

  suspend(id: string): void {
    const m = this.standing(id)
    if (m !== undefined) m.suspendedFrom ??= this.newest + 1
  }

  resume(id: string): void {
    const m = this.standing(id)
    if (m !== undefined) m.suspendedFrom = undefined
  }

  /** A session is made; memberships that do not reach it end. */
  begin(session: number, epoch: number, nbf: number, exp: number): ModelSession {
    const w = this.window
    let reach: number
    if (typeof w === 'number') reach = w
    else reach = Math.max(w.min, this.life.filter((s) => s.nbf >= nbf - w.seconds).length)
    const record = { session, epoch, nbf, exp, from: Math.max(1, this.floor, session - reach) }
    for (const m of this.memberships) {
      if (m.out === undefined && m.expiresAt !== undefined && m.expiresAt <= nbf) this.end(m, session)
    }
    this.sessions.push(record)
    this.life.push(record)
    this.newest = session
    return record
  }

  /** Memberships that the broadcast made last reaches, leaves permitting. */
  live(): ModelMembership[] {
    const r = this.newest
    return this.memberships.filter((m) => m.start <= r && m.out === undefined && m.suspendedFrom === undefined)
  }

  /** The key server came back from a backup: everybody is out at f. */
  recover(firstSession: number): void {
    for (const m of this.memberships) if (m.out === undefined) this.end(m, this.newest + 1)
    this.life = []
    this.floor = firstSession
    this.newest = firstSession - 1
  }

  /** In G_j: a membership covers j; a suspension that was lifted, or still may be, does not count. */
  inGroup(id: string, j: number): boolean {
    return this.memberships.some((m) => m.id === id && m.start <= j && (m.out === undefined || j < m.out))
  }

  /** Sessions whose key the member must be able to have, with every broadcast at hand. */
  entitled(id: string): Set<number> {
    const sessions = new Set<number>()
    for (const m of this.memberships) {
      if (m.id !== id) continue
      for (const j of m.given) sessions.add(j)
      for (const [r, from] of m.covered) {
        for (const s of this.sessions)
          if (s.session >= Math.max(m.start, from) && s.session <= r) sessions.add(s.session)
      }
    }
    return sessions
  }

  private end(m: ModelMembership, session: number): void {
    m.out = Math.max(m.start, m.suspendedFrom ?? session)
    m.suspendedFrom = undefined
  }
}
