/** Join responses, and for a short while a copy of each: a repeated join gets the same octets. */
import type { Clock } from '../protocol/clock.ts'
import { encodePersonalKey } from '../protocol/groups/personal-key.ts'
import { encodeJoinResponse } from '../protocol/messages/join.ts'
import { nodeName } from '../protocol/messages/node.ts'
import type { GroupPolicies } from '../protocol/messages/policies.ts'
import type { CoapReply } from '../transport/coap/server.ts'
import type { Credentials } from './credentials.ts'
import type { Group } from './group.ts'
import type { Admitted } from './joins.ts'
import type { Roster } from './roster.ts'

const KEPT_MS = 60_000
const KEPT = 1024

interface Snapshot {
  readonly reply: CoapReply
  /** newest session when it was made: a later one has another key to tell */
  readonly session: number
  readonly memberId: Uint8Array
  readonly start: number
  readonly endMs: number
}

export interface RepliesOptions {
  readonly roster: Roster
  readonly credentials: Credentials
  readonly clock: Clock
  readonly policies: (group: Group) => GroupPolicies
  /** encoded COSE_Key of the broadcast key */
  readonly kdcCred: Uint8Array
  /** `coap://host:port`, once the port is known */
  readonly publicUri: () => string
}

export class Replies {
  readonly #o: RepliesOptions
  readonly #snapshots = new Map<string, Snapshot>()

  constructor(options: RepliesOptions) {
    this.#o = options
  }

  get kdcCred(): Uint8Array {
    return this.#o.kdcCred
  }

  policies(group: Group): GroupPolicies {
    return this.#o.policies(group)
  }

  /** The octets of a join response. */
  join(admitted: Admitted): Uint8Array {
    const { clock, credentials, publicUri } = this.#o
    const { group, result } = admitted
    const now = Math.floor(clock.nowMs() / 1000)
    const exp = group.newest?.exp ?? now
    const records = credentials.list(group, admitted.withClients)
    const creds = records.map((r) => r.bytes)
    const peerIdentifiers = records.map((r) => r.senderIds[group.name] as Uint8Array)
    if (admitted.own !== undefined && admitted.senderId !== undefined) {
      creds.push(admitted.own)
      peerIdentifiers.push(admitted.senderId)
    }
    return encodeJoinResponse({
      keys: result.keys.map(({ session, K }) => ({ session, key: K })),
      num: group.newest?.session ?? 0,
      exp,
      exi: Math.max(0, exp - now),
      serverTime: now,
      creds,
      peerIdentifiers,
      policies: this.#o.policies(group),
      kdcCred: this.#o.kdcCred,
      senderId: admitted.senderId,
      controlUri: `/ace-group/${group.name}/nodes/${nodeName(admitted.memberId)}`,
      personalKey: encodePersonalKey(result.personal),
      controlGroupUri: `${publicUri()}/bc/${group.name}`,
    })
  }

  /** The reply to the very same join a moment ago, while what it says still holds. */
  snapshot(association: string, group: string, body: string): CoapReply | undefined {
    const key = `${association}/${group}/${body}`
    const kept = this.#snapshots.get(key)
    if (kept === undefined) return undefined
    const there = this.#o.roster.groups.get(group)
    const membership = there?.manager.membership(kept.memberId)
    const holds =
      this.#o.clock.monotonicMs() < kept.endMs &&
      there?.newest?.session === kept.session &&
      membership?.out === undefined &&
      membership?.suspendedFrom === undefined &&
      membership?.start === kept.start
    if (holds) return kept.reply
    this.#snapshots.delete(key)
    return undefined
  }

  keep(association: string, group: string, body: string, reply: CoapReply, admitted: Admitted): void {
    if (this.#snapshots.size >= KEPT) this.#snapshots.delete(this.#snapshots.keys().next().value as string)
    this.#snapshots.set(`${association}/${group}/${body}`, {
      reply,
      session: admitted.group.newest?.session ?? 0,
      memberId: admitted.memberId,
      start: admitted.result.start,
      endMs: this.#o.clock.monotonicMs() + KEPT_MS,
    })
  }
}
