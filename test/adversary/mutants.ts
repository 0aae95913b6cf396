/** Six schemes that are wrong. A test that does not catch them proves nothing. */
import { concat, u32 } from '../../protocol/bytes.ts'
import { maskHeal, planCohorts } from '../../protocol/groups/assemble.ts'
import { COVER_ENTRY, encodeBroadcast, signBroadcast } from '../../protocol/groups/broadcast.ts'
import { packSubset } from '../../protocol/groups/cover.ts'
import { toGid } from '../../protocol/groups/gid.ts'
import { dyadic, keyCheck } from '../../protocol/groups/time-tree.ts'
import { keyFact, type Rule } from './closure.ts'
import type { BroadcastContext, Forge, World } from './schedule.ts'

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Broadcasts made by the book, but for the leaves that they are given and the direction of the chain. */
function assemble(
  context: BroadcastContext,
  live: readonly { leaf: number; from: number }[],
  reversed = false,
): Uint8Array {
  const { suite, session, truth, secret, depth, sessions } = context
  const gid = toGid(context.gid)
  const F = (k: Uint8Array, m: Uint8Array): Uint8Array => suite.hmacOnce(k, m).subarray(0, 16)
  const starts = sessions.filter((s, n) => s.epoch !== sessions[n - 1]?.epoch).map((s) => s.session)
  const plan = planCohorts(session.session, depth, live, starts)
  const z = [F(secret, concat(ascii('iotc1 z'), u32(session.session)))]
  while (z.length < plan.length) z.push(F(z.at(-1) as Uint8Array, ascii('iotc1 next')))
  if (reversed) z.reverse()
  const cohorts = plan.map(({ start, end, cover }, k) => {
    const value = z[k] as Uint8Array
    const input = concat(
      Uint8Array.of(2),
      ascii('iotc1 wrap'),
      gid,
      u32(session.epoch),
      u32(session.session),
      u32(start),
    )
    const entries = cover.map((subset) => {
      const pad = F(truth.label(session.epoch, subset.i, subset.j), input)
      return concat(
        packSubset(subset),
        value.map((x, n) => x ^ (pad[n] as number)),
      )
    })
    const epoch = sessions.find((s) => s.session === start)?.epoch ?? session.epoch
    const nodes = concat(...dyadic(start, end).map((node) => truth.tree(epoch).node(node)))
    const heal = maskHeal(suite, value, gid, session.session, start, nodes, 0)
    const packed = concat(...entries)
    if (packed.length % COVER_ENTRY !== 0) throw new Error('a mutant that cannot even pack a cover')
    return { start, cover: packed, heal }
  })
  const { epoch, nbf, exp } = session
  const kcv = keyCheck(suite, truth.tree(epoch).leaf(session.session))
  const payload = encodeBroadcast({ gid, epoch, session: session.session, nbf, exp, depth, cohorts, kcv })
  return signBroadcast(suite, payload, context.signingKey)
}

/** Made by the same hand as the mutants, and right: what tells them apart is the fault alone. */
export const faithful: Forge = (context) => assemble(context, context.live)

export const MUTANTS: Readonly<Record<string, Forge>> = {
  'unallocated leaves covered': (context) => {
    const oldest = Math.min(context.session.session, ...context.live.map((l) => l.from))
    const free: { leaf: number; from: number }[] = []
    for (let leaf = 0; leaf < 2 ** context.depth; leaf++) {
      if (!context.allocated.has(leaf)) free.push({ leaf, from: oldest })
    }
    return assemble(context, [...context.live, ...free])
  },
  'no cohorts': (context) => {
    const oldest = Math.min(...context.live.map((l) => l.from))
    return assemble(
      context,
      context.live.map((l) => ({ leaf: l.leaf, from: oldest })),
    )
  },
  'a revoked leaf kept for two sessions': (context) => {
    const live = [...context.live]
    for (const { epoch, live: earlier } of context.before.slice(0, 2)) {
      if (epoch !== context.session.epoch) continue
      for (const l of earlier) if (!live.some((x) => x.leaf === l.leaf)) live.push(l)
    }
    return assemble(context, live)
  },
  'chain direction reversed': (context) => assemble(context, context.live, true),
}

/** A scheme of the literature, as facts and rules over the same memberships. */
export type Naive = (world: World) => { facts: ReadonlyMap<string, readonly string[]>; rules: readonly Rule[] }

/** Facts of each id: what `of` says for each membership's start and each session that covered it. */
function factsBy(
  world: World,
  start: (j: number) => string[],
  covered: (r: number) => string[],
): Map<string, string[]> {
  const facts = new Map<string, string[]>()
  for (const m of world.model.memberships) {
    const list = facts.get(m.id) ?? []
    if (m.covered.size > 0) list.push(...start(m.start))
    for (const r of m.covered.keys()) list.push(...covered(r))
    for (const j of m.given) list.push(keyFact(j))
    facts.set(m.id, list)
  }
  return facts
}

export const NAIVE: Readonly<Record<string, Naive>> = {
  'dual hash chain': (world) => {
    const numbers = world.model.sessions.map((s) => s.session)
    const rules: Rule[] = []
    for (const [n, j] of numbers.entries()) {
      rules.push({ from: [`header/${j}`], to: `backward/${j}` })
      rules.push({ from: [`forward/${j}`, `backward/${j}`], to: keyFact(j) })
      const before = numbers[n - 1]
      if (before === undefined) continue
      rules.push({ from: [`backward/${j}`], to: `backward/${before}` })
      rules.push({ from: [`forward/${before}`], to: `forward/${j}` })
    }
    return {
      facts: factsBy(
        world,
        (j) => [`forward/${j}`],
        (r) => [`header/${r}`],
      ),
      rules,
    }
  },
  'p/q split under the group header': (world) => {
    const numbers = world.model.sessions.map((s) => s.session)
    const rules: Rule[] = []
    for (const r of numbers) {
      for (const j of numbers) {
        if (j <= r) rules.push({ from: [`header/${r}`], to: `p/${j}` })
        if (j >= r) rules.push({ from: [`header/${r}`], to: `q/${j}` })
      }
      rules.push({ from: [`p/${r}`, `q/${r}`], to: keyFact(r) })
    }
    return {
      facts: factsBy(
        world,
        () => [],
        (r) => [`header/${r}`],
      ),
      rules,
    }
  },
}
