/**
 * From octets to a reading, in the order of protocol.md §4.6: proof of origin → headers → the session's key → open →
 * order → freshness. Each way to cheat ends in an error of its own; nothing is remembered of an object that fails.
 */
import { suite } from '#crypto'
import { equalBytes } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { thumbprintOf } from '../protocol/cose/key.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { gname } from '../protocol/groups/gid.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { packPath, type ResourcePath } from '../protocol/objects/aad.ts'
import { etagOf } from '../protocol/objects/etag.ts'
import type { ObjectHeader } from '../protocol/objects/header.ts'
import { type Accepted, judgeObject } from '../protocol/objects/judge.ts'
import { deriveIntegrityKey } from '../protocol/objects/keys.ts'
import { noAccess, ObjectOpener } from '../protocol/objects/open.ts'
import { checkPackSeq, decodePack, PACK_CONTENT_FORMAT } from '../protocol/objects/pack.ts'
import { type ParsedObject, parseObject } from '../protocol/objects/parse.ts'
import { decodeSenml, type ResolvedRecord, resolveSenml } from '../protocol/objects/senml.ts'
import { verifyMacObject, verifySigned } from '../protocol/objects/verify.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import type { GroupView } from './group.ts'

/** What was asked for: the only thing that an object is held against. */
export interface Asked {
  readonly device: Address
  readonly path: ResourcePath
  /** `signed` from anywhere; `mac` from the device itself, when that was asked for. */
  readonly form: 'signed' | 'mac'
  /** `latest` is held against what was accepted before; `past` and `pack` are history. */
  readonly kind?: 'latest' | 'past' | 'pack' | undefined
  /** Of history: the sequence number in its URI. */
  readonly seq?: number | undefined
}

export interface Reading {
  readonly device: Address
  readonly path: ResourcePath
  readonly header: ObjectHeader
  readonly form: 'signed' | 'mac'
  readonly plaintext: Uint8Array
  /** The records, when the plaintext is SenML or a pack. */
  readonly records: readonly ResolvedRecord[]
  /** Older than the group's max-age; only with `allowStale`. */
  readonly stale: boolean
  /** Sealed under a session that had been superseded for longer than the grace. */
  readonly oldSession: boolean
  /** The same object as the newest accepted before. */
  readonly repeated: boolean
  /** The octets as received. */
  readonly bytes: Uint8Array
}

/** What was accepted before, for each resource; kept across restarts (client/state.ts). */
export interface SeenStore {
  /** The newest accepted. */
  accepted(device: Address, path: ResourcePath): Promise<Accepted | undefined>
  /** Whether an object with this etag was among those accepted lately. */
  wasAccepted(device: Address, path: ResourcePath, etag: Uint8Array): Promise<boolean>
  accept(device: Address, path: ResourcePath, accepted: Accepted): Promise<void>
  /** Other resources of the device that were read before: to tell a swapped object from a broken one. */
  paths(device: Address): Promise<readonly ResourcePath[]>
}

/** The signer that the registry on chain names. */
export interface SignerRegistry {
  /** Thumbprint of the device's object-signing key, 32 octets. */
  signingKeyOf(device: Address): Promise<Uint8Array | undefined>
}

export interface OpenerOptions {
  readonly clock: Clock
  readonly seen: SeenStore
  /** The group that an object names, if it is known. */
  readonly groupOf: (gid: Uint8Array, device: Address) => GroupView | undefined
  readonly registry?: SignerRegistry | undefined
  /** Take a reading older than the group's max-age and mark it, instead of refusing it. */
  readonly allowStale?: boolean | undefined
  /** Seconds; used where the group's policies are not known. */
  readonly maxAgeSeconds?: number | undefined
}

const DEFAULT_MAX_AGE_SECONDS = 3600
const DEFAULT_GRACE_SECONDS = 60

export class ReadingOpener {
  readonly #options: OpenerOptions
  /** Derived keys of the last resources read, for each group. */
  readonly #openers = new WeakMap<GroupView, ObjectOpener>()

  constructor(options: OpenerOptions) {
    this.#options = options
  }

  /**
   * Verifies, opens and judges one object.
   * @throws `object/…`, `client/…`: see docs/errors.md; `object/no-access` when the session's key is not to be had
   */
  async open(bytes: Uint8Array, asked: Asked): Promise<Reading> {
    const device = addressBytes(asked.device)
    const parsed = this.#parse(bytes, asked)
    const { header } = parsed
    const group = this.#options.groupOf(header.gid, asked.device)
    if (group === undefined) {
      throw new IotchainError(
        'client/foreign-group',
        `the object names group ${gname(header.gid)}, which is none of this device's that this client knows`,
        {
          hint: 'join the group first, or ask for a token that covers this resource',
        },
      )
    }
    const path = asked.kind === 'pack' ? packPath(asked.path) : asked.path
    if (parsed.kind === 'signed') await this.#verifySigned(bytes, parsed, group, device, path, asked)
    if (parsed.kind === 'mac') await this.#freshBroadcast(group)
    const K = await this.#sessionKey(group, header.session)
    if (parsed.kind === 'mac') {
      const key = deriveIntegrityKey(suite, K, { ...header, device, path })
      verifyMacObject(bytes, { device, path, integrityKey: suite.hmac(key) })
    }
    const plaintext = this.#decrypt(parsed, group, device, path)
    return this.#judge(bytes, parsed, plaintext, group, asked)
  }

