/** How many associations each host holds. An IPv6 host commands a whole /64, so that counts as one. */
import type { RemoteAddress } from './types.ts'

export class HostTable {
  readonly #counts = new Map<string, number>()

  add(remote: RemoteAddress): void {
    const key = hostKey(remote)
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1)
  }

  remove(remote: RemoteAddress): void {
    const key = hostKey(remote)
    const count = (this.#counts.get(key) ?? 0) - 1
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
  }

  count(remote: RemoteAddress): number {
    return this.#counts.get(hostKey(remote)) ?? 0
  }

  get size(): number {
    return this.#counts.size
  }
}

/** The IPv4 address, or the first 64 bits of the IPv6 address. */
export function hostKey({ address, family }: RemoteAddress): string {
  if (family === 'IPv4') return address
  const [text] = address.split('%')
  const [head = '', tail] = (text as string).split('::')
  const before = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const after = tail === '' ? [] : tail.split(':')
    // An IPv4 tail stands for two groups.
    const groups = after.length + (after.at(-1)?.includes('.') ? 1 : 0)
    while (before.length + groups < 8) before.push('0')
    before.push(...after)
  }
  return before
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')
}
