/** Runs handlers: at once or over time, so many at once and no more, and turns what they throw into replies. */
import { Code, isResponse } from './codes.ts'
import { errorReply } from './error-codes.ts'
import type { IncomingRequest } from './incoming-request.ts'
import type { CoapLimits } from './limits.ts'
import { type Message, MessageType } from './message.ts'
import { checkPreconditions, hasPreconditions } from './preconditions.ts'
import type { ReplySender } from './reply-sender.ts'
import type { RouteMatch, Router } from './router.ts'
import type { CoapReply, Handler } from './server.ts'
import type { Responder, ServerExchange } from './server-exchange.ts'
import type { SourceGuard } from './source-guard.ts'
import type { CoapEvent } from './stats.ts'
import type { Timers } from './timers.ts'
import type { Peer } from './transport.ts'

export interface HandlerRunnerParts {
  readonly responder: Responder
  readonly sender: ReplySender
  readonly guard: SourceGuard
  readonly limits: CoapLimits
  readonly timers: Timers
  readonly router: Router
  readonly onEvent: ((event: CoapEvent) => void) | undefined
}

type Step = CoapReply | Promise<CoapReply>

export class HandlerRunner {
  readonly #parts: HandlerRunnerParts
  /** Requests whose handler has not returned. */
  readonly #active = new Map<string, ServerExchange>()
  readonly #activePerPeer = new Map<string, number>()

  constructor(parts: HandlerRunnerParts) {
    this.#parts = parts
  }

  /** The exchange in which this very datagram is being answered already. */
  find(message: Message, peer: Peer): ServerExchange | undefined {
    if (this.#active.size === 0) return undefined
    const active = this.#active.get(activeKey(message, peer))
    return active?.message.octets.equals(message.octets) === true ? active : undefined
  }

  dropPeer(peer: Peer): void {
    for (const exchange of this.#active.values()) if (exchange.peer.key === peer.key) exchange.gone = true
  }

  close(): void {
    for (const exchange of this.#active.values()) {
      exchange.gone = true
      exchange.timer?.cancel()
    }
    this.#active.clear()
  }

  run(exchange: ServerExchange, request: IncomingRequest, match: RouteMatch, handler: Handler): void {
    const { limits } = this.#parts
    const mine = this.#activePerPeer.get(request.peer.key) ?? 0
    const all = request.verified ? limits.activeRequests : limits.activeRequests / 4
    if (this.#active.size >= all || mine >= limits.activeRequestsPerPeer) {
      this.#parts.sender.finish(exchange, request, match, { code: Code.serviceUnavailable, maxAge: 5 })
      return
    }
    let step: Step
    try {
      step = this.#callHandler(request, match, handler)
    } catch (error) {
      step = this.failed(request, error)
    }
    if (!isPromise(step)) {
      this.#parts.sender.finish(exchange, request, match, this.#checked(step, request))
      return
    }
    this.#await(exchange, request, match, step)
  }

  #callHandler(request: IncomingRequest, match: RouteMatch, handler: Handler): Step {
    if (!hasPreconditions(request) || match.resource.handlesPreconditions === true) return handler(request)
    const verdict = checkPreconditions(request, match)
    if (isPromise(verdict)) return verdict.then((reply) => reply ?? handler(request))
    return verdict ?? handler(request)
  }

  #await(exchange: ServerExchange, request: IncomingRequest, match: RouteMatch, reply: Promise<CoapReply>): void {
    const { guard, limits, timers } = this.#parts
    const { peer } = exchange
    const key = activeKey(exchange.message, peer)
    this.#active.set(key, exchange)
    this.#activePerPeer.set(peer.key, (this.#activePerPeer.get(peer.key) ?? 0) + 1)
    if (exchange.confirmable) {
      exchange.timer = timers.after(limits.separateAfterMs, () => {
        // one that is not verified gets one datagram per request: the reply, whenever it comes
        if (guard.isVerified(peer)) this.#parts.responder.acknowledge(exchange)
      })
    }
    const done = (settled: CoapReply) => {
      exchange.timer?.cancel()
      if (this.#active.get(key) === exchange) this.#active.delete(key)
      const left = (this.#activePerPeer.get(peer.key) ?? 1) - 1
      if (left === 0) this.#activePerPeer.delete(peer.key)
      else this.#activePerPeer.set(peer.key, left)
      this.#parts.sender.finish(exchange, request, match, this.#checked(settled, request))
    }
    reply.then(done, (error: unknown) => done(this.failed(request, error)))
  }

  #checked(reply: CoapReply | undefined, request: IncomingRequest): CoapReply {
    if (reply !== undefined && isResponse(reply.code)) return reply
    return this.failed(request, new TypeError(`the handler of ${request.pathText} returned no reply`))
  }

  failed(request: IncomingRequest, error: unknown): CoapReply {
    const { peer } = request
    this.#parts.onEvent?.({
      kind: 'handler-error',
      reason: request.pathText,
      peer: `${peer.address}:${peer.port}`,
      error,
    })
    return errorReply(error, this.#parts.router.options.errorCodes)
  }
}

function activeKey(message: Message, peer: Peer): string {
  return `${peer.key}|${message.messageId}|${message.type === MessageType.con ? 'c' : 'n'}`
}

function isPromise<T>(value: T | Promise<T>): value is Promise<T> {
  return typeof (value as { then?: unknown } | undefined)?.then === 'function'
}