  #parse(bytes: Uint8Array, asked: Asked): ParsedObject {
    if (asked.form === 'signed' && (bytes[0] === 0xd0 || bytes[0] === 0xd1)) {
      throw new IotchainError('client/not-signed', 'a signed object was asked for, and this one carries no signature', {
        hint: 'whoever passed it on may have stripped the signature; ask the device or another proxy',
      })
    }
    const parsed = parseObject(bytes)
    if (parsed.kind !== asked.form) {
      throw new IotchainError(
        'client/wrong-form',
        `a ${asked.form} object was asked for, and a ${parsed.kind} one came`,
      )
    }
    return parsed
  }

  /** Credentials that are missing or too old are fetched once. */
  async #verifySigned(
    bytes: Uint8Array,
    parsed: ParsedObject,
    group: GroupView,
    device: Uint8Array,
    path: ResourcePath,
    asked: Asked,
  ): Promise<void> {
    const otherPaths = await this.#options.seen.paths(asked.device)
    const verify = () => verifySigned(bytes, { device, path, credentials: group.credentials.credentials, otherPaths })
    let verified: ReturnType<typeof verify>
    try {
      verified = verify()
    } catch (error) {
      if (!isIotchainError(error) || !FETCH_CREDENTIALS.has(error.code)) throw error
      const at = error.code === 'object/not-covered' ? parsed.header.iat : undefined
      if (!(await group.fetchCredentials(at))) throw error
      verified = verify()
    }
    if (asked.kind !== undefined && asked.kind !== 'latest') return
    const registered = await this.#options.registry?.signingKeyOf(asked.device)
    if (registered !== undefined && !equalBytes(registered, thumbprintOf(suite, verified.credential.publicKey))) {
      throw new IotchainError(
        'client/unregistered-signer',
        'the registry on chain names another signing key than the one that signed',
        {
          hint: 'the device may have changed its key just now; if not, do not trust the key server',
        },
      )
    }
  }

  /** A mac-object proves little to who has not seen the newest broadcast within the last minute. */
  async #freshBroadcast(group: GroupView): Promise<void> {
    const seen = group.broadcastSeenAt
    if (seen !== undefined && this.#now() - seen <= 60) return
    await group.fetchBroadcast().catch(() => undefined)
  }

  async #sessionKey(group: GroupView, session: number): Promise<Uint8Array> {
    const held = group.key(session)
    if (held !== undefined) return held
    if (group.member) {
      await group.fetchBroadcast(session)
      const healed = group.key(session)
      if (healed !== undefined) return healed
    }
    throw noAccess(session)
  }

  #decrypt(parsed: ParsedObject, group: GroupView, device: Uint8Array, path: ResourcePath): Uint8Array {
    let opener = this.#openers.get(group)
    if (opener === undefined) {
      opener = new ObjectOpener(suite, (h) => group.key(h.session))
      this.#openers.set(group, opener)
    }
    return opener.open(parsed, device, path)
  }

  async #judge(
    bytes: Uint8Array,
    parsed: ParsedObject,
    plaintext: Uint8Array,
    group: GroupView,
    asked: Asked,
  ): Promise<Reading> {
    const { header } = parsed
    const kind = asked.kind ?? 'latest'
    if (asked.seq !== undefined) checkPackSeq(asked.seq, header.seq)
    const etag = etagOf(suite, parsed.encrypt0)
    const latest = kind === 'latest'
    const { seen } = this.#options
    const accepted = latest ? await seen.accepted(asked.device, asked.path) : undefined
    const judgement = await this.#judged(asked, etag, () =>
      judgeObject({
        kind: parsed.kind,
        header,
        etag,
        sids: group.credentials.sids(addressBytes(asked.device), header.gid),
        now: this.#now(),
        maxAgeSeconds: latest
          ? (group.policies?.maxAgeSeconds ?? this.#options.maxAgeSeconds ?? DEFAULT_MAX_AGE_SECONDS)
          : Number.MAX_SAFE_INTEGER,
        graceSeconds: group.policies?.graceSeconds ?? DEFAULT_GRACE_SECONDS,
        accepted,
        times: group.times(header.session),
        supersededAt: group.supersededAt(header.session),
        broadcastSeenAt: group.broadcastSeenAt,
      }),
    )
    if (judgement.stale && this.#options.allowStale !== true) {
      const age = Math.round(this.#now() - header.iat)
      throw new IotchainError('client/stale', `the newest reading to be had was sealed ${age} s ago`, {
        hint: 'the device may be off or cut off; --allow-stale shows it all the same',
      })
    }
    const records = recordsOf(header, plaintext, kind === 'pack')
    if (latest) await seen.accept(asked.device, asked.path, judgement.accepted)
    const { stale, oldSession, repeated } = judgement
    return {
      device: asked.device,
      path: asked.path,
      header,
      form: parsed.kind,
      plaintext,
      records,
      stale,
      oldSession,
      repeated,
      bytes,
    }
  }

  /** A rollback to an object that this client accepted itself has a name of its own. */
  async #judged<T>(asked: Asked, etag: Uint8Array, judge: () => T): Promise<T> {
    try {
      return judge()
    } catch (error) {
      if (!isIotchainError(error) || error.code !== 'object/rollback') throw error
      if (!(await this.#options.seen.wasAccepted(asked.device, asked.path, etag))) throw error
      throw new IotchainError(
        'client/replay',
        'an object that was accepted before, and superseded since, was offered again as the latest',
        {
          cause: error,
        },
      )
    }
  }

  #now(): number {
    return this.#options.clock.nowMs() / 1000
  }
}

const FETCH_CREDENTIALS = new Set(['object/unknown-signer', 'object/unknown-sid', 'object/not-covered'])

function recordsOf(header: ObjectHeader, plaintext: Uint8Array, pack: boolean): ResolvedRecord[] {
  if (pack || header.contentFormat === PACK_CONTENT_FORMAT)
    return resolveSenml(decodePack(plaintext).records, header.iat)
  if (header.contentFormat === ContentFormat.senmlCbor) return resolveSenml(decodeSenml(plaintext), header.iat)
  return []
}
