/** Dolev–Yao: what can be derived from a set of facts. */
export interface Rule {
  /** All of these … */
  readonly from: readonly string[]
  /** … give this. */
  readonly to: string
}

export class Closure {
  private readonly byPremise = new Map<string, Rule[]>()

  constructor(rules: Iterable<Rule>) {
    for (const rule of rules) {
      for (const premise of rule.from) {
        const list = this.byPremise.get(premise)
        if (list === undefined) this.byPremise.set(premise, [rule])
        else list.push(rule)
      }
    }
  }

  /** Everything that follows from `facts`. */
  of(facts: Iterable<string>): Set<string> {
    const known = new Set(facts)
    const queue = [...known]
    for (let fact = queue.pop(); fact !== undefined; fact = queue.pop()) {
      for (const rule of this.byPremise.get(fact) ?? []) {
        if (known.has(rule.to) || !rule.from.every((f) => known.has(f))) continue
        known.add(rule.to)
        queue.push(rule.to)
      }
    }
    return known
  }
}

export const keyFact = (session: number): string => `K/${session}`
