/**
 * The mirror of session broadcasts: each group asked for is observed at its key server, what verifies is kept and told
 * on. While the key server is away the newest one goes on being served; it is signed, and stays good for healing.
 */
import { suite } from '#crypto'
import { u32 } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { openBroadcast } from '../protocol/groups/broadcast.ts'
import { type Gid, gname } from '../protocol/groups/gid.ts'
import type { Logger } from '../runtime/log.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store, type StoreOperation } from '../store/store.ts'
import { Code } from '../transport/coap/codes.ts'
import type { Observation } from '../transport/coap/messages.ts'
import type { KeyServers } from './key-servers.ts'

export interface MirroredBroadcast {
  readonly bytes: Uint8Array
  readonly session: number
  readonly nbf: number
  readonly exp: number
  /** u32(session). */
  readonly etag: Uint8Array
}

export interface BroadcastMirrorOptions {
  readonly keyServers: KeyServers
  readonly store: Store
  readonly clock: Clock
  readonly log: Logger
  readonly maxGroups: number
  readonly archive: number
  readonly onChange: (gid: Gid) => void
  /** Whether somebody waits for changes without asking, as readers of an event stream do. */
  readonly isWatched: (gid: Gid) => boolean
}

interface Mirrored {
  readonly gid: Gid
  newest: MirroredBroadcast | undefined
  observation: Observation | undefined
  /** Monotonic ms of the last time that somebody asked. */
  usedMs: number
  starting: Promise<void> | undefined
}

/** A group that nobody asked for in so long is not observed any more. */
const IDLE_MS = 3600_000
const PATIENCE_MS = 10_000

export class BroadcastMirror {
  readonly #options: BroadcastMirrorOptions
  readonly #groups = new Map<string, Mirrored>()
  #stopped = false

  constructor(options: BroadcastMirrorOptions) {
    this.#options = options
  }

  get groupCount(): number {
    return this.#groups.size
  }

  /**
   * The newest broadcast of a group; from now on it is observed.
   * @returns undefined when there is none
   * @throws `proxy/key-server`, `proxy/rate`, `proxy/quota`
   */
  async newest(gid: Gid): Promise<MirroredBroadcast | undefined> {
    const group = await this.#group(gid)
    if (group === undefined) return undefined
    if (group.observation === undefined) {
      const starting = this.#begin(group)
      // What is held is served at once; only a first question waits for the key server.
      if (group.newest === undefined) await starting
      else starting.catch(() => undefined)
    }
    return group.newest
  }

  /** What is held of a group now, without asking anybody. */
  held(gid: Gid): MirroredBroadcast | undefined {
    return this.#groups.get(gname(gid))?.newest
  }

  /** B_j: from what is kept, else from the key server's archive. */
  async at(gid: Gid, session: number): Promise<MirroredBroadcast | undefined> {
    const stored = await this.#options.store.get(key(gid, session))
    if (stored !== undefined) return readMirrored(stored)
    const home = await this.#options.keyServers.find(gid)
    if (home === undefined) return undefined
    const client = await home.server.plain()
    const response = await client.get(['bc', gname(gid), String(session)], { timeoutMs: PATIENCE_MS })
    if (!response.ok) return undefined
    const broadcast = this.#verified(gid, response.payload)
    if (broadcast?.session !== session) return undefined
    await this.#keep(gid, broadcast)
    return broadcast
  }

  /** Called now and then: lets go of what nobody asks for, and takes up again what ended meanwhile. */
  maintain(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const [name, group] of this.#groups) {
      if (this.#options.isWatched(group.gid)) group.usedMs = nowMs
      if (nowMs - group.usedMs < IDLE_MS) {
        if (group.observation === undefined) this.#begin(group).catch(() => undefined)
        continue
      }
      group.observation?.close()
      this.#groups.delete(name)
    }
  }

  stop(): void {
    this.#stopped = true
    for (const group of this.#groups.values()) group.observation?.close()
    this.#groups.clear()
  }

  async #group(gid: Gid): Promise<Mirrored | undefined> {
    const { clock, keyServers, maxGroups } = this.#options
    const name = gname(gid)
    let group = this.#groups.get(name)
    if (group === undefined) {
      if ((await keyServers.find(gid)) === undefined) return undefined
      group = this.#groups.get(name)
    }
    if (group === undefined) {
      if (this.#groups.size >= maxGroups) {
        throw new IotchainError('proxy/quota', 'this proxy mirrors as many groups as it was told to', {
          retryAfterSeconds: 600,
        })
      }
      group = { gid, newest: undefined, observation: undefined, usedMs: 0, starting: undefined }
      this.#groups.set(name, group)
      const stored = await this.#newestStored(gid)
      group.newest ??= stored
    }
    group.usedMs = clock.monotonicMs()
    return group
  }

