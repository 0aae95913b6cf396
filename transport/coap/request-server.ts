/**
 * From a request message to its reply: what RFC 7252 §5, 7641, 7959, 7967 and 9175 ask of a server, in the order in
 * which a request passes through. Handlers see what is left: a whole request for a resource that exists.
 */

import { encodeBlock, szxFor } from './block.ts'
import { Code, isSafe, methodOf } from './codes.ts'
import type { EchoIssuer } from './echo.ts'
import { HandlerRunner } from './handler-runner.ts'
import { IdleSweep } from './idle-sweep.ts'
import { IncomingRequest } from './incoming-request.ts'
import { encodeTail, type Message } from './message.ts'
import { Notifier } from './notifier.ts'
import { Observers, type ObserversParts } from './observers.ts'
import { OptionNumber } from './options.ts'
import { badOptionReply } from './problem-details.ts'
import { MAX_READY_KEY, ReadyReplies } from './ready-replies.ts'
import { ReplySender } from './reply-sender.ts'
import type { RouteMatch, Router } from './router.ts'
import type { CoapReply, Handler, Resource } from './server.ts'
import { Responder, type ResponderParts, ServerExchange } from './server-exchange.ts'
import { Snapshots } from './snapshots.ts'
import type { DropReason } from './stats.ts'
import type { Peer } from './transport.ts'
import { tooLargeReply, Uploads } from './uploads.ts'
import { WELL_KNOWN_CORE, wellKnownCore } from './well-known-core.ts'

export interface RequestServerParts extends ResponderParts, ObserversParts {
  readonly router: Router
  readonly echo: EchoIssuer
}

/** A source that is not verified must be able to pay for this much before a handler changes anything for it. */
const UNSAFE_RESERVE = 512

export class RequestServer {
  readonly uploads: Uploads
  readonly snapshots: Snapshots
  readonly observers: Observers
  readonly ready: ReadyReplies
  readonly #parts: RequestServerParts
  readonly #responder: Responder
  readonly #sender: ReplySender
  readonly #notifier: Notifier
  readonly #core: Resource
  readonly #runner: HandlerRunner
  readonly #sweep: IdleSweep
  readonly #stopListening: () => void

