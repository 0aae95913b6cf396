/**
 * Bodies of requests that arrive in blocks (RFC 7959 §2.5): kept by peer, method, resource and Request-Tag, never by
 * token. Everything here can be made to grow by a stranger, so everything here is capped.
 */
import { type Block, blockOctets } from './block.ts'
import { Code } from './codes.ts'
import type { IncomingRequest } from './incoming-request.ts'
import type { CoapLimits } from './limits.ts'
import { uintOption } from './option-set.ts'
import { OptionNumber } from './options.ts'
import type { CoapReply } from './server.ts'
import type { CoapStats } from './stats.ts'

interface Upload {
  readonly key: string
  readonly peerKey: string
  readonly verified: boolean
  readonly contentFormat: number | undefined
  /** Grows by doubling: small blocks, each in a datagram of its own, would cost many times their octets. */
  buffer: Uint8Array
  /** Of `buffer`, received. */
  octets: number
  /** What the last block was, to recognise its repetition. */
  lastStart: number
  touchedMs: number
}

/** `reply`: answer with it (2.31 or an error). `body`: all blocks are here. */
export type UploadStep = { readonly reply: CoapReply } | { readonly body: Uint8Array }

const EMPTY = new Uint8Array(0)
/** Blocks for which room is made at the beginning. */
const FIRST_CAPACITY = 4
/** A shorter time of silence after which an upload gives way when the table is full. */
const GIVES_WAY_MS = 10_000

export class Uploads {
  readonly #limits: CoapLimits
  readonly #stats: CoapStats
  readonly #onKept: () => void
  /** In order of last use. */
  readonly #uploads = new Map<string, Upload>()
  readonly #perPeer = new Map<string, number>()
  #octets = 0
  #unverified = 0

  /** @param onKept called when there is something to expire */
  constructor(limits: CoapLimits, stats: CoapStats, onKept: () => void) {
    this.#limits = limits
    this.#stats = stats
    this.#onKept = onKept
  }

  /** Takes one block. @param bodyLimit octets that this resource allows */
  take(request: IncomingRequest, block: Block, bodyLimit: number, nowMs: number): UploadStep {
    const size = blockOctets(block.szx)
    const { payload } = request
    const start = block.number * size
    const tooLarge = start + payload.length > bodyLimit || (request.size1 ?? 0) > bodyLimit
    const key = `${request.transferKey()}|${request.requestTag ?? '-'}`
    if (tooLarge) {
      this.#remove(this.#uploads.get(key))
      return { reply: tooLargeReply(bodyLimit) }
    }
    if (block.more ? payload.length !== size : payload.length > size) {
      return { reply: { code: Code.badRequest } }
    }
    if (block.number === 0) {
      this.#remove(this.#uploads.get(key))
      if (!block.more) return { body: payload }
      return this.#begin(request, key, payload, nowMs)
    }
    const upload = this.#uploads.get(key)
    if (upload === undefined || upload.contentFormat !== request.contentFormat) {
      return { reply: { code: Code.requestEntityIncomplete } }
    }
    // the same block once more, under another message ID: it is stored already
    if (start === upload.lastStart && start + payload.length === upload.octets && block.more) {
      return { reply: { code: Code.continue } }
    }
    if (start !== upload.octets) {
      this.#remove(upload)
      return { reply: { code: Code.requestEntityIncomplete } }
    }
    if (!block.more) {
      this.#remove(upload)
      const body = new Uint8Array(upload.octets + payload.length)
      body.set(upload.buffer.subarray(0, upload.octets))
      body.set(payload, upload.octets)
      return { body }
    }
    return this.#extend(upload, payload, nowMs)
  }

