/**
 * Resource directory (RFC 9176): devices tell where they are, clients look up. An entry is a hint and proves nothing:
 * what a device serves is signed. Simple registration and endpoint groups are left out.
 */
import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'
import { decodeLinks, encodeLinks, filterLinks } from '../transport/coap/link-format.ts'
import type { Link } from '../transport/coap/server.ts'
import { parseCoapUri } from '../transport/coap/uri.ts'

export interface Registration {
  readonly id: string
  /** Endpoint name, e.g. `0x0011…`. */
  readonly ep: string
  /** Sector, '' for none. */
  readonly d: string
  readonly base: string
  readonly lifetimeSeconds: number
  /** Monotonic ms. */
  readonly expiresAtMs: number
  readonly links: readonly Link[]
  /** Other registration parameters, shown at the endpoint lookup. */
  readonly attributes: Readonly<Record<string, string>>
}

/** A registration as it is kept across restarts. */
export interface StoredRegistration extends Omit<Registration, 'expiresAtMs'> {
  /** Seconds left of its life when it was written, and the wall clock then, ms. */
  readonly leftSeconds: number
  readonly writtenMs: number
}

export interface DirectoryOptions {
  readonly limit: number
  readonly clock: Clock
  /** A registration came, changed or (undefined) went. */
  readonly onChange?: ((id: string, registration: StoredRegistration | undefined) => void) | undefined
}

const DEFAULT_LIFETIME_SECONDS = 90_000
const MAX_LIFETIME_SECONDS = 7 * 86_400
const MAX_NAME = 63
const MAX_LINKS = 128
const MAX_ATTRIBUTES = 8
const RESERVED = new Set(['ep', 'd', 'lt', 'base', 'page', 'count', 'href', 'anchor'])

export class ResourceDirectory {
  readonly #byId = new Map<string, Registration>()
  readonly #byName = new Map<string, string>()
  readonly #options: DirectoryOptions
  #next = 1

  constructor(options: DirectoryOptions) {
    this.#options = options
  }

  /** Takes up what was kept; what has expired meanwhile is forgotten. */
  restore(kept: readonly StoredRegistration[]): void {
    const { clock, onChange } = this.#options
    for (const { leftSeconds, writtenMs, ...rest } of kept) {
      this.#next = Math.max(this.#next, Number(rest.id) + 1)
      const leftMs = leftSeconds * 1000 - Math.max(0, clock.nowMs() - writtenMs)
      if (leftMs <= 0) onChange?.(rest.id, undefined)
      else this.#keep({ ...rest, expiresAtMs: clock.monotonicMs() + leftMs })
    }
  }

  get size(): number {
    return this.#byId.size
  }

  /**
   * Registers an endpoint, or replaces its registration (same name and sector, same location).
   * @param source `coap://[2001:db8::1]:5683`: the base when none is given
   * @throws `proxy/bad-registration`, `proxy/quota`
   */
  register(query: readonly string[], payload: string, source: string): Registration {
    const p = parameters(query)
    const ep = p.get('ep')
    if (ep === undefined || ep === '') throw bad('the endpoint name ep is missing')
    const d = p.get('d') ?? ''
    if (byteLength(ep) > MAX_NAME || byteLength(d) > MAX_NAME) throw bad('ep and d have at most 63 octets')
    const name = JSON.stringify([ep, d])
    this.expire()
    const known = this.#byName.get(name)
    if (known === undefined && this.#byId.size >= this.#options.limit) {
      throw new IotchainError('proxy/quota', 'the directory is full', { retryAfterSeconds: 600 })
    }
    const id = known ?? String(this.#next++)
    const registration = this.#make(id, ep, d, p, readLinks(payload), source)
    this.#keep(registration)
    this.#tell(registration)
    return registration
  }

  /** A new lifetime, base or attributes; the links stay (RFC 9176 §5.3.1). @throws `proxy/bad-registration` */
  update(id: string, query: readonly string[], source: string): Registration | undefined {
    this.expire()
    const known = this.#byId.get(id)
    if (known === undefined) return undefined
    const given = parameters(query)
    const merged = new Map([
      ...Object.entries(known.attributes),
      ['lt', String(known.lifetimeSeconds)] as const,
      ...given,
    ])
    if (!given.has('base') && known.attributes['base'] !== undefined) merged.set('base', known.base)
    const registration = this.#make(id, known.ep, known.d, merged, known.links, source)
    this.#keep(registration)
    this.#tell(registration)
    return registration
  }

  remove(id: string): boolean {
    const known = this.#byId.get(id)
    if (known === undefined) return false
    this.#byId.delete(id)
    this.#byName.delete(JSON.stringify([known.ep, known.d]))
    this.#options.onChange?.(id, undefined)
    return true
  }

  /** `/rd-lookup/ep`: a link to each registration. @throws `proxy/bad-registration` for bad paging */
  endpoints(query: readonly string[]): string {
    return this.#lookup(query, (r) => [endpointLink(r)])
  }

  /** `/rd-lookup/res`: the registered links, resolved against their base. */
  resources(query: readonly string[]): string {
    return this.#lookup(query, (r) => resolvedLinks(r))
  }

  expire(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const r of this.#byId.values()) if (r.expiresAtMs <= nowMs) this.remove(r.id)
  }

  #keep(registration: Registration): void {
    this.#byId.set(registration.id, registration)
    this.#byName.set(JSON.stringify([registration.ep, registration.d]), registration.id)
  }