  constructor(parts: RequestServerParts, notify: (path: string) => void) {
    const { limits, stats, router, timers, onEvent } = parts
    const maxSzx = szxFor(limits.blockOctets)
    this.#parts = parts
    this.#sweep = new IdleSweep(timers, (now) => this.#expire(now))
    this.uploads = new Uploads(limits, stats, () => this.#sweep.wake())
    this.snapshots = new Snapshots(limits, stats, () => this.#sweep.wake())
    this.observers = new Observers(parts)
    this.ready = new ReadyReplies(limits)
    this.#responder = new Responder(parts)
    const { observers, snapshots, ready } = this
    this.#sender = new ReplySender({ ...parts, responder: this.#responder, observers, snapshots, ready, maxSzx })
    this.#runner = new HandlerRunner({ ...parts, responder: this.#responder, sender: this.#sender })
    this.#notifier = new Notifier({ router, observers, snapshots, timers, maxSzx, onEvent })
    this.#core = wellKnownCore(router)
    this.#stopListening = router.onNotify(notify)
  }

  /** @param pathText normalised by `formatPath` */
  notify(pathText: string): void {
    this.ready.forget(pathText)
    this.#notifier.notify(pathText)
  }

  /** The fast path: a GET whose options were seen before. @returns false when the request must go the long way */
  answerReady(octets: Buffer, peer: Peer): boolean {
    const first = octets[0] as number
    if (this.ready.size === 0 || (first & 0xe0) !== 0x40 || octets[1] !== Code.get) return false
    const tokenLength = first & 15
    const start = 4 + tokenLength
    if (tokenLength > 8 || octets.length < start || octets.length - start > MAX_READY_KEY) return false
    const reply = this.ready.find(octets, start)
    if (reply === undefined) return false
    const { guard, layer, stats, timers } = this.#parts
    if (reply.expiresMs <= timers.monotonicMs()) return false
    const length = start + reply.tail.length
    if (!guard.isTrusted(peer)) {
      if (!guard.admitReply(peer, octets.length, length) || !guard.admitRequest(peer)) return false
    }
    const out = Buffer.allocUnsafe(length)
    out[1] = reply.code
    if ((first & 0x10) === 0) {
      out[0] = 0x60 | tokenLength
      out[2] = octets[2] as number
      out[3] = octets[3] as number
    } else {
      const messageId = layer.nextMessageId(peer)
      out[0] = 0x50 | tokenLength
      out[2] = messageId >> 8
      out[3] = messageId & 255
    }
    for (let i = 4; i < start; i++) out[i] = octets[i] as number
    out.set(reply.tail, start)
    stats.requestsServed++
    stats.requestsReady++
    layer.transmit(out, peer)
    return true
  }

  receive(message: Message, peer: Peer, multicast: boolean): void {
    const { echo, guard, layer, limits, stats } = this.#parts
    const exchange = new ServerExchange(message, peer, multicast)
    if (!guard.admitRequest(peer)) {
      this.#drop('rate')
      if (exchange.confirmable && guard.isVerified(peer)) {
        this.#responder.send(exchange, { code: Code.tooManyRequests, tail: TRY_IN_A_SECOND })
      }
      return
    }
    const active = this.#runner.find(message, peer)
    if (active !== undefined) {
      this.#drop('duplicate')
      if (active.acknowledged) layer.acknowledge(message.messageId, peer)
      return
    }
    stats.requestsServed++
    const request = new IncomingRequest(message, peer, multicast)
    const echoAge = request.echo === undefined ? undefined : echo.ageSeconds(request.echo, peer)
    if (echoAge !== undefined) guard.verify(peer)
    request.verified = guard.isVerified(peer)
    if (request.badOption !== undefined) {
      this.#refuseOption(exchange, request)
      return
    }
    if (message.octets.length > limits.datagramOctets) {
      // "in blocks, please" (RFC 7959 §2.9.3): what waits for a slow handler must not be 64 KiB a piece
      this.#sender.finish(exchange, request, undefined, IN_BLOCKS)
      return
    }
    const match = this.#match(request)
    if (!('resource' in match)) {
      this.#sender.finish(exchange, request, undefined, match)
      return
    }
    const { resource } = match
    if (multicast && resource.multicast !== true) {
      this.#drop('multicast')
      return
    }
    const handler = handlerOf(resource, message.code)
    if (handler === undefined) {
      this.#sender.finish(exchange, request, match, { code: Code.methodNotAllowed })
      return
    }
    request.params = match.params
    if (this.#needsEcho(request, resource, echoAge)) {
      this.#sender.challenge(exchange)
      return
    }
    const refusal = this.#before(request, resource)
    if (refusal !== undefined) {
      this.#sender.finish(exchange, request, match, refusal)
      return
    }
    const now = this.#parts.timers.monotonicMs()
    if (!isSafe(message.code)) exchange.seen = this.#parts.deduplication.remember(message, peer, now)
    const early = this.#blocks(request, resource, limits.bodyOctets, now)
    if (early !== undefined) {
      this.#sender.finish(exchange, request, match, early, true)
      return
    }
    this.#runner.run(exchange, request, match, handler)
  }

  /** Forgets what a peer left behind. */
  dropPeer(peer: Peer): void {
    this.uploads.dropPeer(peer.key)
    this.snapshots.dropPeer(peer.key)
    this.observers.removePeer(peer, 'peer-gone')
    this.#runner.dropPeer(peer)
  }

  close(): void {
    this.#stopListening()
    this.#sweep.close()
    this.#notifier.close()
    this.#responder.close()
    this.observers.close()
    this.#runner.close()
    this.uploads.clear()
    this.snapshots.clear()
    this.ready.clear()
  }

  #match(request: IncomingRequest): RouteMatch | CoapReply {
    const { router } = this.#parts
    if (request.badPath) return { code: Code.badRequest }
    if (methodOf(request.message.code) === undefined) return { code: Code.methodNotAllowed }
    if (request.proxied) {
      const { forward } = router.options
      return forward === undefined ? { code: Code.proxyingNotSupported } : { resource: forwarding(forward), params: {} }
    }
    const found = router.find(request.path)
    if (found !== undefined) return found
    if (router.options.wellKnownCore !== false && request.pathText === WELL_KNOWN_CORE) {
      return { resource: this.#core, params: {} }
    }
    return { code: Code.notFound }
  }

  // RFC 7252 §5.4.1: 4.02 to a CON, a NON is rejected
  #refuseOption(exchange: ServerExchange, request: IncomingRequest): void {
    this.#drop('bad-option')
    if (exchange.multicast) return
    if (exchange.confirmable) {
      // RFC 7959 §2.2: the reserved block size is a bad request, not an option that is not understood
      const block = request.badOption === OptionNumber.block1 || request.badOption === OptionNumber.block2
      const reply = block ? { code: Code.badRequest } : badOptionReply(request.badOption as number)
      this.#sender.finish(exchange, request, undefined, reply)
    } else {
      this.#parts.layer.reset(exchange.message.messageId, exchange.peer)
    }
  }

  #needsEcho(request: IncomingRequest, resource: Resource, echoAge: number | undefined): boolean {
    if (request.multicast) return false
    if (resource.freshSeconds !== undefined && (echoAge === undefined || echoAge > resource.freshSeconds)) return true
    if (request.verified || isSafe(request.message.code)) return false
    const { guard, limits } = this.#parts
    const free = request.message.octets.length * limits.amplificationFactor
    return free < UNSAFE_RESERVE && !guard.canSpend(request.peer, UNSAFE_RESERVE)
  }