  /** Forgets what nobody continued. */
  expire(nowMs: number): void {
    for (const upload of this.#uploads.values()) {
      if (nowMs - upload.touchedMs < this.#limits.uploadIdleMs) return
      this.#remove(upload)
    }
  }

  dropPeer(peerKey: string): void {
    if (!this.#perPeer.has(peerKey)) return
    for (const upload of [...this.#uploads.values()]) if (upload.peerKey === peerKey) this.#remove(upload)
  }

  clear(): void {
    for (const upload of [...this.#uploads.values()]) this.#remove(upload)
  }

  get size(): number {
    return this.#uploads.size
  }

  #begin(request: IncomingRequest, key: string, payload: Uint8Array, nowMs: number): UploadStep {
    if (!this.#makeRoomOf(request.peer.key, nowMs)) return { reply: busyReply() }
    if (!this.#makeRoom(request.verified, payload.length * FIRST_CAPACITY, nowMs)) return { reply: busyReply() }
    const upload: Upload = {
      key,
      peerKey: request.peer.key,
      verified: request.verified,
      contentFormat: request.contentFormat,
      buffer: EMPTY,
      octets: 0,
      lastStart: 0,
      touchedMs: nowMs,
    }
    this.#uploads.set(key, upload)
    this.#perPeer.set(upload.peerKey, (this.#perPeer.get(upload.peerKey) ?? 0) + 1)
    if (!upload.verified) this.#unverified++
    this.#stats.uploads = this.#uploads.size
    this.#append(upload, payload)
    this.#onKept()
    return { reply: { code: Code.continue } }
  }

  #extend(upload: Upload, payload: Uint8Array, nowMs: number): UploadStep {
    const growth = upload.octets + payload.length > upload.buffer.length ? upload.buffer.length : 0
    if (this.#octets + growth > this.#limits.uploadOctets) {
      this.#giveWay(nowMs, (other) => other !== upload)
      if (this.#octets + growth > this.#limits.uploadOctets) {
        this.#remove(upload)
        return { reply: busyReply() }
      }
    }
    this.#append(upload, payload)
    upload.touchedMs = nowMs
    this.#uploads.delete(upload.key)
    this.#uploads.set(upload.key, upload)
    return { reply: { code: Code.continue } }
  }

  #append(upload: Upload, payload: Uint8Array): void {
    const needed = upload.octets + payload.length
    if (needed > upload.buffer.length) {
      const capacity = upload.octets === 0 ? payload.length * FIRST_CAPACITY : upload.buffer.length * 2
      const grown = new Uint8Array(Math.max(capacity, needed))
      grown.set(upload.buffer.subarray(0, upload.octets))
      this.#octets += grown.length - upload.buffer.length
      upload.buffer = grown
    }
    upload.buffer.set(payload, upload.octets)
    upload.lastStart = upload.octets
    upload.octets = needed
  }

  /** The unverified have a pool of their own, in which the newest wins: they cannot shut out the others. */
  #makeRoom(verified: boolean, octets: number, nowMs: number): boolean {
    if (!verified && this.#unverified >= this.#limits.uploadsUnverified) {
      this.#remove(this.#first((upload) => !upload.verified))
    }
    if (this.#uploads.size >= this.#limits.uploads || this.#octets + octets > this.#limits.uploadOctets) {
      if (verified && this.#unverified > 0) this.#remove(this.#first((upload) => !upload.verified))
      else this.#giveWay(nowMs, () => true)
    }
    return this.#uploads.size < this.#limits.uploads && this.#octets + octets <= this.#limits.uploadOctets
  }

  #giveWay(nowMs: number, which: (upload: Upload) => boolean): void {
    for (const upload of [...this.#uploads.values()]) {
      if (nowMs - upload.touchedMs < GIVES_WAY_MS) return
      if (which(upload)) this.#remove(upload)
    }
  }

  #first(which: (upload: Upload) => boolean): Upload | undefined {
    for (const upload of this.#uploads.values()) if (which(upload)) return upload
    return undefined
  }

  /** A peer's own uploads make room for each other only when one seems to be abandoned. */
  #makeRoomOf(peerKey: string, nowMs: number): boolean {
    if ((this.#perPeer.get(peerKey) ?? 0) < this.#limits.uploadsPerPeer) return true
    const oldest = this.#first((upload) => upload.peerKey === peerKey)
    if (oldest === undefined || nowMs - oldest.touchedMs < GIVES_WAY_MS) return false
    this.#remove(oldest)
    return true
  }

  #remove(upload: Upload | undefined): void {
    if (upload === undefined || !this.#uploads.delete(upload.key)) return
    this.#octets -= upload.buffer.length
    if (!upload.verified) this.#unverified--
    const left = (this.#perPeer.get(upload.peerKey) ?? 1) - 1
    if (left === 0) this.#perPeer.delete(upload.peerKey)
    else this.#perPeer.set(upload.peerKey, left)
    this.#stats.uploads = this.#uploads.size
  }
}

/** 4.13 with the largest body that would be taken (RFC 7959 §2.9.3, §4). */
export function tooLargeReply(bodyLimit: number): CoapReply {
  return { code: Code.requestEntityTooLarge, options: [uintOption(OptionNumber.size1, bodyLimit)] }
}

function busyReply(): CoapReply {
  return { code: Code.serviceUnavailable, maxAge: 10 }
}
