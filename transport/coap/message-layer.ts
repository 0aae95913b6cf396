/**
 * The message layer (RFC 7252 §4): message IDs, retransmission of CON with exponential back-off, ACK and RST.
 * What a request means is none of its business.
 */
import type { CoapLimits } from './limits.ts'
import { assembleEmpty, type Message, MessageType, patchMessageId } from './message.ts'
import { SendQueue, type Slot } from './send-queue.ts'
import type { CoapStats } from './stats.ts'
import type { Timer, Timers } from './timers.ts'
import type { DatagramTransport, Peer } from './transport.ts'

export type Outcome = 'acknowledged' | 'reset' | 'timeout' | 'unreachable' | 'queue-full' | 'closed'

export interface ConfirmableOptions {
  /** Called once. `reply` is the ACK when it carries a response. */
  readonly onSettled: (outcome: Outcome, reply: Message | undefined, elapsedMs: number, transmissions: number) => void
  /** Whether an ACK that carries a response is ours (its token fits); otherwise it is ignored. */
  readonly accepts?: ((reply: Message) => boolean) | undefined
  /** Before a retransmission: other octets to send instead, under a new message ID (RFC 7641 §4.5.2). */
  readonly refresh?: (() => Uint8Array | undefined) | undefined
  /** Default `limits.maxRetransmit`. */
  readonly maxRetransmit?: number | undefined
  /** Default ACK_TIMEOUT with its random factor. */
  readonly firstTimeoutMs?: number | undefined
  /** The peer's address is not verified: a few stray ACKs are taken for guesses and end the exchange. */
  readonly suspicious?: boolean | undefined
}

const MESSAGE_ID_SERIES = 1024
const GUESSES = 4
/** Refusals of the network (ICMP) until a message is given up: one may be the restart of the peer. */
const REFUSALS = 2

export class Confirmable {
  readonly peer: Peer
  readonly options: ConfirmableOptions
  datagram: Uint8Array
  messageId = 0
  transmissions = 0
  timeoutMs = 0
  firstSentMs = 0
  refusals = 0
  guesses = 0
  timer: Timer | undefined
  slot: Slot | undefined
  done = false

  constructor(peer: Peer, datagram: Uint8Array, options: ConfirmableOptions) {
    this.peer = peer
    this.datagram = datagram
    this.options = options
  }
}

export interface MessageLayerParts {
  readonly transport: DatagramTransport
  readonly timers: Timers
  readonly limits: CoapLimits
  readonly stats: CoapStats
  readonly random: () => number
  readonly randomBytes: (length: number) => Uint8Array
}

export class MessageLayer {
  readonly queue: SendQueue
  readonly #parts: MessageLayerParts
  readonly #outstanding = new Map<string, Confirmable>()
  /** By peer: to find what to end when the network or the association says so. */
  readonly #byPeer = new Map<string, Set<Confirmable>>()
  readonly #messageIds = new Uint16Array(MESSAGE_ID_SERIES)
  readonly #hashSeed: number

  constructor(parts: MessageLayerParts) {
    this.#parts = parts
    this.queue = new SendQueue(parts.limits)
    const start = parts.randomBytes(MESSAGE_ID_SERIES * 2 + 4)
    for (let i = 0; i < MESSAGE_ID_SERIES; i++) {
      this.#messageIds[i] = ((start[2 * i] as number) << 8) | (start[2 * i + 1] as number)
    }
    this.#hashSeed = new DataView(start.buffer, start.byteOffset).getUint32(MESSAGE_ID_SERIES * 2)
  }