  #before(request: IncomingRequest, resource: Resource): CoapReply | undefined {
    try {
      return resource.before?.(request)
    } catch (error) {
      return this.#runner.failed(request, error)
    }
  }

  /** Block1 and later blocks of Block2: a reply when the handler is not to run (yet). */
  #blocks(request: IncomingRequest, resource: Resource, defaultLimit: number, nowMs: number): CoapReply | undefined {
    const { block1, block2 } = request
    const bodyLimit = resource.bodyOctets ?? defaultLimit
    if (block1 !== undefined) {
      const step = this.uploads.take(request, block1, bodyLimit, nowMs)
      if ('reply' in step) return step.reply
      request.payload = step.body
    } else if (request.payload.length > bodyLimit) {
      return tooLargeReply(bodyLimit)
    }
    if (block2 === undefined || block2.number === 0) return undefined
    const snapshot = this.snapshots.find(request, nowMs)
    if (snapshot !== undefined) return snapshot
    // running a handler that changes something once per block would be wrong
    return isSafe(request.message.code) ? undefined : { code: Code.requestEntityIncomplete }
  }

  #expire(nowMs: number): boolean {
    this.uploads.expire(nowMs)
    this.snapshots.expire(nowMs)
    return this.uploads.size + this.snapshots.size > 0
  }

  #drop(reason: DropReason): void {
    this.#parts.stats.dropped[reason]++
  }
}

const IN_BLOCKS: CoapReply = {
  code: Code.requestEntityTooLarge,
  options: [{ number: OptionNumber.block1, value: encodeBlock({ number: 0, more: false, szx: 6 }) }],
}
const TRY_IN_A_SECOND = encodeTail([{ number: OptionNumber.maxAge, value: Uint8Array.of(1) }])

function handlerOf(resource: Resource, code: number): Handler | undefined {
  switch (code) {
    case Code.get:
      return resource.get
    case Code.post:
      return resource.post
    case Code.put:
      return resource.put
    case Code.delete:
      return resource.delete
    case Code.fetch:
      return resource.fetch
    case Code.patch:
      return resource.patch
    default:
      return resource.ipatch
  }
}

function forwarding(forward: Handler): Resource {
  return {
    pattern: '/*forward',
    get: forward,
    post: forward,
    put: forward,
    delete: forward,
    fetch: forward,
    patch: forward,
    ipatch: forward,
    handlesPreconditions: true,
  }
}
