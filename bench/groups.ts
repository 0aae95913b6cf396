/**
 * `npm run bench -- groups`: bar P6. Octets of a signed broadcast over many sets of revoked members, alignments of the
 * window and sizes of the group; HMACs that a member needs to reach the newest key. Both are exact counts; times are
 * printed beside them.
 */
import { utf8 } from '../protocol/bytes.ts'
import { suite as node } from '../protocol/crypto/node.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { treeDepth } from '../protocol/groups/allocation.ts'
import { planCohorts, plannedOctets } from '../protocol/groups/assemble.ts'
import { randomEpochSecrets } from '../protocol/groups/epoch-secrets.ts'
import { type ManagerState, newManagerState } from '../protocol/groups/manager-state.ts'
import { sdsh } from '../protocol/groups/sdsh.ts'
import { cpu } from './objects-contenders.ts'

export interface GroupsBenchOptions {
  readonly rounds?: number | undefined
  readonly log?: ((line: string) => void) | undefined
}

export interface GroupsBenchResult {
  readonly passed: boolean
  readonly octets: Readonly<Record<string, readonly number[]>>
  readonly prf: Readonly<Record<string, readonly number[]>>
}

const WINDOW = 96
const NBF = 1_800_000_000
const GROUPS = [16, 64, 256, 1024, 4096, 16_384, 65_536]
/**
 * Octets: revoked members, within an epoch or across a border, bar. Up to one revoked member every set has to stay
 * under the bar. Twenty make 24 subsets in the middle, and up to 29 where they lie badly: the bar is that of a
 * broadcast of 25 subsets, whatever the alignment of its window, and of the median over sets in every size of group.
 */
const BARS = [
  { revoked: 0, border: false, bar: 300 },
  { revoked: 1, border: false, bar: 300 },
  { revoked: 0, border: true, bar: 390 },
  { revoked: 1, border: true, bar: 390 },
  { revoked: 20, border: false, bar: 830 },
  { revoked: 20, border: true, bar: 830 },
] as const
const SAMPLES = 99
const TYPICAL_SUBSETS = 25

export async function benchGroups(options: GroupsBenchOptions = {}): Promise<GroupsBenchResult> {
  const { rounds = 11, log = (line: string) => void process.stdout.write(`${line}\n`) } = options
  const octets: Record<string, number[]> = {}
  const prf: Record<string, number[]> = {}
  let passed = true
  for (const { revoked, border, bar } of BARS) {
    const medians: number[] = []
    const all: Sized[] = []
    for (const size of GROUPS) {
      const members = Math.floor((size * 3) / 4)
      if (revoked * 2 > members) continue
      const sample = Array.from({ length: SAMPLES }, (_, n) => broadcastSize(members, revoked, border, n)).sort(
        (a, b) => a.octets - b.octets,
      )
      octets[`${size} leaves, ${revoked} revoked${border ? ', across a border' : ''}`] = sample.map((s) => s.octets)
      medians.push((sample[SAMPLES >> 1] as Sized).octets)
      all.push(...sample)
    }
    const name = `${String(revoked).padStart(2)} revoked, ${border ? 'across an epoch border' : 'inside an epoch'}`
    const most = largest(all)
    const subsets = `${most.subsets} subset${most.subsets === 1 ? '' : 's'}`
    const every = revoked <= 1
    const typical = largest(all.filter((s) => s.subsets <= TYPICAL_SUBSETS))
    const median = Math.max(...medians)
    const holds = every ? most.octets <= bar : Math.max(median, typical.octets) <= bar
    passed &&= holds
    const judged = every
      ? `every set ≤ ${most.octets} (${subsets}), median ≤ ${median}`
      : `median of the sets ≤ ${median}, every one of up to ${TYPICAL_SUBSETS} subsets ≤ ${typical.octets}`
    const beyond = all.filter((s) => s.octets > bar).length
    const rest = every ? '' : `; ${beyond} of ${all.length} sets over it, the largest ${most.octets} (${subsets})`
    log(`P6   ${name}: ${judged} octets, whatever N  bar ≤ ${bar}  ${holds ? 'holds' : 'MISSED'}${rest}`)
  }
  for (const [depth, members, revoked] of [
    [8, 100, 5],
    [10, 500, 10],
    [16, 30_000, 20],
  ] as const) {
    const work = memberWork(depth, members, revoked, rounds)
    const bar = depth + Math.floor(Math.log2(WINDOW + 1)) + 4
    prf[`depth ${depth}`] = work.counts
    const counts = [...work.counts].sort((a, b) => a - b)
    const most = counts.at(-1) as number
    passed &&= most <= bar
    log(
      `P6   depth ${depth}: K_r after ${counts[counts.length >> 1]} HMACs (median), at most ${most}, and one verification  ` +
        `bar ≤ ${bar}  ${most <= bar ? 'holds' : 'MISSED'}  (made in ${work.makeMs.toFixed(1)} ms, received in ${work.receiveMs.toFixed(2)} ms)`,
    )
  }
  return { passed, octets, prf }
}

