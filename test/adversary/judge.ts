/** The two statements of the test, for one world: no coalition outside G_j has K_j, and everybody has what is theirs. */
import { equalBytes } from '../../protocol/bytes.ts'
import { openBroadcast } from '../../protocol/groups/broadcast.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { groupKey } from '../../protocol/groups/time-tree.ts'
import { Closure, keyFact, type Rule } from './closure.ts'
import type { Naive } from './mutants.ts'
import type { World } from './schedule.ts'
import { broadcastRules, factsOf, treeRules } from './wire.ts'

export interface Verdict {
  readonly violations: string[]
  coalitions: number
  exactness: number
  recoveries: number
}

type Knowledge = { facts: ReadonlyMap<string, readonly string[]>; rules: readonly Rule[] }

/** Judges the octets of a world. */
export function judge(world: World): Verdict {
  const verdict: Verdict = { violations: [...world.faults], coalitions: 0, exactness: 0, recoveries: 0 }
  weigh(world, wireKnowledge(world, verdict), verdict)
  recover(world, verdict)
  return verdict
}

/** Judges a mutant of SD-SH by what can be derived from its octets, without asking whether members work at all. */
export function judgeSecrecy(world: World): Verdict {
  const verdict: Verdict = { violations: [...world.faults], coalitions: 0, exactness: 0, recoveries: 0 }
  weigh(world, wireKnowledge(world, verdict), verdict)
  return verdict
}

/** Judges a naive scheme run over the memberships of a world. */
export function judgeNaive(world: World, naive: Naive): Verdict {
  const verdict: Verdict = { violations: [], coalitions: 0, exactness: 0, recoveries: 0 }
  weigh(world, naive(world), verdict)
  return verdict
}

function wireKnowledge(world: World, verdict: Verdict): Knowledge {
  const { suite, truth, model } = world
  const facts = new Map<string, string[]>()
  const depths = new Map<number, number>()
  for (const [id, keys] of world.personals) {
    const list: string[] = []
    for (const key of keys) {
      const { facts: labels, wrong } = factsOf(truth, key)
      if (wrong) verdict.violations.push(`a personal key of ${id} is not of its tree`)
      list.push(...labels)
      depths.set(key.epoch, key.depth)
    }
    facts.set(id, list)
  }
  for (const [id, keys] of world.handed) {
    facts.set(id, [...(facts.get(id) ?? []), ...keys.map((k) => keyFact(k.session))])
  }
  const rules: Rule[] = []
  for (const [epoch, depth] of depths) rules.push(...treeRules(epoch, depth))
  const epochOf = (j: number): number | undefined => model.sessions.find((s) => s.session === j)?.epoch
  const kdc = suite.ed25519.verifying(world.signingKey.publicKey)
  for (const bytes of world.broadcasts) {
    const broadcast = openBroadcast(suite, bytes, { kdc })
    const { rules: more, unreadable } = broadcastRules(suite, truth, broadcast, epochOf)
    if (unreadable > 0) verdict.violations.push(`broadcast ${broadcast.session} has ranges that open to nobody`)
    rules.push(...more)
  }
  return { facts, rules }
}

function weigh(world: World, { facts, rules }: Knowledge, verdict: Verdict): void {
  const { model } = world
  const closure = new Closure(rules)
  const ids = [...new Set(model.memberships.map((m) => m.id))]
  const numbers = model.sessions.map((s) => s.session)
  const entitled = new Map(ids.map((id) => [id, model.entitled(id)]))
  const weighCoalition = (coalition: readonly string[], name: string): Set<string> => {
    const known = closure.of(coalition.flatMap((id) => facts.get(id) ?? []))
    for (const l of numbers) {
      verdict.exactness++
      const has = known.has(keyFact(l))
      const may = coalition.some((id) => entitled.get(id)?.has(l))
      if (has !== may) verdict.violations.push(`${name} ${has ? 'has' : 'lacks'} the key of session ${l}`)
    }
    return known
  }
  for (const j of numbers) {
    const coalition = ids.filter((id) => !model.inGroup(id, j))
    verdict.coalitions++
    if (weighCoalition(coalition, `the coalition outside session ${j}`).has(keyFact(j))) {
      verdict.violations.push(`the coalition outside session ${j} has its key`)
    }
  }
  for (const id of ids) weighCoalition([id], id)
}

/** Every member, every r: B_r alone gives every session of the window and no other. */
function recover(world: World, verdict: Verdict): void {
  const { suite, gid, model, truth } = world
  const kdc = suite.ed25519.verifying(world.signingKey.publicKey)
  const scheme = sdsh(suite)
  for (const [n, session] of model.sessions.entries()) {
    const bytes = world.broadcasts[n] as Uint8Array
    for (const [id, keys] of world.personals) {
      const own = keys.filter((k) => k.epoch === session.epoch)
      if (own.length === 0) continue
      const member = scheme.member({ gid, kdc })
      for (const key of own) member.addPersonal(key)
      const covered = model.memberships.find((m) => m.id === id && m.covered.has(session.session))
      const received = member.receive(bytes)
      const fault = (what: string): number => verdict.violations.push(`${id}, broadcast ${session.session}: ${what}`)
      if (covered === undefined) {
        if (received !== 'not-for-me') fault('opens, and should not')
        continue
      }
      if (typeof received === 'string') {
        fault(received)
        continue
      }
      const from = Math.max(covered.start, session.from)
      if (received.from !== from) fault(`opens from ${received.from}, not from ${from}`)
      for (let j = from; j <= session.session; j++) {
        verdict.recoveries++
        const epoch = model.sessions.find((s) => s.session === j)?.epoch
        if (epoch === undefined) continue
        const K = member.key(j)
        if (K === undefined || !equalBytes(K, groupKey(suite, truth.tree(epoch).leaf(j))))
          fault(`no key of session ${j}`)
      }
      if (member.key(from - 1) !== undefined) fault(`a key of session ${from - 1}`)
    }
  }
}
