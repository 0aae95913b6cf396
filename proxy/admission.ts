/**
 * What a device may store, decided before anything changes (protocol.md §4.6): parse strictly → device and group known
 * → order → time of sealing → signature → store. A stranger's octets cost a parse, a look-up and at most one signature.
 */
import { suite } from '#crypto'
import { equalBytes } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { CredentialBook } from '../protocol/objects/credential-book.ts'
import { etagOf } from '../protocol/objects/etag.ts'
import { compareOrder, sidPosition } from '../protocol/objects/order.ts'
import { type ParsedSigned, parseSigned } from '../protocol/objects/parse.ts'
import { verifySigned } from '../protocol/objects/verify.ts'
import type { Logger } from '../runtime/log.ts'
import type { ObjectArchive, StoredObject } from './archive.ts'
import type { GroupCredentials } from './credentials.ts'
import type { RateLimit } from './rate-limit.ts'
import type { Target } from './target.ts'

export interface AdmissionOptions {
  readonly archive: ObjectArchive
  readonly credentials: GroupCredentials
  readonly clock: Clock
  readonly log: Logger
  /** How far iat of a latest object may be from now, seconds. */
  readonly maxSkewSeconds: number
  readonly maxObjectOctets: number
  /** Objects of one device over time, charged after the signature: others cannot use it up. */
  readonly rate: RateLimit<Address>
  readonly historyKeepSeconds: number
  /** A resource has another latest object. */
  readonly onChange: (target: Target) => void
}

/** `created`: the first of its resource; `changed`; `same`: these octets are stored already. */
export type Admitted = 'created' | 'changed' | 'same'

/** Nothing from further ahead is taken, seconds. */
const FUTURE_SECONDS = 60
/** A clock that is wrong is set right at any moment: whoever is told to come again waits no longer, seconds. */
const CLOCK_RETRY_SECONDS = 60
/** Signers and Sender IDs that a newer credential may explain. */
const REFETCH = new Set(['object/unknown-signer', 'object/unknown-sid', 'object/not-covered'])

export class Admission {
  readonly #options: AdmissionOptions
  /** One decision at a time for each resource: order is checked against what is stored. */
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor(options: AdmissionOptions) {
    this.#options = options
  }

  /**
   * @param backlog the object belongs to the past, whatever is the latest
   * @throws `object/…`, `proxy/…`, `store/…`; nothing has changed then
   */
  async put(target: Target, bytes: Uint8Array, backlog: boolean): Promise<Admitted> {
    if (bytes.length > this.#options.maxObjectOctets) {
      throw new IotchainError('proxy/too-large', `an object has at most ${this.#options.maxObjectOctets} octets here`)
    }
    if (target.kind === 'past') throw new IotchainError('proxy/bad-path', 'past objects are stored with ?backlog')
    const parsed = parseSigned(bytes)
    const book = await this.#bookFor(parsed, target)
    return this.#inTurn(`${target.device} ${target.resource}`, () => this.#decide(target, bytes, parsed, book, backlog))
  }

