/**
 * Whom we may send how much (docs/coap.md "Amplification"). A source whose address may be spoofed gets at most three
 * times what it sent, one datagram per request; more is paid from a bucket of its network and one of all such sources.
 */
import type { CoapLimits } from './limits.ts'
import { isLoopback, parsePrefixes, prefixOf } from './source-prefix.ts'
import type { Timers } from './timers.ts'
import type { Peer } from './transport.ts'

class Bucket {
  octets: number
  requests: number
  atMs: number

  constructor(octets: number, requests: number, atMs: number) {
    this.octets = octets
    this.requests = requests
    this.atMs = atMs
  }
}

export interface SourceGuardOptions {
  readonly limits: CoapLimits
  readonly timers: Timers
  readonly trustedPrefixes: readonly string[]
  readonly trustLoopback: boolean
}

export class SourceGuard {
  readonly #limits: CoapLimits
  readonly #timers: Timers
  readonly #isTrustedPrefix: ((address: string) => boolean) | undefined
  readonly #trustLoopback: boolean
  /** Until when; in order of verification. */
  readonly #verified = new Map<string, number>()
  readonly #buckets = new Map<string, Bucket>()
  /** Shared by the networks for which there is no room in the table. */
  readonly #overflow: Bucket
  #globalOctets: number
  #globalAtMs: number
  #resets: number
  #resetsAtMs: number
  #trustedAddress = ''
  #trustedAnswer = false

  /** @throws `coap/bad-prefix` */
  constructor(options: SourceGuardOptions) {
    this.#limits = options.limits
    this.#timers = options.timers
    this.#isTrustedPrefix = parsePrefixes(options.trustedPrefixes)
    this.#trustLoopback = options.trustLoopback
    const now = this.#timers.monotonicMs()
    this.#globalOctets = this.#limits.globalBucketOctets
    this.#globalAtMs = now
    this.#resets = this.#limits.resetBurst
    this.#resetsAtMs = now
    this.#overflow = this.#newBucket(now)
  }

  /** DTLS, loopback or a configured prefix: no limit of rate or octets. */
  isTrusted(peer: Peer): boolean {
    if (peer.secure !== undefined) return true
    const { address } = peer
    if (this.#trustLoopback && isLoopback(address)) return true
    if (this.#isTrustedPrefix === undefined) return false
    // datagrams come in runs from one source, and asking the block list costs more than the rest of a GET
    if (address !== this.#trustedAddress) {
      this.#trustedAnswer = this.#isTrustedPrefix(address)
      this.#trustedAddress = address
    }
    return this.#trustedAnswer
  }

  isVerified(peer: Peer): boolean {
    if (this.isTrusted(peer)) return true
    const until = this.#verified.get(peer.key)
    return until !== undefined && until > this.#timers.monotonicMs()
  }

  /** The peer returned our Echo or acknowledged a CON of ours: its address is its own, for ten minutes. */
  verify(peer: Peer): void {
    if (this.isTrusted(peer)) return
    this.#verified.delete(peer.key)
    this.#verified.set(peer.key, this.#timers.monotonicMs() + this.#limits.verifiedMs)
    if (this.#verified.size <= this.#limits.verifiedSources) return
    for (const key of this.#verified.keys()) {
      this.#verified.delete(key)
      break
    }
  }

  forget(peer: Peer): void {
    this.#verified.delete(peer.key)
  }

  /** Counts a request against the rate of its network. @returns false when there were too many */
  admitRequest(peer: Peer): boolean {
    if (this.isTrusted(peer)) return true
    const bucket = this.#bucketOf(peer)
    if (bucket.requests < 1) return false
    bucket.requests--
    return true
  }

  /**
   * Whether a message that nobody waits for may draw a reset. A peer that answers resets (go-coap sends a CON 4.04)
   * would go on with us for ever, at the speed of the network; RFC 7252 §4.2 lets a rejection be silent.
   */
  admitReset(): boolean {
    const now = this.#timers.monotonicMs()
    const { resetBurst, resetsPerSecond } = this.#limits
    this.#resets = Math.min(resetBurst, this.#resets + ((now - this.#resetsAtMs) / 1000) * resetsPerSecond)
    this.#resetsAtMs = now
    if (this.#resets < 1) return false
    this.#resets--
    return true
  }

  /** Whether `replyOctets` may answer a request of `requestOctets`; pays for them where they must be paid for. */
  admitReply(peer: Peer, requestOctets: number, replyOctets: number): boolean {
    if (this.isVerified(peer)) return true
    if (replyOctets <= requestOctets * this.#limits.amplificationFactor) return true
    return this.spend(peer, replyOctets)
  }

  /** Pays for octets that nobody asked for at this moment. @returns false when a bucket is too empty */
  spend(peer: Peer, octets: number): boolean {
    if (!this.canSpend(peer, octets)) return false
    this.#bucketOf(peer).octets -= octets
    this.#globalOctets -= octets
    return true
  }

  canSpend(peer: Peer, octets: number): boolean {
    this.#refillGlobal()
    return this.#globalOctets >= octets && this.#bucketOf(peer).octets >= octets
  }

  #bucketOf(peer: Peer): Bucket {
    const now = this.#timers.monotonicMs()
    const prefix = prefixOf(peer.address)
    let bucket = this.#buckets.get(prefix)
    if (bucket === undefined) {
      if (this.#buckets.size >= this.#limits.prefixes) this.#sweep(now)
      if (this.#buckets.size >= this.#limits.prefixes) {
        bucket = this.#overflow
      } else {
        bucket = this.#newBucket(now)
        this.#buckets.set(prefix, bucket)
      }
    }
    this.#refill(bucket, now)
    return bucket
  }

  // only full buckets go: forgetting any other would give its network a new allowance
  #sweep(nowMs: number): void {
    let looked = 0
    for (const [prefix, bucket] of this.#buckets) {
      this.#refill(bucket, nowMs)
      if (bucket.octets >= this.#limits.prefixBucketOctets && bucket.requests >= this.#limits.requestBurst) {
        this.#buckets.delete(prefix)
      } else {
        this.#buckets.delete(prefix)
        this.#buckets.set(prefix, bucket)
      }
      // a few at a time: a flood of new networks must not make each datagram cost a walk through the table
      if (++looked >= 8) return
    }
  }

  #newBucket(nowMs: number): Bucket {
    return new Bucket(this.#limits.prefixBucketOctets, this.#limits.requestBurst, nowMs)
  }

  #refill(bucket: Bucket, nowMs: number): void {
    const seconds = (nowMs - bucket.atMs) / 1000
    if (seconds <= 0) return
    const { prefixBucketOctets, prefixRefillPerSecond, requestBurst, requestsPerSecond } = this.#limits
    bucket.atMs = nowMs
    bucket.octets = Math.min(prefixBucketOctets, bucket.octets + seconds * prefixRefillPerSecond)
    bucket.requests = Math.min(requestBurst, bucket.requests + seconds * requestsPerSecond)
  }

  #refillGlobal(): void {
    const now = this.#timers.monotonicMs()
    const { globalBucketOctets, globalRefillPerSecond } = this.#limits
    const seconds = (now - this.#globalAtMs) / 1000
    this.#globalOctets = Math.min(globalBucketOctets, this.#globalOctets + seconds * globalRefillPerSecond)
    this.#globalAtMs = now
  }
}
