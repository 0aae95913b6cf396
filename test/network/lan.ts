/**
 * Two local networks of network namespaces: a bridge each, and hosts with interfaces on one or both. IPv4, global and
 * link-local IPv6; nothing leaves them.
 *
 *   A: key server (eth0), device (eth0), proxy, another device, client      B: key server (eth1), device (eth1), onlooker
 */
import { execFileSync } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'

export const HOSTS = ['keyserver', 'device', 'proxy', 'second', 'client', 'onlooker'] as const
export type Host = (typeof HOSTS)[number]

const PLUGS: Readonly<Record<Host, readonly (readonly [iface: string, network: 'A' | 'B'])[]>> = {
  keyserver: [
    ['eth0', 'A'],
    ['eth1', 'B'],
  ],
  device: [
    ['eth0', 'A'],
    ['eth1', 'B'],
  ],
  proxy: [['eth0', 'A']],
  second: [['eth0', 'A']],
  client: [['eth0', 'A']],
  onlooker: [['eth0', 'B']],
}

/** Of a host on a network; A is 10.97.1.0/24, B 10.97.2.0/24. */
export function addressOf(host: Host, network: 'A' | 'B' = 'A'): string {
  return `10.97.${network === 'A' ? 1 : 2}.${HOSTS.indexOf(host) + 1}`
}

/** Nobody is there. */
export const NOBODY = '10.97.1.250'

export class Lan {
  readonly #tag: string

  constructor(tag: string) {
    this.#tag = tag
  }

  namespace(host: Host | 'switch'): string {
    return `${this.#tag}-${host}`
  }

  /** @throws Error when the kernel or the sandbox does not allow it */
  async make(): Promise<void> {
    try {
      for (const host of ['switch', ...HOSTS] as const) {
        ip('netns', 'add', this.namespace(host))
        this.#in(host, 'link', 'set', 'lo', 'up')
      }
      for (const network of ['A', 'B']) {
        this.#in('switch', 'link', 'add', `br${network}`, 'type', 'bridge', 'mcast_snooping', '0')
        this.#in('switch', 'link', 'set', `br${network}`, 'up')
      }
      for (const host of HOSTS) for (const [iface, network] of PLUGS[host]) this.#plug(host, iface, network)
      // link-local addresses are looked for on the link before they are used
      await delay(2500)
    } catch (error) {
      this.remove()
      const said = (error as { stderr?: Buffer }).stderr?.toString().trim()
      throw new Error(`no network namespaces here: ${said || (error as Error).message}`)
    }
  }

  remove(): void {
    for (const host of [...HOSTS, 'switch'] as const) {
      try {
        ip('netns', 'delete', this.namespace(host))
      } catch {
        // it was never made
      }
    }
  }

  /** One more of each family, which no answer would leave from by itself. */
  addAddresses(host: Host, iface: string): string[] {
    const last = HOSTS.indexOf(host) + 101
    const added = [`10.97.1.${last}`, `fd97:1::${last}`]
    this.#in(host, 'address', 'add', `${added[0]}/24`, 'dev', iface)
    // deprecated: good for those who ask it, and never chosen
    this.#in(host, 'address', 'add', `${added[1]}/64`, 'dev', iface, 'nodad', 'preferred_lft', '0')
    return added
  }

  /** Of the interface, without its zone. */
  linkLocal(host: Host, iface: string): string {
    const shown = execFileSync('ip', [
      '-n',
      this.namespace(host),
      '-6',
      'address',
      'show',
      'dev',
      iface,
      'scope',
      'link',
    ])
    return /inet6 (fe80:[0-9a-f:]+)/.exec(shown.toString())?.[1] ?? ''
  }

  #plug(host: Host, iface: string, network: 'A' | 'B'): void {
    const outlet = `${host}${network}`.slice(0, 15)
    ip(
      'link',
      'add',
      iface,
      'netns',
      this.namespace(host),
      'type',
      'veth',
      'peer',
      'name',
      outlet,
      'netns',
      this.namespace('switch'),
    )
    this.#in('switch', 'link', 'set', outlet, 'master', `br${network}`, 'up')
    const n = network === 'A' ? 1 : 2
    const last = HOSTS.indexOf(host) + 1
    this.#in(host, 'link', 'set', iface, 'up')
    this.#in(host, 'address', 'add', `10.97.${n}.${last}/24`, 'dev', iface)
    this.#in(host, 'address', 'add', `fd97:${n}::${last}/64`, 'dev', iface, 'nodad')
  }

  #in(host: Host | 'switch', ...args: string[]): void {
    ip('-n', this.namespace(host), ...args)
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}
