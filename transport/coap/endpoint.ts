/**
 * One CoAP endpoint: server and client at once over one datagram transport. This file only sorts what arrives and
 * wires the parts; the mechanisms are in the files beside it.
 *
 * @example
 * const router = new Router().add({ pattern: '/hello', get: () => ({ code: Code.content, payload: utf8('hi') }) })
 * const endpoint = new CoapEndpoint(await bindUdp({ port: 5683 }), { router })
 */
import { IotchainError } from '../../protocol/errors.ts'
import { BlockTransfer, badCriticalOption } from './block-transfer.ts'
import { ClientExchanges, failure } from './client-exchanges.ts'
import { Code, isRequest, isResponse } from './codes.ts'
import { Deadline } from './deadline.ts'
import { Deduplication } from './deduplication.ts'
import { EchoIssuer } from './echo.ts'
import { IdleSweep } from './idle-sweep.ts'
import { type CoapLimits, defaultLimits } from './limits.ts'
import { asBuffer, assembleEmpty, decodeMessage, isMalformed, type Message, MessageType } from './message.ts'
import { MessageLayer } from './message-layer.ts'
import type { CoapResponse, Observation, ObserveCallbacks, ObserveInit, RequestInit } from './messages.ts'
import { type MulticastInit, multicastRequest, tell } from './multicast.ts'
import { ClientObservation } from './observe-client.ts'
import { pooledRandomBytes } from './random.ts'
import { RequestServer } from './request-server.ts'
import type { Router } from './router.ts'
import { SourceGuard } from './source-guard.ts'
import { type CoapEvent, type CoapStats, type DropReason, newStats } from './stats.ts'
import { systemTimers, type Timers } from './timers.ts'
import type { DatagramTransport, Peer } from './transport.ts'
import { formatPath, parsePath } from './uri.ts'

export type { MulticastInit } from './multicast.ts'

export interface EndpointOptions {
  /** Serves requests; without one the endpoint is a client and rejects them. */
  readonly router?: Router | undefined
  readonly limits?: Partial<CoapLimits> | undefined
  readonly timers?: Timers | undefined
  /** Jitter, [0, 1); default Math.random. */
  readonly random?: (() => number) | undefined
  /** Tokens, message IDs and the Echo key; default the system's generator. */
  readonly randomBytes?: ((length: number) => Uint8Array) | undefined
  /** Sources such as `192.168.0.0/16` whose addresses cannot be spoofed: no limit of amplification or rate. */
  readonly trustedPrefixes?: readonly string[] | undefined
  /** Loopback counts as verified (default true); tests of the limits switch it off. */
  readonly trustLoopback?: boolean | undefined
  readonly onEvent?: ((event: CoapEvent) => void) | undefined
}

export class CoapEndpoint {
  readonly stats: CoapStats = newStats()
  readonly timers: Timers
  readonly limits: CoapLimits
  readonly #transport: DatagramTransport
  readonly #onEvent: ((event: CoapEvent) => void) | undefined
  readonly #guard: SourceGuard
  readonly #layer: MessageLayer
  readonly #deduplication: Deduplication
  /** An endpoint that hears nothing any more forgets all the same. */
  readonly #sweep: IdleSweep
  readonly #exchanges: ClientExchanges
  readonly #server: RequestServer | undefined
  readonly #random: () => number
  readonly #randomBytes: (length: number) => Uint8Array
  #closed = false

