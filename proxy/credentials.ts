/**
 * Device credentials by group: fetched from the key server that runs it, verified, kept until they expire, also across
 * restarts. Asking is rate-limited, so that objects with made-up Sender IDs cost the key server nothing.
 */
import { suite } from '#crypto'
import { toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { type Gid, gname, parseGname } from '../protocol/groups/gid.ts'
import { CredentialBook } from '../protocol/objects/credential-book.ts'
import type { Logger } from '../runtime/log.ts'
import { prefixRange, type Store, type StoreOperation } from '../store/store.ts'
import type { KeyServers } from './key-servers.ts'

export interface GroupCredentialsOptions {
  readonly keyServers: KeyServers
  readonly store: Store
  readonly clock: Clock
  readonly log: Logger
  readonly refetchMs: number
}

interface Group {
  readonly gid: Gid
  book: CredentialBook
  askedMs: number | undefined
  askedPastMs: number | undefined
  asking: Promise<void> | undefined
  /** The key server's last answer held a credential that is not in force by the clock here. */
  untimely: boolean
}

/** What a key server lists is in force by its clock. */
const UNTIMELY: Readonly<Record<string, string>> = {
  'credential/not-yet': 'a credential was issued in the future: the clock of this proxy seems to be behind',
  'credential/expired': 'a credential that is in force has expired here: the clock of this proxy seems to be ahead',
}

/** Before the newest credential ends, the next one is fetched, seconds: they are renewed at half of 48 h. */
const RENEW_AHEAD_SECONDS = 3600

export class GroupCredentials {
  readonly #options: GroupCredentialsOptions
  readonly #groups = new Map<string, Group>()

  constructor(options: GroupCredentialsOptions) {
    this.#options = options
  }

  async load(): Promise<void> {
    const now = this.#now()
    const dead: StoreOperation[] = []
    for await (const [key, bytes] of this.#options.store.range(prefixRange('cred '))) {
      const gid = parseGname(key.split(' ')[1] as string)
      const home = this.#options.keyServers.known(gid)
      try {
        if (home === undefined) throw new IotchainError('proxy/key-server', 'no longer configured')
        this.#group(gid, home.kdc).book.add(new Uint8Array(bytes), now)
      } catch (error) {
        if (!isIotchainError(error)) throw error
        dead.push({ type: 'del', key })
      }
    }
    await this.#options.store.batch(dead)
  }

  /** What is known of a group without asking anybody. */
  held(gid: Gid): CredentialBook | undefined {
    return this.#groups.get(gname(gid))?.book
  }

  /** True while the clock here contradicts the key server's: who is not known then may be known to it. */
  untimely(gid: Gid): boolean {
    return this.#groups.get(gname(gid))?.untimely ?? false
  }

  /**
   * The credentials of a group; a group that is not known yet is looked for.
   * @throws `proxy/unknown-group`, `proxy/key-server`, `proxy/rate`
   */
  async of(gid: Gid): Promise<CredentialBook> {
    const group = await this.#find(gid)
    if (group.askedMs === undefined && group.book.credentials.length === 0) await this.refresh(gid)
    return group.book
  }

  /**
   * Asks the key server again, but not more often than configured; all who ask meanwhile share the answer.
   * @returns false when it was too early
   * @throws `proxy/unknown-group`, `proxy/key-server`
   */
  refresh(gid: Gid): Promise<boolean> {
    return this.#refresh(gid, undefined)
  }

  /** Likewise for the credentials that covered some time in the past, unix seconds: for backlog. */
  refreshAt(gid: Gid, at: number): Promise<boolean> {
    return this.#refresh(gid, at)
  }

  async #refresh(gid: Gid, at: number | undefined): Promise<boolean> {
    const group = await this.#find(gid)
    if (group.asking !== undefined) {
      await group.asking
      return true
    }
    const nowMs = this.#options.clock.monotonicMs()
    if (at === undefined && group.askedMs !== undefined && nowMs - group.askedMs < this.#options.refetchMs) return false
    if (at === undefined) group.askedMs = nowMs
    else if (group.askedPastMs !== undefined && nowMs - group.askedPastMs < this.#options.refetchMs) return false
    else group.askedPastMs = nowMs
    group.asking = this.#fetch(group, at).finally(() => {
      group.asking = undefined
    })
    await group.asking
    return true
  }

  /** Called now and then: forgets what expired, fetches what is about to. */
  async maintain(): Promise<void> {
    const now = this.#now()
    for (const group of this.#groups.values()) {
      group.book.prune(now)
      const newest = group.book.credentials[0]
      if (newest === undefined || newest.exp - now < RENEW_AHEAD_SECONDS) {
        await this.refresh(group.gid).catch((error: unknown) =>
          this.#options.log.limited(
            'renew',
            'warn',
            { err: error, group: gname(group.gid) },
            'credentials were not renewed',
          ),
        )
      }
    }
  }

  async #find(gid: Gid): Promise<Group> {
    const known = this.#groups.get(gname(gid))
    if (known !== undefined) return known
    const home = await this.#options.keyServers.find(gid)
    if (home === undefined) {
      throw new IotchainError('proxy/unknown-group', 'no key server that this proxy knows runs this group')
    }
    return this.#group(gid, home.kdc)
  }

  async #fetch(group: Group, at: number | undefined): Promise<void> {
    const home = await this.#options.keyServers.find(group.gid)
    let list: readonly Uint8Array[] | undefined
    try {
      list = await home?.server.credentials(group.gid, at)
    } catch (cause) {
      throw new IotchainError('proxy/key-server', 'the key server could not be asked for credentials', {
        cause,
        retryAfterSeconds: 10,
      })
    }
    if (list === undefined) return
    if (at === undefined) group.untimely = false
    const now = at === undefined ? this.#now() : undefined
    let strangers = this.#take(group, list, now)
    if (strangers > 0 && strangers === list.length) {
      // All of them signed by another key: it may have changed.
      const renewed = await this.#options.keyServers.renew(group.gid)
      if (renewed !== undefined && toHex(renewed.kdc.publicKey) !== toHex(group.book.key.publicKey)) {
        group.book = new CredentialBook(suite, renewed.kdc)
        strangers = this.#take(group, list, now)
      }
    }
    if (strangers > 0) {
      this.#options.log.limited(
        'bad credential',
        'warn',
        { group: gname(group.gid), count: strangers },
        'credentials were refused',
      )
    }
    if (at !== undefined) return
    const name = gname(group.gid)
    await this.#options.store.batch(
      group.book.credentials.map((c) => ({
        type: 'put',
        key: `cred ${name} ${toHex(suite.sha256(c.bytes))}`,
        value: c.bytes,
      })),
    )
  }

  /** @returns how many were refused for good */
  #take(group: Group, list: readonly Uint8Array[], now: number | undefined): number {
    let refused = 0
    for (const bytes of list) {
      try {
        group.book.add(bytes, now)
      } catch (error) {
        if (!isIotchainError(error)) throw error
        const untimely = UNTIMELY[error.code]
        if (untimely === undefined) refused++
        else {
          group.untimely = true
          this.#options.log.limited(error.code, 'warn', { group: gname(group.gid) }, untimely)
        }
      }
    }
    return refused
  }

  #group(gid: Gid, kdc: CredentialBook['key']): Group {
    let group = this.#groups.get(gname(gid))
    if (group === undefined) {
      group = {
        gid,
        book: new CredentialBook(suite, kdc),
        askedMs: undefined,
        askedPastMs: undefined,
        asking: undefined,
        untimely: false,
      }
      this.#groups.set(gname(gid), group)
    }
    return group
  }

  #now(): number {
    return Math.floor(this.#options.clock.nowMs() / 1000)
  }
}