  #begin(group: Mirrored): Promise<void> {
    group.starting ??= this.#observe(group).finally(() => {
      group.starting = undefined
    })
    return group.starting
  }

  async #observe(group: Mirrored): Promise<void> {
    const { keyServers, log } = this.#options
    const home = await keyServers.find(group.gid)
    if (home === undefined || this.#stopped) return
    let first: Observation | undefined
    try {
      const client = await home.server.plain()
      const observation = client.observe(['bc', gname(group.gid)], {
        onNotification: (response) => {
          if (response.code === Code.content) this.#take(group, response.payload)
        },
        onEnd: () => {
          if (group.observation === first) group.observation = undefined
        },
      })
      first = observation
      group.observation = observation
      await observation.ready
    } catch (cause) {
      if (group.observation === first) group.observation = undefined
      if (!isIotchainError(cause)) throw cause
      log.limited(
        `mirror ${gname(group.gid)}`,
        'warn',
        { err: cause, group: gname(group.gid) },
        'broadcasts are not to be had',
      )
      throw new IotchainError('proxy/key-server', 'the key server of this group does not answer', {
        cause,
        retryAfterSeconds: 10,
      })
    }
  }

  #take(group: Mirrored, bytes: Uint8Array): void {
    const broadcast = this.#verified(group.gid, bytes)
    if (broadcast === undefined || broadcast.session <= (group.newest?.session ?? 0)) return
    group.newest = broadcast
    this.#keep(group.gid, broadcast).catch((error: unknown) =>
      this.#options.log.limited('keep broadcast', 'error', { err: error }, 'a broadcast could not be kept'),
    )
    this.#options.onChange(group.gid)
  }

  /** A broadcast of another key is asked about once: the key server may have changed it. */
  #verified(gid: Gid, bytes: Uint8Array): MirroredBroadcast | undefined {
    const home = this.#options.keyServers.known(gid)
    if (home === undefined) return undefined
    try {
      const { session, nbf, exp, gid: named } = openBroadcast(suite, bytes, { kdc: home.kdc })
      if (gname(named) !== gname(gid)) return undefined
      return { bytes: bytes.slice(), session, nbf, exp, etag: u32(session) }
    } catch (error) {
      if (!isIotchainError(error)) throw error
      if (error.code === 'group/unknown-key') this.#options.keyServers.renew(gid).catch(() => undefined)
      this.#options.log.limited(
        `bad broadcast ${gname(gid)}`,
        'warn',
        { err: error, group: gname(gid) },
        'a broadcast was refused',
      )
      return undefined
    }
  }

  async #keep(gid: Gid, broadcast: MirroredBroadcast): Promise<void> {
    const { store, archive } = this.#options
    const { bytes, session, nbf, exp } = broadcast
    const operations: StoreOperation[] = [
      { type: 'put', key: key(gid, session), value: encodeRecord([bytes, session, nbf, exp]) },
    ]
    const oldest = key(gid, Math.max(0, session - archive))
    for await (const [old] of store.range({ gte: `bc ${gname(gid)} `, lt: oldest, limit: 64 })) {
      operations.push({ type: 'del', key: old })
    }
    await store.batch(operations)
  }

  async #newestStored(gid: Gid): Promise<MirroredBroadcast | undefined> {
    for await (const [, value] of this.#options.store.range({
      ...prefixRange(`bc ${gname(gid)} `),
      reverse: true,
      limit: 1,
    })) {
      return readMirrored(value)
    }
    return undefined
  }
}

function key(gid: Gid, session: number): string {
  return `bc ${gname(gid)} ${String(session).padStart(10, '0')}`
}

function readMirrored(value: Uint8Array): MirroredBroadcast {
  const [bytes, session, nbf, exp] = decodeRecord<[Uint8Array, number, number, number]>(value)
  return { bytes, session, nbf, exp, etag: u32(session) }
}