  /**
   * A message ID for a peer. IDs count up in one of 1024 series that a secret hash of the peer chooses: none is used
   * twice with one peer within 65 536 messages, and nothing is kept per peer.
   */
  nextMessageId(peer: Peer): number {
    const { key } = peer
    let hash = this.#hashSeed
    for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
    const series = (hash >>> 8) % MESSAGE_ID_SERIES
    const id = ((this.#messageIds[series] as number) + 1) & 0xffff
    this.#messageIds[series] = id
    return id
  }

  /** Sends octets once. */
  transmit(datagram: Uint8Array, peer: Peer): void {
    const { stats, transport } = this.#parts
    stats.datagramsSent++
    stats.octetsSent += datagram.length
    transport.send(datagram, peer)
  }

  acknowledge(messageId: number, peer: Peer): void {
    this.transmit(assembleEmpty(MessageType.ack, messageId), peer)
  }

  reset(messageId: number, peer: Peer): void {
    this.#parts.stats.resetsSent++
    this.transmit(assembleEmpty(MessageType.reset, messageId), peer)
  }

  /** Sends a CON (its message ID is filled in) when the peer's queue allows, and again until it is acknowledged. */
  confirm(peer: Peer, datagram: Uint8Array, options: ConfirmableOptions): Confirmable {
    const message = new Confirmable(peer, datagram, options)
    const slot = this.queue.take(peer, () => this.#start(message))
    if (slot === undefined) {
      message.done = true
      this.#parts.stats.dropped['queue-full']++
      queueMicrotask(() => options.onSettled('queue-full', undefined, 0, 0))
      return message
    }
    message.slot = slot
    if (message.done) this.queue.free(slot)
    return message
  }

  /** Stops sending without any outcome: the response came by another way, or nobody wants it any more. */
  cancel(message: Confirmable): void {
    if (message.done) return
    this.#finish(message)
    if (message.slot !== undefined) this.queue.free(message.slot)
  }

  /** An ACK or RST arrived. @returns false when nothing here waits for it */
  settle(received: Message, peer: Peer): boolean {
    const message = this.#outstanding.get(`${peer.key}|${received.messageId}`)
    if (message === undefined) {
      this.#countGuess(peer)
      return false
    }
    const carriesResponse = received.code !== 0
    if (carriesResponse && message.options.accepts?.(received) === false) return false
    const outcome = received.type === MessageType.reset ? 'reset' : 'acknowledged'
    this.#settle(message, outcome, carriesResponse ? received : undefined)
    return true
  }

  /** The network says that a peer cannot be reached; without a peer it may be any of them, and nothing is done. */
  unreachable(peer: Peer): void {
    for (const message of this.#byPeer.get(peer.key) ?? []) {
      message.refusals++
      if (message.refusals >= REFUSALS) this.#settle(message, 'unreachable', undefined)
    }
  }

  /** Ends all that is outstanding with one peer, or with all. */
  drop(peer?: Peer): void {
    for (const message of [...this.#outstanding.values()]) {
      if (peer === undefined || message.peer.key === peer.key) this.#settle(message, 'closed', undefined)
    }
  }

  #start(message: Confirmable): void {
    if (message.done) return
    const { limits, random, timers } = this.#parts
    const spread = limits.ackTimeoutMs * (limits.ackRandomFactor - 1)
    message.timeoutMs = message.options.firstTimeoutMs ?? limits.ackTimeoutMs + spread * random()
    message.firstSentMs = timers.monotonicMs()
    let peers = this.#byPeer.get(message.peer.key)
    if (peers === undefined) {
      peers = new Set()
      this.#byPeer.set(message.peer.key, peers)
    }
    peers.add(message)
    this.#number(message)
    this.#send(message)
  }

  /** Gives the message an ID that no other outstanding message to this peer has. */
  #number(message: Confirmable): void {
    const { key } = message.peer
    do {
      message.messageId = message.options.suspicious
        ? readUint16(this.#parts.randomBytes(2))
        : this.nextMessageId(message.peer)
    } while (this.#outstanding.has(`${key}|${message.messageId}`))
    patchMessageId(message.datagram, message.messageId)
    this.#outstanding.set(`${key}|${message.messageId}`, message)
    this.#parts.stats.outstanding = this.#outstanding.size
  }

  #send(message: Confirmable): void {
    message.transmissions++
    message.timer = this.#parts.timers.after(message.timeoutMs, () => this.#onTimer(message))
    this.transmit(message.datagram, message.peer)
  }

  #onTimer(message: Confirmable): void {
    const { limits, stats } = this.#parts
    if (message.transmissions > (message.options.maxRetransmit ?? limits.maxRetransmit)) {
      stats.timeouts++
      this.#settle(message, 'timeout', undefined)
      return
    }
    const other = message.options.refresh?.()
    if (other !== undefined) {
      this.#outstanding.delete(`${message.peer.key}|${message.messageId}`)
      message.datagram = other
      this.#number(message)
    }
    message.timeoutMs *= 2
    stats.retransmissions++
    this.#send(message)
  }

  #settle(message: Confirmable, outcome: Outcome, reply: Message | undefined): void {
    if (message.done) return
    const elapsedMs = this.#parts.timers.monotonicMs() - message.firstSentMs
    const { transmissions } = message
    this.#finish(message)
    message.options.onSettled(outcome, reply, elapsedMs, transmissions)
    // only now: what waits for the same peer may have been called off
    if (message.slot !== undefined) this.queue.free(message.slot)
  }

  #finish(message: Confirmable): void {
    message.done = true
    message.timer?.cancel()
    const { key } = message.peer
    if (this.#outstanding.get(`${key}|${message.messageId}`) === message) {
      this.#outstanding.delete(`${key}|${message.messageId}`)
      this.#parts.stats.outstanding = this.#outstanding.size
    }
    const peers = this.#byPeer.get(key)
    if (peers?.delete(message) && peers.size === 0) this.#byPeer.delete(key)
  }

  // someone off the path who spoofs a victim's address would have to guess the message ID to acknowledge for it
  #countGuess(peer: Peer): void {
    for (const message of this.#byPeer.get(peer.key) ?? []) {
      if (message.options.suspicious !== true) continue
      message.guesses++
      if (message.guesses >= GUESSES) this.#settle(message, 'timeout', undefined)
    }
  }
}

function readUint16(octets: Uint8Array): number {
  return ((octets[0] as number) << 8) | (octets[1] as number)
}
