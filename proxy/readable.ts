/** What can be read at the proxy, whatever the protocol in front: objects, their history, broadcasts, credentials. */
import { toHex, utf8 } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'
import { parseGname } from '../protocol/groups/gid.ts'
import { encodeCreds } from '../protocol/messages/group-info.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { encodeLinks } from '../transport/coap/link-format.ts'
import type { Link } from '../transport/coap/server.ts'
import type { ObjectArchive, PastEntry, StoredObject } from './archive.ts'
import type { BroadcastMirror, MirroredBroadcast } from './broadcasts.ts'
import type { GroupCredentials } from './credentials.ts'
import type { Lookup, Representation } from './http.ts'
import { PAST_SEGMENT, parseTarget, type Target } from './target.ts'

export interface ReadableOptions {
  readonly archive: ObjectArchive
  readonly broadcasts: BroadcastMirror
  readonly credentials: GroupCredentials
  readonly clock: Clock
}

/** Observers register again after so many seconds; whoever wants the newest asks with ETag. */
const LATEST_MAX_AGE = 60
const LIST_MAX_AGE = 5
const IMMUTABLE_MAX_AGE = 86_400
const MAX_LINKS = 512

/** What a path stands for, or undefined. @throws `proxy/bad-path`, `proxy/key-server`, `proxy/rate` */
export class Readable {
  readonly #options: ReadableOptions

  constructor(options: ReadableOptions) {
    this.#options = options
  }

  read(path: readonly string[], query: readonly string[]): ReturnType<Lookup> {
    const [root, name = '', ...rest] = path
    if (root === 'd') return rest.length === 0 ? this.#device(name) : this.#object(parseTarget(path.slice(1)), query)
    if (root === 'bc' && rest.length <= 1) return this.#broadcast(name, rest[0])
    if (root === 'ace-group' && rest.length === 1 && rest[0] === 'creds') return this.#credentials(name)
    return undefined
  }

  /** `/bc/{gid}` as it is held now; nobody is asked for it. */
  heldBroadcast([, name = '']: readonly string[]): Representation | undefined {
    if (!/^[0-9a-f]{16}$/.test(name)) return undefined
    return this.#newestOf(this.#options.broadcasts.held(parseGname(name)))
  }

  /** The links to all latest objects, for `/.well-known/core`. */
  links(): Link[] {
    const links: Link[] = []
    for (const device of this.#options.archive.devices()) {
      for (const { resource } of this.#options.archive.resources(device)) {
        if (links.length >= MAX_LINKS) return links
        links.push({
          href: `/d/${device}${resource}`,
          attributes: { ct: ContentFormat.coseSign1, rt: 'iotchain.object' },
        })
      }
    }
    return links
  }

