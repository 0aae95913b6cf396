/** Groups with random lives: what one implementation broadcasts the other makes too, and opens; and what it must not. */
import { suite } from '#crypto'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { decodeCbor, encodeCbor, Tagged } from '../../protocol/cbor.ts'
import { sign1 } from '../../protocol/cose/sign1.ts'
import type { SigningKey } from '../../protocol/crypto/suite.ts'
import { BROADCAST_AAD, signBroadcast } from '../../protocol/groups/broadcast.ts'
import { rootEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import { newManagerState } from '../../protocol/groups/manager-state.ts'
import { MEMBER_LIMITS } from '../../protocol/groups/member-state.ts'
import { decodePersonalKey, encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import type { WindowPolicy } from '../../protocol/groups/policy.ts'
import type { GroupManager, GroupMember } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import type { Random } from '../adversary/random.ts'
import { bent, damaged } from './mutation.ts'
import { type Refused, tried } from './peer.ts'
import type { Stand } from './tally.ts'

type Op = readonly [string, ...unknown[]]

interface Life {
  readonly gid: Uint8Array
  readonly root: Uint8Array
  readonly seed: Uint8Array
  readonly window: WindowPolicy
  readonly depth: number
  readonly ops: readonly Op[]
}

const NO_LIMITS = { leavesPerMemberAndEpoch: 1e6, rejoinsPerHour: 1e6, retainEpochs: 1024, minSessionSeconds: 1 }
const EPOCH_SECONDS = 86_400

/** Joins, renewals, leaves, suspensions, epochs allocated ahead or passed over, sessions of uneven length. */
function life(random: Random, sessions: number): Life {
  const ops: Op[] = [['allocate', 1_700_000_000], ['activate']]
  let now = 1_700_000_000 + random.between(0, 1000)
  const ids: string[] = []
  let allocated = false
  for (let made = 0; made < sessions; ) {
    const kind = random.between(0, 11)
    if (kind <= 3) {
      const known = ids.length > 0 && random.chance(0.2)
      const id = known ? random.pick(ids) : toHex(Uint8Array.from([1, ...random.bytes(20)]))
      if (!known) ids.push(id)
      const end = random.chance(0.4) ? now + random.between(1, 8000) : null
      ops.push(['join', id, random.pick(['current', 'next']), end])
    } else if (kind === 4 && ids.length > 0) ops.push(['leave', random.pick(ids)])
    else if (kind === 5 && ids.length > 0) ops.push([random.pick(['suspend', 'resume']), random.pick(ids)])
    else if (kind === 6 && random.chance(0.4)) {
      ops.push(['allocate', now + random.between(0, 900)])
      allocated = true
    } else if (kind === 7 && allocated) {
      ops.push(['activate'])
      allocated = false
    } else if (kind > 7) {
      now += random.between(1, 1800)
      ops.push(['broadcast', now, now + random.between(1, 1800)])
      made++
    }
  }
  const window = random.chance(0.5)
    ? random.pick([1, 4, 16, 96])
    : { seconds: random.between(0, 10_000), min: random.between(1, 8) }
  const [gid, root, seed] = [random.bytes(8), random.bytes(32), random.bytes(32)]
  return { gid, root, seed, window, depth: random.between(1, 6), ops }
}

function managerOf({ gid, root, seed, window, depth }: Life): GroupManager {
  return sdsh(suite).manager({
    state: newManagerState(gid, { ...NO_LIMITS, window, dMin: depth, epochSeconds: EPOCH_SECONDS }),
    secrets: rootEpochSecrets(suite, root, gid),
    signingKey: suite.ed25519.signing(seed),
  })
}

interface Lived {
  readonly broadcasts: string[]
  /** [identifier, epoch, personal key] of who is a member at the end */
  readonly personals: [string, number, string][]
}

function live(l: Life): Lived {
  const manager = managerOf(l)
  const broadcasts: string[] = []
  for (const [name, ...args] of l.ops) {
    if (name === 'allocate') manager.allocateEpoch({ nbf: args[0] as number })
    else if (name === 'activate') manager.activateEpoch()
    else if (name === 'broadcast') {
      broadcasts.push(toHex(manager.next({ nbf: args[0] as number, exp: args[1] as number })))
    } else {
      const id = fromHex(args[0] as string)
      if (name === 'join') {
        manager.join(id, { mode: args[1] as 'current' | 'next', expiresAt: (args[2] as number | null) ?? undefined })
      } else if (name === 'leave') manager.leave(id)
      else if (name === 'suspend') manager.suspend(id)
      else manager.resume(id)
    }
    if (manager.changes() !== undefined) manager.committed()
  }
  const personals = [...manager.members()].flatMap((m) =>
    m.leaves.map(({ epoch }): [string, number, string] => [
      toHex(m.id),
      epoch,
      toHex(encodePersonalKey(manager.personal(m.id, epoch))),
    ]),
  )
  return { broadcasts, personals }
}

function memberOf(l: Life, personals: readonly string[]): GroupMember {
  const kdc = suite.ed25519.verifying(suite.ed25519.signing(l.seed).publicKey)
  const member = sdsh(suite).member({ gid: l.gid, kdc })
  for (const octets of personals) member.addPersonal(decodePersonalKey(fromHex(octets)))
  return member
}

const OUTCOME = { 'not-for-me': 'not for me', 'unknown-epoch': 'unknown epoch', old: 'ignored' } as const

function received(member: GroupMember, octets: Uint8Array, asked: boolean): string | Refused {
  return tried(() => {
    const result = member.receive(octets, { asked })
    return typeof result === 'string' ? OUTCOME[result] : 'opened'
  })
}

const sorted = (personals: readonly unknown[]): string[] => personals.map((p) => JSON.stringify(p)).sort()

/** @param lives how many groups */
export async function groupCells(stand: Stand, lives: number): Promise<void> {
  const { second, tally, random } = stand
  for (let n = 0; n < lives; n++) {
    const l = life(random, random.between(4, 24))
    const hex = { gid: toHex(l.gid), root: toHex(l.root), seed: toHex(l.seed) }
    const window = typeof l.window === 'number' ? l.window : [l.window.seconds, l.window.min]
    const ours = live(l)
    const [theirs] = (await second.ask<Lived>('manage', [{ ...hex, window, depth: l.depth, ops: l.ops }])) as [Lived]
    for (const [j, octets] of ours.broadcasts.entries()) {
      tally.same('broadcasts made by both', octets, theirs.broadcasts?.[j], { life: n, session: j + 1 })
    }
    tally.same('personal keys made by both', sorted(ours.personals), sorted(theirs.personals ?? []), { life: n })
    await members(stand, l, theirs)
    await forgeries(stand, l, theirs)
  }
}

/** Each member through all broadcasts, some of them lost, then one asked for again: the same outcomes, the same keys. */
async function members({ second, tally, random }: Stand, l: Life, lived: Lived): Promise<void> {
  const pinned = toHex(suite.ed25519.signing(l.seed).publicKey)
  const ids = [...new Set(lived.personals.map(([id]) => id))].slice(0, 6)
  const items = ids.map((id) => {
    // a member keeps a bounded number: more would be let go by each in its own way
    const personals = lived.personals
      .filter(([who]) => who === id)
      .map(([, , octets]) => octets)
      .slice(-MEMBER_LIMITS.personals)
    const messages = lived.broadcasts.filter(() => random.chance(0.7)).map((octets) => ({ octets, asked: false }))
    const again = { octets: random.pick(lived.broadcasts), asked: random.chance(0.7) }
    return { gid: toHex(l.gid), pinned, personals, messages: [...messages, again], sessions: lived.broadcasts.length }
  })
  interface Through {
    readonly outcomes: unknown[]
    readonly keys: (string | null)[]
  }
  const answers = await second.ask<Through>('member', items)
  for (const [n, item] of items.entries()) {
    const member = memberOf(l, item.personals)
    const outcomes = item.messages.map(({ octets, asked }) => received(member, fromHex(octets), asked))
    const keys = Array.from({ length: item.sessions }, (_, j) => {
      const key = member.key(j + 1)
      return key === undefined ? null : toHex(key)
    })
    const through = answers[n] as Through
    tally.same('what members make of broadcasts', outcomes, through.outcomes, ids[n])
    tally.same('keys that members have', keys, through.keys, ids[n])
  }
}

/** Broadcasts bent and signed again with the right key, with another one, or damaged on the way. */
async function forgeries({ second, tally, random, rounds }: Stand, l: Life, lived: Lived): Promise<void> {
  const right = suite.ed25519.signing(l.seed)
  const wrong = suite.ed25519.signing(random.bytes(32))
  const id = lived.personals[0]?.[0]
  const personals = lived.personals
    .filter(([who]) => who === id)
    .map(([, , octets]) => octets)
    .slice(-MEMBER_LIMITS.personals)
  const messages = Array.from({ length: rounds / 8 }, () =>
    toHex(forged(random, random.pick(lived.broadcasts), right, wrong)),
  )
  const question = { gid: toHex(l.gid), pinned: toHex(right.publicKey), personals, messages }
  const [answers] = (await second.ask<unknown[]>('receive', [question])) as [unknown[]]
  for (const [n, octets] of messages.entries()) {
    tally.same('forged broadcasts', received(memberOf(l, personals), fromHex(octets), false), answers[n], octets)
  }
}

function forged(random: Random, broadcast: string, right: SigningKey, wrong: SigningKey): Uint8Array {
  const message = decodeCbor(fromHex(broadcast)) as Tagged
  const [header, , payload] = message.value as [Uint8Array, unknown, Uint8Array]
  const kind = random.between(0, 6)
  if (kind === 0) return damaged(random, fromHex(broadcast))
  if (kind === 1) return encodeCbor(new Tagged(18, bent(random, message.value)))
  if (kind === 2) return signBroadcast(suite, payload, wrong)
  if (kind === 3) return sign1(encodeCbor(bent(random, decodeCbor(header))), payload, BROADCAST_AAD, right)
  if (kind === 4) return signBroadcast(suite, damaged(random, payload), right)
  return signBroadcast(suite, encodeCbor(bent(random, decodeCbor(payload))), right)
}