interface Sized {
  readonly octets: number
  /** of the cover */
  readonly subsets: number
}

function largest(sizes: readonly Sized[]): Sized {
  return sizes.reduce((a, b) => (b.octets > a.octets ? b : a))
}

/** Size of B_r with one cohort; everything drawn from `seed`. */
function broadcastSize(members: number, revoked: number, border: boolean, seed: number): Sized {
  const random = generator(seed * 1000 + members)
  const depth = treeDepth(members, 8)
  const gone = new Set<number>()
  while (gone.size < revoked) gone.add(Math.floor(random() * members))
  const session = WINDOW + 1 + Math.floor(random() * 100_000)
  const first = session - WINDOW
  const live = []
  for (let leaf = 0; leaf < members; leaf++) if (!gone.has(leaf)) live.push({ leaf, from: first })
  const borders = border ? [first + 1 + Math.floor(random() * WINDOW)] : []
  const cohorts = planCohorts(session, depth, live, borders)
  const plan = { gid: new Uint8Array(8), epoch: 40, session, nbf: NBF, exp: NBF + 900, depth, cohorts }
  return { octets: plannedOctets(plan), subsets: cohorts.reduce((sum, c) => sum + c.cover.length, 0) }
}

/** A group of one cohort in mid-life, and what receiving its broadcast costs members picked at random. */
function memberWork(depth: number, members: number, revoked: number, rounds: number) {
  const random = generator(depth)
  const gid = utf8('bench-01')
  const signingKey = node.ed25519.signing(new Uint8Array(32).fill(1))
  const secrets = randomEpochSecrets((length) => new Uint8Array(length).fill(7))
  secrets.create(1)
  const fresh = newManagerState(gid, { window: WINDOW, minSessionSeconds: 1 })
  const last = 1000 + Math.floor(random() * 100)
  const epoch = { epoch: 1, depth, nextLeaf: members, nbf: NBF, first: 1, last }
  const gone = new Set<number>()
  while (gone.size < revoked) gone.add(Math.floor(random() * members))
  const state: ManagerState = {
    head: { ...fresh.head, session: last, lastEpoch: 1, active: 1, epochs: [epoch], nextMembership: members + 1 },
    memberships: Array.from({ length: members }, (_, n) => ({
      number: n + 1,
      id: utf8(`m${n}`),
      start: 1,
      ...(gone.has(n) ? { out: last + 1 } : {}),
      leaves: [{ epoch: 1, leaf: n }],
    })),
    sessions: [{ session: last, epoch: 1, nbf: NBF, exp: NBF + 900 }],
  }
  const manager = sdsh(node).manager({ state, secrets, signingKey })
  const counts: number[] = []
  let makeMs = 0
  let receiveMs = 0
  for (let round = 0; round < rounds; round++) {
    let bytes = new Uint8Array(0)
    const nbf = NBF + 900 * (round + 1)
    makeMs += cpu(() => {
      bytes = Uint8Array.from(manager.next({ nbf, exp: nbf + 900 }))
    })
    manager.changes()
    manager.committed()
    for (let pick = 0; pick < 12; pick++) {
      const n = Math.floor(random() * members)
      if (gone.has(n)) continue
      const counting = countPrf(node)
      const member = sdsh(counting.suite).member({ gid, kdc: node.ed25519.verifying(signingKey.publicKey) })
      member.addPersonal(manager.personal(utf8(`m${n}`)))
      receiveMs += cpu(() => {
        member.receive(bytes)
        if (member.key(last + round + 1) === undefined) throw new Error('a member without the key')
      })
      counts.push(counting.count())
    }
  }
  return { counts, makeMs: (makeMs * 1000) / rounds, receiveMs: (receiveMs * 1000) / counts.length }
}

function countPrf(suite: CryptoSuite): { suite: CryptoSuite; count: () => number } {
  let count = 0
  return {
    count: () => count,
    suite: {
      ...suite,
      hmacOnce(key, message) {
        count++
        return suite.hmacOnce(key, message)
      },
    },
  }
}

/** mulberry32: the same sets in every run. */
function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
