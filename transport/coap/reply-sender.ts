/** The way of a reply out: conditions, observe, blocks, No-Response, and what the source may be sent. */
import { type Block, blockOctets } from './block.ts'
import { Code, isSafe, isSuccess } from './codes.ts'
import type { EchoIssuer } from './echo.ts'
import type { IncomingRequest } from './incoming-request.ts'
import { encodeTail } from './message.ts'
import type { Observers } from './observers.ts'
import { OptionNumber } from './options.ts'
import type { ReadyReplies } from './ready-replies.ts'
import type { Relation } from './relation.ts'
import { applyConditions, type EncodedReply, encodeReply, isReady, withEtag } from './reply.ts'
import type { RouteMatch } from './router.ts'
import type { CoapReply } from './server.ts'
import type { Responder, SendOptions, ServerExchange } from './server-exchange.ts'
import type { Snapshots } from './snapshots.ts'
import type { SourceGuard } from './source-guard.ts'
import type { CoapEvent, CoapStats } from './stats.ts'
import type { Timers } from './timers.ts'

export interface ReplySenderParts {
  readonly responder: Responder
  readonly observers: Observers
  readonly snapshots: Snapshots
  readonly ready: ReadyReplies
  readonly echo: EchoIssuer
  readonly guard: SourceGuard
  readonly stats: CoapStats
  readonly timers: Timers
  readonly maxSzx: number
  readonly onEvent: ((event: CoapEvent) => void) | undefined
}

export class ReplySender {
  readonly #parts: ReplySenderParts

  constructor(parts: ReplySenderParts) {
    this.#parts = parts
  }

  /**
   * Sends the reply of a handler or of the engine itself.
   * @param served the reply is a snapshot or about a block: neither conditions nor observe apply to it
   */
  finish(
    exchange: ServerExchange,
    request: IncomingRequest,
    match: RouteMatch | undefined,
    reply: CoapReply,
    served = false,
  ): void {
    if (exchange.gone) return
    try {
      this.#finish(exchange, request, match, reply, served)
    } catch {
      // a reply that cannot be encoded is a fault of its handler
      this.#parts.responder.send(exchange, { code: Code.internalServerError, tail: EMPTY })
    }
  }

  /** 4.01 with an Echo value: whoever returns it receives at the address that it claims (RFC 9175 §2.3). */
  challenge(exchange: ServerExchange): void {
    const { echo, responder, stats } = this.#parts
    const tail = encodeTail([{ number: OptionNumber.echo, value: echo.issue(exchange.peer) }])
    if (!responder.send(exchange, { code: Code.unauthorized, tail })) stats.dropped.amplification++
  }

