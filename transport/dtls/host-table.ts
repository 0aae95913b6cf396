/**
 * How many associations each host holds, and how fast it begins handshakes, each of which costs a signature. An IPv6
 * host commands a whole /64, so that counts as one.
 */
import type { RemoteAddress } from './types.ts'

interface Host {
  associations: number
  /** Handshakes that it may begin now. */
  credit: number
  creditedMs: number
}

export class HostTable {
  readonly #hosts = new Map<string, Host>()
  readonly #most: number
  /** @param most associations of one host at once; as many handshakes may it begin at once, and again each second */
  constructor(most: number) {
    this.#most = most
  }

  /** Whether the host may begin a handshake now. */
  admits(remote: RemoteAddress, nowMs: number): boolean {
    const host = this.#hosts.get(hostKey(remote))
    if (host === undefined) return true
    return host.associations < this.#most && this.#creditOf(host, nowMs) >= 1
  }

  /** A handshake begins. */
  add(remote: RemoteAddress, nowMs: number): void {
    const key = hostKey(remote)
    const host = this.#hosts.get(key) ?? { associations: 0, credit: this.#most, creditedMs: nowMs }
    host.credit = this.#creditOf(host, nowMs) - 1
    host.creditedMs = nowMs
    host.associations++
    this.#hosts.set(key, host)
  }

  remove(remote: RemoteAddress): void {
    const host = this.#hosts.get(hostKey(remote))
    if (host !== undefined) host.associations--
  }

  count(remote: RemoteAddress): number {
    return this.#hosts.get(hostKey(remote))?.associations ?? 0
  }

  /** Forgets hosts that have nothing here and owe nothing. */
  sweep(nowMs: number): void {
    for (const [key, host] of this.#hosts) {
      if (host.associations === 0 && this.#creditOf(host, nowMs) >= this.#most) this.#hosts.delete(key)
    }
  }

  get size(): number {
    return this.#hosts.size
  }

  #creditOf(host: Host, nowMs: number): number {
    return Math.min(this.#most, host.credit + ((nowMs - host.creditedMs) / 1000) * this.#most)
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
