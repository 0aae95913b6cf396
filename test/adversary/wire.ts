/**
 * Turns octets on the wire into rules. Nothing is taken on trust: each wrap is unmasked with the label that it claims,
 * each chain value followed, each time node unmasked with every value that comes to light, and all compared with what
 * the epoch secrets say.
 */
import { concat, equalBytes, toHex, u32 } from '../../protocol/bytes.ts'
import type { CryptoSuite } from '../../protocol/crypto/suite.ts'
import { maskHeal } from '../../protocol/groups/assemble.ts'
import type { Broadcast } from '../../protocol/groups/broadcast.ts'
import type { PersonalKey } from '../../protocol/groups/scheme.ts'
import { dyadic, sessionsOf, TimeTree } from '../../protocol/groups/time-tree.ts'
import { labelOf } from '../../protocol/groups/tree.ts'
import { keyFact, type Rule } from './closure.ts'

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

/** What only the test knows: all epoch secrets. */
export class Truth {
  private readonly trees = new Map<number, TimeTree>()
  private readonly labels = new Map<string, Uint8Array>()
  private readonly suite: CryptoSuite
  private readonly secretOf: (epoch: number) => Uint8Array

  constructor(suite: CryptoSuite, secretOf: (epoch: number) => Uint8Array) {
    this.suite = suite
    this.secretOf = secretOf
  }

  tree(epoch: number): TimeTree {
    let tree = this.trees.get(epoch)
    if (tree === undefined) {
      tree = new TimeTree(this.suite, this.secretOf(epoch))
      this.trees.set(epoch, tree)
    }
    return tree
  }

  label(epoch: number, i: number, j: number): Uint8Array {
    const name = labelFact(epoch, i, j)
    let label = this.labels.get(name)
    if (label === undefined) {
      label = labelOf(this.suite, this.secretOf(epoch), { i, j })
      this.labels.set(name, label)
    }
    return label
  }
}

export const labelFact = (epoch: number, i: number, j: number): string => `L/${epoch}/${i}/${j}`

/** The facts in a personal key; labels that are not the tree's are reported. */
export function factsOf(truth: Truth, key: PersonalKey): { facts: string[]; wrong: boolean } {
  const { epoch, depth, leaf, labels } = key
  const facts = [labelFact(epoch, 1, 0)]
  let wrong = !equalBytes(labels.subarray(0, 16), truth.label(epoch, 1, 0))
  const node = 2 ** depth + leaf
  let at = 16
  for (let di = 0; di < depth; di++) {
    for (let dj = di + 1; dj <= depth; dj++) {
      const i = node >> (depth - di)
      const sibling = (node >> (depth - dj)) ^ 1
      facts.push(labelFact(epoch, i, sibling))
      if (!equalBytes(labels.subarray(at, at + 16), truth.label(epoch, i, sibling))) wrong = true
      at += 16
    }
  }
  return { facts, wrong: wrong || at !== labels.length }
}

/** Each label gives those below it. */
export function* treeRules(epoch: number, depth: number): Iterable<Rule> {
  for (let i = 1; i < 2 ** depth; i++) {
    const top = 31 - Math.clz32(i)
    for (let below = 1; below < depth - top; below++) {
      for (let j = i << below; j < (i + 1) << below; j++) {
        yield { from: [labelFact(epoch, i, j)], to: labelFact(epoch, i, 2 * j) }
        yield { from: [labelFact(epoch, i, j)], to: labelFact(epoch, i, 2 * j + 1) }
      }
    }
  }
}

/**
 * The rules that a broadcast adds.
 * @param epochOf epoch of a session
 */
export function broadcastRules(
  suite: CryptoSuite,
  truth: Truth,
  b: Broadcast,
  epochOf: (session: number) => number | undefined,
): { rules: Rule[]; unreadable: number } {
  const rules: Rule[] = []
  const values = new Map<string, Uint8Array>()
  const add = (value: Uint8Array): string => {
    const fact = `V/${b.session}/${toHex(value)}`
    values.set(fact, value)
    return fact
  }
  for (const { start, cover } of b.cohorts) {
    const input = concat(Uint8Array.of(2), ascii('iotc1 wrap'), b.gid, u32(b.epoch), u32(b.session), u32(start))
    for (const { subset, wrap } of cover) {
      const pad = suite.hmacOnce(truth.label(b.epoch, subset.i, subset.j), input)
      rules.push({
        from: [labelFact(b.epoch, subset.i, subset.j)],
        to: add(wrap.map((x, n) => x ^ (pad[n] as number))),
      })
    }
  }
  for (const value of [...values.values()]) {
    let from = value
    for (let step = 1; step < b.cohorts.length; step++) {
      const to = suite.hmacOnce(from, ascii('iotc1 next')).subarray(0, 16)
      rules.push({ from: [`V/${b.session}/${toHex(from)}`], to: add(to) })
      from = to
    }
  }
  let unreadable = 0
  for (const [k, { start, heal }] of b.cohorts.entries()) {
    const end = (b.cohorts[k + 1]?.start ?? b.session + 1) - 1
    const nodes = dyadic(start, end)
    const readers = new Set<string>()
    for (const [fact, value] of values) {
      const plain = maskHeal(suite, value, b.gid, b.session, start, heal, 0)
      for (const [n, node] of nodes.entries()) {
        const { lo, hi } = sessionsOf(node)
        const epoch = epochOf(lo)
        if (epoch === undefined) continue
        if (!equalBytes(plain.subarray(16 * n, 16 * n + 16), truth.tree(epoch).node(node))) continue
        readers.add(`${n}`)
        for (let j = lo; j <= hi; j++) if (epochOf(j) === epoch) rules.push({ from: [fact], to: keyFact(j) })
      }
    }
    if (values.size > 0 && readers.size < nodes.length) unreadable++
  }
  return { rules, unreadable }
}