  #device(device: string): Representation | undefined {
    if (!/^0x[0-9a-f]{40}$/.test(device)) return undefined
    const links = this.#options.archive
      .resources(device as `0x${string}`)
      .map((r) => ({ href: `/d/${device}${r.resource}`, attributes: { ct: ContentFormat.coseSign1, obs: true } }))
    return links.length === 0 ? undefined : linkList(links)
  }

  /** The latest comes at once, from memory. */
  #object(target: Target, query: readonly string[]): ReturnType<Lookup> {
    if (query.length > 0) return this.#history(target, historyRange(query))
    if (target.kind !== 'object') return this.#past(target)
    const latest = this.#options.archive.resource(target.device, target.resource)?.latest
    if (latest === undefined) return undefined
    return { bytes: latest.bytes, etag: latest.etag, contentFormat: ContentFormat.coseSign1, maxAge: LATEST_MAX_AGE }
  }

  async #history(target: Target, range: { from: number; to: number }): Promise<Representation> {
    if (target.kind !== 'object') throw new IotchainError('proxy/bad-query', 'only a resource itself has a history')
    const entries = await this.#options.archive.list(target.device, target.resource, range.from, range.to)
    return linkList(entries.map((e) => historyLink(target, e)))
  }

  async #past(target: Target): Promise<Representation | undefined> {
    const { archive } = this.#options
    const { device, resource, kind, seq, sid } = target
    if (kind === 'gone') return immutable(archive.resource(device, resource)?.gone)
    if (kind === 'pack') return seq === undefined ? undefined : immutable(await archive.pack(device, resource, seq))
    return immutable(await archive.past(device, resource, 'object', sid as Uint8Array, seq as number))
  }

  async #broadcast(name: string, session: string | undefined): Promise<Representation | undefined> {
    if (!/^[0-9a-f]{16}$/.test(name)) return undefined
    const gid = parseGname(name)
    if (session !== undefined) {
      if (!/^[1-9]\d{0,9}$/.test(session)) return undefined
      const old = await this.#options.broadcasts.at(gid, Number(session))
      return old === undefined
        ? undefined
        : {
            bytes: old.bytes,
            etag: old.etag,
            contentFormat: ContentFormat.coseSign1,
            maxAge: IMMUTABLE_MAX_AGE,
            immutable: true,
          }
    }
    return this.#newestOf(await this.#options.broadcasts.newest(gid))
  }

  #newestOf(newest: MirroredBroadcast | undefined): Representation | undefined {
    if (newest === undefined) return undefined
    const left = Math.floor(newest.exp - this.#options.clock.nowMs() / 1000)
    const maxAge = Math.min(60, Math.max(1, left))
    return { bytes: newest.bytes, etag: newest.etag, contentFormat: ContentFormat.coseSign1, maxAge }
  }

  async #credentials(name: string): Promise<Representation | undefined> {
    if (!/^[0-9a-f]{16}$/.test(name)) return undefined
    const gid = parseGname(name)
    const book = await this.#options.credentials.of(gid)
    const devices = book.credentials.filter((c) => c.role === undefined && c.groups.has(name))
    if (devices.length === 0) return undefined
    const bytes = encodeCreds({
      num: this.#options.broadcasts.held(gid)?.session ?? 0,
      creds: devices.map((c) => c.bytes),
      peerIdentifiers: devices.map((c) => c.groups.get(name)?.at(-1)?.sid as Uint8Array),
    })
    return { bytes, etag: undefined, contentFormat: ContentFormat.aceGroupcommCbor, maxAge: 60 }
  }
}

function immutable(object: StoredObject | undefined): Representation | undefined {
  if (object === undefined) return undefined
  const { bytes, etag } = object
  return { bytes, etag, contentFormat: ContentFormat.coseSign1, maxAge: IMMUTABLE_MAX_AGE, immutable: true }
}

function linkList(links: readonly Link[]): Representation {
  return {
    bytes: utf8(encodeLinks(links)),
    etag: undefined,
    contentFormat: ContentFormat.linkFormat,
    maxAge: LIST_MAX_AGE,
  }
}

function historyLink(target: Target, entry: PastEntry): Link {
  const place = entry.kind === 'pack' ? `@pack/${entry.seq}` : `${PAST_SEGMENT}/${toHex(entry.sid)}.${entry.seq}`
  return {
    href: `/d/${target.device}${target.resource}/${place}`,
    attributes: { ct: ContentFormat.coseSign1, sz: entry.octets, iat: entry.iat },
  }
}

/** `from=`, `to=` in unix seconds; either may be left out. @throws `proxy/bad-query` */
function historyRange(query: readonly string[]): { from: number; to: number } {
  let from: number | undefined
  let to: number | undefined
  for (const item of query) {
    const match = /^(from|to)=(\d{1,11})$/.exec(item)
    if (match === null) throw new IotchainError('proxy/bad-query', 'the query is from= and to= in unix seconds')
    if (match[1] === 'from') from = Number(match[2])
    else to = Number(match[2])
  }
  return { from: from ?? 0, to: to ?? 99_999_999_999 }
}