  #finish(
    exchange: ServerExchange,
    request: IncomingRequest,
    match: RouteMatch | undefined,
    reply: CoapReply,
    served: boolean,
  ): void {
    const { observers, responder, snapshots, stats, timers, maxSzx } = this.#parts
    const conditioned = served ? reply : applyConditions(request, reply)
    if (isSuppressed(request, conditioned)) {
      stats.dropped.suppressed++
      responder.keepSilent(exchange)
      return
    }
    const relation = served ? undefined : this.#register(request, match, conditioned)
    const sequence = relation === undefined ? undefined : observers.nextSequence()
    const szx = Math.min(request.block2?.szx ?? maxSzx, maxSzx)
    const number = isSuccess(conditioned.code) ? (request.block2?.number ?? 0) : 0
    const block1 = acknowledgedBlock(request, conditioned)
    const inBlocks = (conditioned.payload?.length ?? 0) > blockOctets(szx)
    const body = inBlocks ? withEtag(conditioned) : conditioned
    const encoded = encodeReply(body, { number, szx }, sequence, block1)
    if (encoded === undefined) {
      responder.send(exchange, { code: Code.badRequest, tail: EMPTY })
      return
    }
    if (encoded.more && !served) snapshots.keep(request, body, timers.monotonicMs())
    if (responder.send(exchange, encoded, this.#sendOptions(body, encoded.more, relation))) {
      if (!encoded.more && sequence === undefined && !served) this.#keepReady(request, match, reply, encoded)
      return
    }
    observers.remove(relation)
    if (exchange.multicast) stats.dropped.amplification++
    else if (isSafe(request.message.code)) this.challenge(exchange)
    else this.#shrink(exchange, request, body, szx, block1)
  }

  #register(request: IncomingRequest, match: RouteMatch | undefined, reply: CoapReply): Relation | undefined {
    if (match?.resource.observable !== true || request.observe === undefined || request.multicast) return undefined
    if (request.message.code !== Code.get && request.message.code !== Code.fetch) return undefined
    const { observers } = this.#parts
    if (request.observe === 1) observers.deregister(request)
    if (request.observe !== 0 || !isSuccess(reply.code) || (request.block2?.number ?? 0) > 0) return undefined
    return observers.register(request, match, reply.contentFormat)
  }

  #sendOptions(reply: CoapReply, more: boolean, relation: Relation | undefined): SendOptions {
    const onAcknowledged = more ? undefined : reply.onAcknowledged
    return {
      separate: onAcknowledged !== undefined,
      onSettled: (outcome) => {
        if (outcome === 'acknowledged') this.#tell(onAcknowledged)
        if (outcome === 'reset') this.#parts.observers.remove(relation)
      },
    }
  }

  #tell(onAcknowledged: (() => void) | undefined): void {
    try {
      onAcknowledged?.()
    } catch (error) {
      this.#parts.onEvent?.({ kind: 'handler-error', reason: 'onAcknowledged', peer: '', error })
    }
  }

  /**
   * The handler has run and changed something, so it cannot be asked again after a challenge: the reply shrinks
   * until the source may be sent it.
   */
  #shrink(exchange: ServerExchange, request: IncomingRequest, reply: CoapReply, szx: number, block1?: Block): void {
    const { responder, snapshots, stats, timers } = this.#parts
    if (isSuccess(reply.code) && reply.payload !== undefined) {
      const body = withEtag(reply)
      for (let smaller = szx - 1; smaller >= 0; smaller--) {
        const encoded = encodeReply(body, { number: 0, szx: smaller }, undefined, block1)
        if (encoded === undefined || !encoded.more) continue
        if (!responder.send(exchange, encoded)) continue
        snapshots.keep(request, body, timers.monotonicMs())
        return
      }
    } else {
      const bare = encodeReply({ code: reply.code, maxAge: reply.maxAge }, { number: 0, szx }, undefined, block1)
      if (bare !== undefined && responder.send(exchange, bare)) return
    }
    stats.dropped.amplification++
  }

  /** The same octets will draw the same reply: only if nothing but them mattered. */
  #keepReady(request: IncomingRequest, match: RouteMatch | undefined, reply: CoapReply, encoded: EncodedReply): void {
    const { message } = request
    const { resource } = match ?? {}
    if (!isReady(reply) || resource === undefined || message.code !== Code.get || request.multicast) return
    if (resource.before !== undefined || resource.freshSeconds !== undefined) return
    if (request.observe !== undefined || request.block1 !== undefined || request.block2 !== undefined) return
    if (request.echo !== undefined || request.noResponse !== 0 || request.proxied || request.payload.length > 0) return
    if (request.ifNoneMatch || request.ifMatch.length > 0 || reply.onAcknowledged !== undefined) return
    const { ready, timers } = this.#parts
    ready.keep(Uint8Array.from(message.octets.subarray(message.optionsStart, message.optionsEnd)), {
      code: encoded.code,
      tail: encoded.tail,
      pathText: request.pathText,
      expiresMs: timers.monotonicMs() + (reply.maxAge ?? 60) * 1000,
    })
  }
}

const EMPTY = new Uint8Array(0)

/** The Block1 option of a reply: which block it answers, and whether more are wanted (RFC 7959 §2.3). */
function acknowledgedBlock(request: IncomingRequest, reply: CoapReply): Block | undefined {
  const { block1 } = request
  return block1 === undefined ? undefined : { ...block1, more: reply.code === Code.continue }
}

/** No-Response (RFC 7967 §2.1), and what a group need not hear (RFC 7252 §8.2). */
function isSuppressed(request: IncomingRequest, reply: CoapReply): boolean {
  const codeClass = reply.code >> 5
  if (reply.code !== Code.continue && ((request.noResponse >> (codeClass - 1)) & 1) === 1) return true
  // of a group, only those answer that have something to give
  return request.multicast && (codeClass !== 2 || (reply.payload?.length ?? 0) === 0)
}