  /** The credentials of the object's group, once they name the device and its Sender ID; asked for again if not. */
  async #bookFor(parsed: ParsedSigned, target: Target): Promise<CredentialBook> {
    const { credentials } = this.#options
    const { gid, sid } = parsed.header
    let book = await credentials.of(gid)
    if (sidPosition(book.sids(target.deviceBytes, gid), sid) >= 0) return book
    const asked = await credentials.refresh(gid)
    if (asked) book = await credentials.of(gid)
    const sids = book.sids(target.deviceBytes, gid)
    if (sidPosition(sids, sid) < 0 && credentials.untimely(gid)) {
      throw new IotchainError(
        'proxy/clock',
        'by the clock of this proxy the credential of the device is not in force',
        {
          hint: 'set the clock of the proxy',
          retryAfterSeconds: CLOCK_RETRY_SECONDS,
        },
      )
    }
    if (sids.length === 0) {
      throw new IotchainError('proxy/unknown-device', 'no credential says that this device seals for this group', {
        retryAfterSeconds: 10,
      })
    }
    if (sidPosition(sids, sid) < 0) {
      if (!asked) {
        // It may be a new incarnation: the device shall come back rather than give up.
        throw new IotchainError('proxy/rate', 'credentials were asked for just now', { retryAfterSeconds: 10 })
      }
      throw new IotchainError('object/unknown-sid', 'the credential of the device does not list this Sender ID')
    }
    return book
  }

  async #decide(
    target: Target,
    bytes: Uint8Array,
    parsed: ParsedSigned,
    book: CredentialBook,
    backlog: boolean,
  ): Promise<Admitted> {
    const { archive, rate, onChange } = this.#options
    const { device, resource, kind } = target
    const { header } = parsed
    const state = archive.resource(device, resource)
    const same = await this.#stored(target, parsed, backlog)
    if (same !== undefined && equalBytes(same.bytes, bytes)) return 'same'
    // Order and time come before the signature: they are cheap, and an old object of the device itself is common.
    this.#checkOrder(target, parsed, book, same, backlog)
    this.#checkAhead(target, bytes, header.iat, book)
    this.#checkAge(header.iat, kind, backlog)
    if (kind === 'pack' && target.seq !== undefined && target.seq !== header.seq) {
      throw new IotchainError('object/swapped', 'the pack has another sequence number than its path')
    }
    const current = await this.#verify(target, bytes, parsed, book)
    // A credential that was fetched just now may order the Sender IDs anew.
    if (current !== book) this.#checkOrder(target, parsed, current, same, backlog)
    archive.assertRoom(device, resource)
    rate.take(device)
    const object: StoredObject = {
      bytes: bytes.slice(),
      etag: etagOf(suite, bytes),
      gid: header.gid,
      session: header.session,
      sid: header.sid,
      seq: header.seq,
      iat: header.iat,
    }
    if (kind === 'gone') {
      const sids = current.sids(target.deviceBytes, header.gid)
      await archive.putGone(device, resource, object, (place) => compareOrder(sids, place, header) < 0)
    } else if (kind === 'object' && !backlog) await archive.putLatest(device, resource, object)
    else await archive.putPast(device, resource, kind === 'pack' ? 'pack' : 'object', object)
    if (kind === 'gone' || (kind === 'object' && !backlog)) onChange(target)
    return state?.latest === undefined ? 'created' : 'changed'
  }

  /** What is stored at exactly this place, if anything is. */
  async #stored(target: Target, parsed: ParsedSigned, backlog: boolean): Promise<StoredObject | undefined> {
    const { archive } = this.#options
    const { device, resource, kind } = target
    const { sid, seq } = parsed.header
    const at = (object: StoredObject | undefined): StoredObject | undefined =>
      object !== undefined && object.seq === seq && equalBytes(object.sid, sid) ? object : undefined
    const state = archive.resource(device, resource)
    if (kind === 'gone') return at(state?.gone)
    if (kind === 'pack') return archive.past(device, resource, 'pack', sid, seq)
    return at(state?.latest) ?? (backlog ? archive.past(device, resource, 'object', sid, seq) : undefined)
  }

  #checkOrder(
    target: Target,
    parsed: ParsedSigned,
    book: CredentialBook,
    same: StoredObject | undefined,
    backlog: boolean,
  ): void {
    const { header } = parsed
    const state = this.#options.archive.resource(target.device, target.resource)
    const sids = book.sids(target.deviceBytes, header.gid)
    const notAbove = (place: StoredObject | undefined): boolean =>
      place !== undefined && compareOrder(sids, header, place) <= 0
    if (same !== undefined) {
      throw new IotchainError('proxy/order', 'another object with this sequence number is stored')
    }
    if (notAbove(state?.gone)) {
      throw new IotchainError('proxy/order', 'the device has had everything up to here forgotten')
    }
    if (target.kind === 'object' && !backlog && notAbove(state?.latest)) {
      throw new IotchainError('proxy/order', 'an object that is later in the order is stored', {
        hint: 'objects of the past are stored with ?backlog',
      })
    }
  }

  /** Either clock may be the wrong one, and be set right: what is ahead is refused for now, not for good. */
  #checkAhead(target: Target, bytes: Uint8Array, iat: number, book: CredentialBook): void {
    const { clock, log } = this.#options
    const ahead = Math.ceil(iat - clock.nowMs() / 1000)
    if (ahead <= FUTURE_SECONDS) return
    if (isSignedBy(target, bytes, book)) {
      log.limited(
        'ahead',
        'warn',
        { device: target.device, path: target.resource, aheadSeconds: ahead },
        'an object was sealed in the future: the clock of this proxy seems to be behind, or that of the device ahead',
      )
    }
    throw new IotchainError('object/future', 'the object was sealed in the future', {
      hint: 'check the clock of the proxy, then that of the device',
      retryAfterSeconds: Math.min(CLOCK_RETRY_SECONDS, ahead - FUTURE_SECONDS),
    })
  }

  /** A tombstone may be as late as it is: the order alone says what it takes away. */
  #checkAge(iat: number, kind: Target['kind'], backlog: boolean): void {
    const { clock, maxSkewSeconds, historyKeepSeconds } = this.#options
    const now = clock.nowMs() / 1000
    if (kind === 'gone') return
    if (kind === 'object' && !backlog && Math.abs(iat - now) > maxSkewSeconds) {
      throw new IotchainError('proxy/too-old', `a latest object was sealed at most ${maxSkewSeconds} s ago`, {
        hint: 'objects of the past are stored with ?backlog',
      })
    }
    if (now - iat > historyKeepSeconds) {
      throw new IotchainError('proxy/too-old', 'the object is older than what this proxy keeps')
    }
  }

  /** @returns the credentials that it was verified with */
  async #verify(
    target: Target,
    bytes: Uint8Array,
    parsed: ParsedSigned,
    book: CredentialBook,
  ): Promise<CredentialBook> {
    try {
      verify(target, bytes, book)
      return book
    } catch (error) {
      if (!isIotchainError(error) || !REFETCH.has(error.code)) throw error
      const { credentials } = this.#options
      const { gid, iat } = parsed.header
      const past = error.code === 'object/not-covered'
      if (!(await (past ? credentials.refreshAt(gid, iat) : credentials.refresh(gid)))) throw error
      const fresh = await credentials.of(gid)
      verify(target, bytes, fresh)
      return fresh
    }
  }

  #inTurn<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(key) ?? Promise.resolve()
    const result = before.then(work)
    const settled = result.then(
      () => undefined,
      () => undefined,
    )
    this.#turns.set(key, settled)
    settled.then(() => {
      if (this.#turns.get(key) === settled) this.#turns.delete(key)
    }, undefined)
    return result
  }
}

function verify(target: Target, bytes: Uint8Array, book: CredentialBook): void {
  verifySigned(bytes, {
    device: target.deviceBytes,
    path: target.sealedPath,
    credentials: book.of(target.deviceBytes),
  })
}

function isSignedBy(target: Target, bytes: Uint8Array, book: CredentialBook): boolean {
  try {
    verify(target, bytes, book)
    return true
  } catch (error) {
    if (!isIotchainError(error)) throw error
    return false
  }
}