  #tell({ expiresAtMs, ...rest }: Registration): void {
    const { clock, onChange } = this.#options
    onChange?.(rest.id, { ...rest, leftSeconds: (expiresAtMs - clock.monotonicMs()) / 1000, writtenMs: clock.nowMs() })
  }

  /** An endpoint matches by its own attributes or by those of one of its links (RFC 9176 §6.2). */
  #lookup(query: readonly string[], linksOf: (r: Registration) => Link[]): string {
    this.expire()
    const paging = parameters(query.filter((q) => /^(page|count)=/.test(q)))
    const filters = query.filter((q) => !/^(page|count)=/.test(q))
    let found: Link[] = []
    for (const r of this.#byId.values()) {
      const own = [endpointLink(r)]
      const inherited = filters.filter((f) => filterLinks(own, [f]).length > 0)
      const rest = filters.filter((f) => !inherited.includes(f))
      const links = linksOf(r)
      const isEndpoint = links.length === 1 && links[0]?.attributes['ep'] === r.ep && links[0]?.href === `/rd/${r.id}`
      if (isEndpoint) {
        if (rest.every((f) => filterLinks(resolvedLinks(r), [f]).length > 0)) found.push(...links)
      } else found.push(...filterLinks(links, rest))
    }
    const count = paging.has('count') ? natural(paging.get('count')) : undefined
    const page = paging.has('page') ? natural(paging.get('page')) : 0
    if (paging.has('page') && count === undefined) throw bad('page needs count')
    if (count !== undefined) found = found.slice(page * count, (page + 1) * count)
    return encodeLinks(found)
  }

  #make(
    id: string,
    ep: string,
    d: string,
    p: ReadonlyMap<string, string>,
    links: readonly Link[],
    source: string,
  ): Registration {
    const lifetimeSeconds = p.has('lt') ? natural(p.get('lt')) : DEFAULT_LIFETIME_SECONDS
    if (lifetimeSeconds < 1) throw bad('the lifetime lt is at least 1 s')
    const life = Math.min(lifetimeSeconds, MAX_LIFETIME_SECONDS)
    const base = (p.get('base') ?? source).replace(/\/$/, '')
    const attributes: Record<string, string> = {}
    for (const [key, value] of p) {
      if (RESERVED.has(key) && key !== 'base') continue
      if (!/^[a-zA-Z0-9._-]{1,32}$/.test(key) || byteLength(value) > 255) throw bad('a parameter is not usable')
      attributes[key] = value
    }
    if (Object.keys(attributes).length > MAX_ATTRIBUTES) throw bad('too many parameters')
    try {
      const uri = parseCoapUri(base)
      if (uri.path.length > 0 || uri.query.length > 0) throw bad('base has no path')
    } catch (cause) {
      throw new IotchainError('proxy/bad-registration', 'base is no coap:// or coaps:// address', { cause })
    }
    return {
      id,
      ep,
      d,
      base,
      lifetimeSeconds: life,
      expiresAtMs: this.#options.clock.monotonicMs() + life * 1000,
      links,
      attributes,
    }
  }
}

function endpointLink(r: Registration): Link {
  return {
    href: `/rd/${r.id}`,
    attributes: { ...r.attributes, ep: r.ep, ...(r.d === '' ? {} : { d: r.d }), base: r.base, rt: 'core.rd-ep' },
  }
}

function resolvedLinks(r: Registration): Link[] {
  return r.links.map(({ href, attributes }) => ({ href: href.startsWith('/') ? r.base + href : href, attributes }))
}

function readLinks(payload: string): Link[] {
  let links: Link[]
  try {
    links = decodeLinks(payload)
  } catch (cause) {
    throw new IotchainError('proxy/bad-registration', 'the links of the registration cannot be read', { cause })
  }
  if (links.length > MAX_LINKS) throw bad(`at most ${MAX_LINKS} links`)
  if (links.some((l) => !/^(\/|coaps?:\/\/)/.test(l.href))) throw bad('a link is neither a path nor a CoAP address')
  return links
}

function parameters(query: readonly string[]): Map<string, string> {
  const out = new Map<string, string>()
  for (const item of query) {
    const at = item.indexOf('=')
    const key = at < 0 ? item : item.slice(0, at)
    if (out.has(key)) throw bad(`${key.slice(0, 32)} is given twice`)
    out.set(key, at < 0 ? '' : item.slice(at + 1))
  }
  return out
}

function natural(text: string | undefined): number {
  if (text === undefined || !/^\d{1,10}$/.test(text)) throw bad('a number is expected')
  return Number(text)
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length
}

function bad(why: string): IotchainError {
  return new IotchainError('proxy/bad-registration', `this registration cannot be used: ${why}`)
}
