/** From `notify(path)` to notifications: GET runs again for the observers of the path, the newest state goes out. */
import { blockOctets } from './block.ts'
import { Code } from './codes.ts'
import { errorReply } from './error-codes.ts'
import type { Observers } from './observers.ts'
import type { Relation } from './relation.ts'
import { applyConditions, type EncodedReply, encodeReply, isReady, withEtag } from './reply.ts'
import type { Router } from './router.ts'
import type { CoapReply } from './server.ts'
import type { Snapshots } from './snapshots.ts'
import type { CoapEvent } from './stats.ts'
import type { Timer, Timers } from './timers.ts'

/** Observers served before the event loop gets its turn. */
const BATCH = 256

export interface NotifierParts {
  readonly router: Router
  readonly observers: Observers
  readonly snapshots: Snapshots
  readonly timers: Timers
  readonly maxSzx: number
  readonly onEvent: ((event: CoapEvent) => void) | undefined
}

/** What one round has computed already, for observers that asked the same. */
interface Round {
  readonly sequence: number
  readonly replies: Map<string, CoapReply | Promise<CoapReply>>
  readonly encoded: Map<CoapReply, EncodedReply>
}

export class Notifier {
  readonly #parts: NotifierParts
  readonly #queue = new Set<Relation>()
  #timer: Timer | undefined
  #scheduled = false
  #closed = false

  constructor(parts: NotifierParts) {
    this.#parts = parts
  }

  notify(pathText: string): void {
    for (const relation of this.#parts.observers.of(pathText)) this.#mark(relation)
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
    this.#queue.clear()
  }

  #mark(relation: Relation): void {
    if (relation.running) {
      relation.dirty = true
      return
    }
    this.#queue.add(relation)
    if (this.#scheduled) return
    this.#scheduled = true
    // after the caller: several notify() for one change become one notification
    queueMicrotask(() => this.#round())
  }

  #round(): void {
    this.#scheduled = false
    this.#timer = undefined
    if (this.#closed) return
    const round: Round = { sequence: this.#parts.observers.nextSequence(), replies: new Map(), encoded: new Map() }
    let served = 0
    for (const relation of this.#queue) {
      if (served++ >= BATCH) {
        this.#scheduled = true
        this.#timer = this.#parts.timers.after(0, () => this.#round())
        return
      }
      this.#queue.delete(relation)
      if (!relation.removed) this.#serve(relation, round)
    }
  }

  #serve(relation: Relation, round: Round): void {
    const reply = this.#evaluateOnce(relation, round)
    if (!(reply instanceof Promise)) {
      this.#deliver(relation, reply, round)
      return
    }
    relation.running = true
    reply
      .catch((error: unknown) => this.#failed(relation, error))
      .then((settled) => {
        relation.running = false
        this.#deliver(relation, settled, round)
        if (relation.dirty && !relation.removed) {
          relation.dirty = false
          this.#mark(relation)
        }
      })
      .catch((error: unknown) => this.#failed(relation, error))
  }

  /** A `ready` reply is the same for all that asked with the same options: it is asked for once. */
  #evaluateOnce(relation: Relation, round: Round): CoapReply | Promise<CoapReply> {
    const { message, method } = relation.request
    if (method !== 'GET') return this.#evaluate(relation)
    const key = message.octets.toString('latin1', message.optionsStart, message.optionsEnd)
    const known = round.replies.get(key)
    if (known === undefined) {
      const reply = this.#evaluate(relation)
      round.replies.set(key, reply)
      return reply
    }
    if (known instanceof Promise) return known.then((reply) => (isReady(reply) ? reply : this.#evaluate(relation)))
    return isReady(known) ? known : this.#evaluate(relation)
  }

  #evaluate(relation: Relation): CoapReply | Promise<CoapReply> {
    const { request } = relation
    const match = this.#parts.router.find(request.path)
    const handler = request.method === 'GET' ? match?.resource.get : match?.resource.fetch
    if (match === undefined || handler === undefined) return { code: Code.notFound }
    request.params = match.params
    request.verified = relation.verified
    try {
      return handler(request)
    } catch (error) {
      return this.#failed(relation, error)
    }
  }

  #failed(relation: Relation, error: unknown): CoapReply {
    const { peer } = relation
    this.#parts.onEvent?.({
      kind: 'handler-error',
      reason: relation.request.pathText,
      peer: `${peer.address}:${peer.port}`,
      error,
    })
    return errorReply(error, this.#parts.router.options.errorCodes)
  }

  #deliver(relation: Relation, reply: CoapReply, round: Round): void {
    if (relation.removed || this.#closed) return
    const { observers, snapshots, timers, maxSzx } = this.#parts
    const known = round.encoded.get(reply)
    const szx = Math.min(relation.request.block2?.szx ?? maxSzx, maxSzx)
    const shared = isReady(reply) && relation.request.etags.length === 0 && szx === maxSzx
    if (shared && known !== undefined && relation.contentFormat === reply.contentFormat) {
      observers.offer(relation, known)
      return
    }
    const conditioned = applyConditions(relation.request, reply)
    const final = observers.verdict(relation, conditioned)
    if (final !== undefined) {
      const encoded = encodeReply(final, { number: 0, szx: maxSzx })
      if (encoded !== undefined) observers.finish(relation, encoded)
      return
    }
    const inBlocks = (conditioned.payload?.length ?? 0) > blockOctets(szx)
    const body = inBlocks ? withEtag(conditioned) : conditioned
    if (inBlocks) snapshots.keep(relation.request, body, timers.monotonicMs())
    const encoded = encodeReply(body, { number: 0, szx }, round.sequence)
    if (encoded === undefined) return
    if (shared && !inBlocks) round.encoded.set(reply, encoded)
    observers.offer(relation, encoded)
  }
}
