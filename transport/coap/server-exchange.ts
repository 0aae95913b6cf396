/** One request that is being answered, and the ways in which its reply may leave. */
import { isSuccess } from './codes.ts'
import type { Deduplication, Seen } from './deduplication.ts'
import type { CoapLimits } from './limits.ts'
import { assemble, assembleEmpty, type Message, MessageType } from './message.ts'
import type { MessageLayer, Outcome } from './message-layer.ts'
import type { EncodedReply } from './reply.ts'
import type { SourceGuard } from './source-guard.ts'
import type { CoapStats } from './stats.ts'
import type { Timer, Timers } from './timers.ts'
import type { Peer } from './transport.ts'

export class ServerExchange {
  readonly message: Message
  readonly peer: Peer
  readonly multicast: boolean
  /** Where a repetition of the request finds its answer; undefined for safe methods. */
  seen: Seen | undefined
  /** An empty ACK has left: the reply goes as a separate response. */
  acknowledged = false
  answered = false
  /** The peer or the endpoint is gone: nothing leaves any more. */
  gone = false
  timer: Timer | undefined

  constructor(message: Message, peer: Peer, multicast: boolean) {
    this.message = message
    this.peer = peer
    this.multicast = multicast
  }

  get confirmable(): boolean {
    return this.message.type === MessageType.con
  }
}

export interface ResponderParts {
  readonly layer: MessageLayer
  readonly guard: SourceGuard
  readonly deduplication: Deduplication
  readonly limits: CoapLimits
  readonly stats: CoapStats
  readonly timers: Timers
  readonly random: () => number
}

export interface SendOptions {
  /** What became of a separate confirmable response; not called for any other. */
  readonly onSettled?: ((outcome: Outcome) => void) | undefined
  /** The program wants to know that the reply arrived: separate and confirmable, if the source is verified. */
  readonly separate?: boolean | undefined
}

export class Responder {
  readonly #parts: ResponderParts
  readonly #leisurely = new Set<Timer>()

  constructor(parts: ResponderParts) {
    this.#parts = parts
  }

  /** Tells a verified client that its request arrived and the reply will follow (RFC 7252 §5.2.2). */
  acknowledge(exchange: ServerExchange): void {
    if (exchange.acknowledged || exchange.answered || exchange.gone || !exchange.confirmable) return
    exchange.acknowledged = true
    const { layer, deduplication } = this.#parts
    const datagram = assembleEmpty(MessageType.ack, exchange.message.messageId)
    if (exchange.seen !== undefined) deduplication.answer(exchange.seen, datagram)
    layer.transmit(datagram, exchange.peer)
  }

  /** Ends an exchange without a response: an empty ACK at most (RFC 7967 §2). */
  keepSilent(exchange: ServerExchange): void {
    if (!exchange.multicast) this.acknowledge(exchange)
    exchange.answered = true
  }

  /**
   * Sends the reply: piggybacked if it can be, separate and confirmable after an empty ACK or when asked to,
   * NON for a NON. @returns false when the source may not be sent that much
   */
  send(exchange: ServerExchange, reply: EncodedReply, options: SendOptions = {}): boolean {
    if (exchange.gone || exchange.answered) return true
    const { peer, message } = exchange
    const { guard, layer, deduplication } = this.#parts
    const octets = 4 + message.tokenLength + reply.tail.length
    if (!guard.admitReply(peer, message.octets.length, octets)) return false
    if (exchange.multicast) {
      exchange.answered = true
      if (isSuccess(reply.code)) this.#sendAtLeisure(exchange, reply)
      return true
    }
    const wantsAck = options.separate === true && guard.isVerified(peer)
    if (!exchange.confirmable && !wantsAck) {
      exchange.answered = true
      layer.transmit(assemble(MessageType.non, reply.code, layer.nextMessageId(peer), message.token, reply.tail), peer)
      return true
    }
    if (!exchange.acknowledged && !wantsAck) {
      exchange.answered = true
      const datagram = assemble(MessageType.ack, reply.code, message.messageId, message.token, reply.tail)
      if (exchange.seen !== undefined) deduplication.answer(exchange.seen, datagram)
      layer.transmit(datagram, peer)
      return true
    }
    this.acknowledge(exchange)
    exchange.answered = true
    layer.confirm(peer, assemble(MessageType.con, reply.code, 0, message.token, reply.tail), {
      onSettled: (outcome) => {
        if (outcome === 'acknowledged') guard.verify(peer)
        options.onSettled?.(outcome)
      },
    })
    return true
  }

  close(): void {
    for (const timer of this.#leisurely) timer.cancel()
    this.#leisurely.clear()
  }

  // RFC 7252 §8.2: everyone in the group would answer in the same moment
  #sendAtLeisure(exchange: ServerExchange, reply: EncodedReply): void {
    const { layer, limits, stats, timers, random } = this.#parts
    const { peer, message } = exchange
    if (this.#leisurely.size >= limits.leisurelyReplies) {
      stats.dropped.multicast++
      return
    }
    const timer = timers.after(limits.leisureMs * random(), () => {
      this.#leisurely.delete(timer)
      if (exchange.gone) return
      layer.transmit(assemble(MessageType.non, reply.code, layer.nextMessageId(peer), message.token, reply.tail), peer)
    })
    this.#leisurely.add(timer)
  }
}
