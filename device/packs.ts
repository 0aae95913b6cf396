/**
 * Packs (protocol.md "Packs"): the readings of one resource and one session under a single seal, made once when the
 * session is superseded, or at 64 readings. They are this device's history, and the proxy's.
 */
import { toHex } from '../protocol/bytes.ts'
import { PACK_SEGMENT } from '../protocol/objects/aad.ts'
import { encodePack, PACK_CONTENT_FORMAT, PACK_DELAY, PACK_READINGS } from '../protocol/objects/pack.ts'
import { decodeSenml, type SenmlRecord } from '../protocol/objects/senml.ts'
import type { Logger } from '../runtime/log.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store, type StoreOperation } from '../store/store.ts'
import type { GroupSession } from './group-session.ts'
import { packRecords } from './pack-records.ts'
import type { SealedObject } from './sealed-object.ts'

export interface PacksOptions {
  readonly store: Store
  readonly log: Logger
  /** Packs kept for each resource; 0: none are made. */
  readonly capacity: number
  readonly nowSeconds: () => number | undefined
  /** Seals under the session of the pack; undefined while that cannot be done. */
  readonly seal: (
    group: GroupSession,
    path: string,
    contentFormat: number,
    plaintext: Uint8Array,
    at: { session: number; iat: number },
  ) => SealedObject | undefined
  /** Takes each pack, for the proxy. */
  readonly onPack: (pack: SealedObject) => void
}

export interface PackEntry {
  readonly seq: number
  readonly iat: number
  /** Times of the first and last reading, unix seconds. */
  readonly from: number
  readonly to: number
  readonly octets: number
}

interface OpenPack {
  readonly group: GroupSession
  readonly session: number
  readonly seqs: number[]
  readonly readings: SenmlRecord[][]
  from: number
  to: number
}

interface PackRecord extends PackEntry {
  readonly path: string
  readonly signed: Uint8Array
}

const LOOK_MS = 1000

export class Packs {
  readonly #options: PacksOptions
  readonly #open = new Map<string, OpenPack>()
  readonly #index = new Map<string, PackEntry[]>()
  #timer: NodeJS.Timeout | undefined

  private constructor(options: PacksOptions) {
    this.#options = options
  }

  static async load(options: PacksOptions): Promise<Packs> {
    const self = new Packs(options)
    for await (const [, value] of options.store.range(prefixRange('p/'))) {
      try {
        const { path, signed: _, ...entry } = decodeRecord<PackRecord>(value)
        self.#entries(path).push(entry)
      } catch (error) {
        options.log.warn({ err: error }, 'a stored pack cannot be read: left out')
      }
    }
    return self
  }

  /** A reading was sealed: it goes into the pack of its session. */
  note(object: SealedObject, group: GroupSession, plaintext: Uint8Array): void {
    const now = this.#options.nowSeconds()
    if (this.#options.capacity === 0 || now === undefined) return
    const open = this.#open.get(object.path)
    if (open !== undefined && open.session !== object.session) this.#close(object.path, open, now)
    let pack = this.#open.get(object.path)
    if (pack === undefined || pack.session !== object.session) {
      pack = { group, session: object.session, seqs: [], readings: [], from: object.iat, to: object.iat }
      this.#open.set(object.path, pack)
    }
    pack.seqs.push(object.seq)
    pack.readings.push(decodeSenml(plaintext))
    pack.to = object.iat
    if (pack.seqs.length >= PACK_READINGS) this.#close(object.path, pack, now)
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS)
  }

  /** Packs with readings between two times, oldest first. */
  list(path: string, from: number, to: number): readonly PackEntry[] {
    return (this.#index.get(path) ?? []).filter((e) => e.to >= from && e.from <= to)
  }

  /** The octets of a pack. */
  async get(path: string, seq: number): Promise<Uint8Array | undefined> {
    if (!(this.#index.get(path) ?? []).some((e) => e.seq === seq)) return undefined
    const value = await this.#options.store.get(packKey(path, seq))
    return value === undefined ? undefined : decodeRecord<PackRecord>(value).signed
  }

  /** Forgets the history of a resource. */
  async forget(path: string): Promise<void> {
    const entries = this.#index.get(path) ?? []
    this.#open.delete(path)
    this.#index.delete(path)
    await this.#options.store.batch(
      entries.map((e) => ({ type: 'del', key: packKey(path, e.seq) })),
      { sync: true },
    )
  }

  /** Seals what is open: the next start begins new packs. */
  stop(): void {
    clearInterval(this.#timer)
    const now = this.#options.nowSeconds()
    if (now === undefined) return
    for (const [path, pack] of this.#open) this.#close(path, pack, now)
  }

  #look(): void {
    const now = this.#options.nowSeconds()
    if (now === undefined) return
    for (const [path, pack] of this.#open) {
      const superseded = pack.group.supersededAt(pack.session)
      const times = pack.group.times(pack.session)
      if ((superseded !== undefined && superseded <= now) || (times !== undefined && times.exp <= now)) {
        this.#close(path, pack, now)
      }
    }
    if (this.#open.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
  }

  /** Seals a pack; one that cannot be sealed in time is given up: its readings stay single objects. */
  #close(path: string, pack: OpenPack, now: number): void {
    const { seal, onPack, log } = this.#options
    const exp = pack.group.times(pack.session)?.exp ?? now
    if (now > exp + PACK_DELAY) {
      this.#open.delete(path)
      return
    }
    try {
      const plaintext = encodePack({
        fromSeq: pack.seqs[0] as number,
        toSeq: pack.seqs.at(-1) as number,
        from: pack.from,
        to: pack.to,
        records: packRecords(pack.readings, now),
      })
      const at = { session: pack.session, iat: Math.min(now, exp) }
      const object = seal(pack.group, `${path}/${PACK_SEGMENT}`, PACK_CONTENT_FORMAT, plaintext, at)
      if (object === undefined) {
        // The clock or the disk does not allow it now: at the next look, unless more readings would not fit.
        if (pack.seqs.length >= PACK_READINGS) this.#open.delete(path)
        return
      }
      this.#open.delete(path)
      this.#store(path, pack, object)
      onPack(object)
    } catch (error) {
      this.#open.delete(path)
      log.limited('pack', 'warn', { path, err: error }, 'a pack could not be made: its readings stay single objects')
    }
  }

  #store(path: string, pack: OpenPack, object: SealedObject): void {
    const { seq, iat, signed } = object
    const entry: PackEntry = { seq, iat, from: pack.from, to: pack.to, octets: signed.length }
    const entries = this.#entries(path)
    entries.push(entry)
    const record: PackRecord = { ...entry, path, signed }
    const dropped = entries.splice(0, Math.max(0, entries.length - this.#options.capacity))
    const operations: StoreOperation[] = [
      { type: 'put', key: packKey(path, seq), value: encodeRecord(record) },
      ...dropped.map((e) => ({ type: 'del', key: packKey(path, e.seq) }) as const),
    ]
    this.#options.store.batch(operations).catch((error: unknown) => {
      this.#options.log.limited('pack-store', 'warn', { path, err: error }, 'a pack could not be stored on this device')
      const at = entries.indexOf(entry)
      if (at >= 0) entries.splice(at, 1)
    })
  }

  #entries(path: string): PackEntry[] {
    let entries = this.#index.get(path)
    if (entries === undefined) {
      entries = []
      this.#index.set(path, entries)
    }
    return entries
  }
}

/** Ordered by resource, then number. */
function packKey(path: string, seq: number): string {
  return `p/${toHex(new TextEncoder().encode(path))}/${seq.toString(16).padStart(12, '0')}`
}