  /** @throws `coap/bad-prefix` */
  constructor(transport: DatagramTransport, options: EndpointOptions = {}) {
    const { router } = options
    const onEvent = guarded(options.onEvent)
    const timers = options.timers ?? systemTimers
    const limits = { ...defaultLimits, ...options.limits }
    const random = options.random ?? Math.random
    const randomBytes = options.randomBytes ?? pooledRandomBytes
    const { stats } = this
    this.timers = timers
    this.limits = limits
    this.#transport = transport
    this.#onEvent = onEvent
    this.#random = random
    this.#randomBytes = randomBytes
    const guard = new SourceGuard({
      limits,
      timers,
      trustedPrefixes: options.trustedPrefixes ?? [],
      trustLoopback: options.trustLoopback ?? true,
    })
    const layer = new MessageLayer({ transport, timers, limits, stats, random, randomBytes })
    const deduplication = new Deduplication(limits, stats, () => this.#sweep.wake())
    this.#sweep = new IdleSweep(timers, (nowMs) => {
      deduplication.expire(nowMs)
      return deduplication.size > 0
    })
    this.#guard = guard
    this.#layer = layer
    this.#deduplication = deduplication
    this.#exchanges = new ClientExchanges({ layer, limits, timers, randomBytes })
    if (router !== undefined) {
      const echo = new EchoIssuer(timers, randomBytes)
      const parts = { layer, guard, deduplication, limits, stats, timers, random, router, echo, onEvent }
      this.#server = new RequestServer(parts, (path) => this.notify(path))
    }
    transport.onmessage = (datagram, peer, multicast = false) => {
      try {
        this.#receive(asBuffer(datagram), peer, multicast)
      } catch (error) {
        // a fault of this engine or of a callback: no datagram may end a daemon
        stats.faults++
        onEvent?.({ kind: 'fault', reason: 'receive', peer: `${peer.address}:${peer.port}`, error })
      }
    }
    transport.onpeergone = (peer) => this.#onPeerGone(peer)
    transport.onunreachable = (peer) => {
      if (peer !== undefined) layer.unreachable(peer)
    }
  }

  get address(): { readonly address: string; readonly port: number } {
    return this.#transport.address
  }

  /** The state of the resource at `path` (`/s/temp`) changed: GET runs again for its observers. */
  notify(path: string): void {
    this.#server?.notify(formatPath(parsePath(path).path))
  }

  /** Makes one request, in as many messages as it takes. See `CoapClient` for what it throws. */
  async request(peer: Peer, init: RequestInit): Promise<CoapResponse> {
    this.#assertOpen()
    const deadline = new Deadline(this.timers, init.timeoutMs, init.signal, () => failure('timeout', peer))
    const handle = this.#exchanges.open(peer)
    try {
      return await new BlockTransfer(this.#clientParts(), handle, peer, init, deadline.signal).run()
    } finally {
      deadline.end()
      this.#exchanges.close(handle)
    }
  }

  observe(peer: Peer, init: ObserveInit, callbacks: ObserveCallbacks): Observation {
    this.#assertOpen()
    return new ClientObservation(this.#clientParts(), peer, init, callbacks)
  }

  /** Sends one NON request to a group and collects the responses (RFC 7252 §8). Resolves with all of them. */
  multicast(group: Peer, init: MulticastInit): Promise<CoapResponse[]> {
    this.#assertOpen()
    return multicastRequest({ ...this.#clientParts(), layer: this.#layer }, group, init)
  }

  /** Sends one NON request (default POST) that wants no response and may be lost. @throws `coap/bad-uri` */
  tell(peer: Peer, init: RequestInit): void {
    this.#assertOpen()
    tell({ layer: this.#layer, randomBytes: this.#randomBytes }, peer, init)
  }

  /** CoAP ping. @returns round-trip time in milliseconds @throws `coap/timeout`, `coap/unreachable` */
  ping(peer: Peer): Promise<number> {
    this.#assertOpen()
    return this.#exchanges.ping(peer)
  }

  /** Ends observations and requests, forgets all state, closes the transport. No timer of it runs afterwards. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#exchanges.drop(new IotchainError('coap/closed', 'the endpoint was closed'))
    this.#server?.close()
    this.#layer.drop()
    this.#sweep.close()
    this.#deduplication.clear()
    this.#transport.onmessage = undefined
    this.#transport.onpeergone = undefined
    this.#transport.onunreachable = undefined
    await this.#transport.close()
  }

  #clientParts() {
    return {
      exchanges: this.#exchanges,
      limits: this.limits,
      timers: this.timers,
      random: this.#random,
      randomBytes: this.#randomBytes,
    }
  }

  #assertOpen(): void {
    if (this.#closed) throw new IotchainError('coap/closed', 'the endpoint was closed')
  }

  #receive(octets: Buffer, peer: Peer, multicast: boolean): void {
    this.stats.datagramsReceived++
    this.stats.octetsReceived += octets.length
    if (octets.length >= 4 && !multicast && this.#server?.answerReady(octets, peer) === true) return
    const message = decodeMessage(this.#transport.gives === true ? octets : copyOf(octets))
    if (isMalformed(message)) {
      this.#drop(message.malformed, peer)
      if (message.reject !== undefined && !multicast) this.#reject(message.reject, peer)
    } else if (multicast && (message.type !== MessageType.non || !isRequest(message.code))) {
      // RFC 7252 §8.1: what is sent to a group is a request, and not confirmable
      this.#drop('multicast', peer)
    } else if (message.type === MessageType.ack || message.type === MessageType.reset) {
      this.#receiveAnswer(message, peer)
    } else if (message.code === Code.empty) {
      if (message.type === MessageType.con) this.#layer.reset(message.messageId, peer)
      else this.#drop('empty-message', peer)
    } else if (!this.#repeat(message, peer)) {
      if (isRequest(message.code)) this.#receiveRequest(message, peer, multicast)
      else this.#receiveResponse(message, peer)
    }
  }

  #receiveAnswer(message: Message, peer: Peer): void {
    const isAck = message.type === MessageType.ack
    const legal = message.code === Code.empty || (isAck && isResponse(message.code))
    if (legal && this.#layer.settle(message, peer)) {
      if (isAck) this.#guard.verify(peer)
      else this.stats.resetsReceived++
      return
    }
    if (legal && !isAck && this.#server?.observers.onReset(message.messageId, peer) === true) {
      this.stats.resetsReceived++
      return
    }
    this.#drop(isAck ? 'stray-ack' : 'stray-reset', peer)
  }

  /** A message that was seen before draws the answer that it had then, or none yet. */
  #repeat(message: Message, peer: Peer): boolean {
    const seen = this.#deduplication.find(message, peer, this.timers.monotonicMs())
    if (seen === undefined) return false
    this.#drop('duplicate', peer)
    const { answer } = seen
    if (answer !== undefined && message.type === MessageType.con) {
      if (this.#guard.admitReply(peer, message.octets.length, answer.length)) this.#layer.transmit(answer, peer)
    }
    return true
  }

  #receiveRequest(message: Message, peer: Peer, multicast: boolean): void {
    const server = this.#server
    if (server === undefined) {
      this.#drop('no-server', peer)
      if (message.type === MessageType.con) this.#reject(message.messageId, peer)
      return
    }
    server.receive(message, peer, multicast)
  }

  #reject(messageId: number, peer: Peer): void {
    if (this.#guard.admitReset()) this.#layer.reset(messageId, peer)
  }

  #receiveResponse(message: Message, peer: Peer): void {
    const handle = this.#exchanges.find(message, peer)
    const bad = handle !== undefined && badCriticalOption(message.options()) !== undefined
    if (handle === undefined || bad) {
      this.#drop(bad ? 'bad-option' : 'stray-response', peer)
      // also to a NON: this is how a server learns that nobody observes any more (RFC 7641 §3.6)
      this.#reject(message.messageId, peer)
      return
    }
    if (message.type === MessageType.con) {
      const seen = this.#deduplication.remember(message, peer, this.timers.monotonicMs())
      const ack = assembleEmpty(MessageType.ack, message.messageId)
      this.#deduplication.answer(seen, ack)
      this.#layer.transmit(ack, peer)
    }
    handle.onResponse?.(message, peer)
  }

  #onPeerGone(peer: Peer): void {
    this.#exchanges.drop(new IotchainError('coap/peer-gone', 'the secure association with the peer ended'), peer)
    this.#server?.dropPeer(peer)
    this.#layer.drop(peer)
    this.#deduplication.dropPeer(peer.key)
    this.#guard.forget(peer)
    this.#onEvent?.({ kind: 'peer-gone', reason: 'association', peer: `${peer.address}:${peer.port}` })
  }

  #drop(reason: DropReason, peer: Peer): void {
    this.stats.dropped[reason]++
    if (this.#onEvent !== undefined) this.#onEvent({ kind: 'dropped', reason, peer: `${peer.address}:${peer.port}` })
  }
}

/** With memory of its own: a view of what is kept would keep all that it was allocated with. */
function copyOf(octets: Uint8Array): Buffer {
  return asBuffer(Uint8Array.prototype.slice.call(octets))
}

/** What listens to events is not allowed to break what it listens to. */
function guarded(onEvent: EndpointOptions['onEvent']): EndpointOptions['onEvent'] {
  return (
    onEvent &&
    ((event) => {
      try {
        onEvent(event)
      } catch {
        // nobody is left to tell
      }
    })
  )
}
