/**
 * A server: one UDP socket, many associations. A hello costs nothing until its cookie came back (RFC 6347 §4.2.1);
 * a new handshake from an address that has an association replaces it only when it is complete (§4.2.8), so that a
 * rebooted device gets in and a forger puts nobody out.
 */
import { randomBytes } from 'node:crypto'
import { type AddressInfo, isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import type { UdpPeer } from '../udp/peer.ts'
import type { BoundSocket } from '../udp/socket.ts'
import { Association, type AssociationHost } from './association.ts'
import { ACCEPTED, binding, type NativeAssociation, type NativeContext, OUTGOING } from './binding.ts'
import { epochOf, helloRandom, looksLikeDtls } from './hello.ts'
import { HostTable, hostKey } from './host-table.ts'
import {
  MAX_TICKET_KEYS,
  octets,
  pskLookup,
  serverContext,
  TICKET_KEY_OCTETS,
  ticketKeyOctets,
  timingOf,
  whole,
} from './options.ts'
import { boundSocket, remoteOf } from './socket.ts'
import type { DtlsAssociation, DtlsEndpoint, DtlsStats, ListenOptions, RemoteAddress, SecureOptions } from './types.ts'

const COOKIE_LIFE_MS = 60_000
const TICKET_KEY_LIFE_MS = 12 * 3_600_000
/** At a cap, an association silent for so long makes room for a newcomer. */
const EVICT_IDLE_MS = 10_000

/**
 * Opens a DTLS server; await `listening`. `onAssociation` is told of each association whose handshake is complete,
 * before its first datagram is delivered: set `onmessage` in it.
 * @throws `dtls/bad-options`, `dtls/not-built`, `dtls/unsupported`
 */
export function listen(onAssociation: (association: DtlsAssociation) => void, options: ListenOptions): DtlsEndpoint {
  return new Endpoint(onAssociation, options)
}

class Endpoint implements DtlsEndpoint {
  readonly listening: Promise<AddressInfo>
  readonly stats: DtlsStats
  readonly #onAssociation: (association: DtlsAssociation) => void
  readonly #options: ListenOptions
  readonly #limits: { total: number; perHost: number; idleMs: number }
  /** Complete, by remote address and port. */
  readonly #open = new Map<string, Association>()
  /** Cookie checked, handshake under way. */
  readonly #shaking = new Map<string, Association>()
  readonly #hosts: HostTable
  #context: NativeContext
  #timing: ReturnType<typeof timingOf>
  #lookup: ReturnType<typeof pskLookup>
  #ticketKeys: Uint8Array
  readonly #ownTicketKeys: boolean
  #ticketsRotatedMs = performance.now()
  #cookieRotatedMs = performance.now()
  /** Answers hellos; becomes an association when a cookie is right. */
  #spare: NativeAssociation | undefined
  #socket: BoundSocket | undefined
  #address: AddressInfo | undefined
  #sweeper: NodeJS.Timeout | undefined
  #closed: Promise<void> | undefined

  constructor(onAssociation: (association: DtlsAssociation) => void, options: ListenOptions) {
    whole(options.port, 0, 'port', 0, 65_535)
    this.#onAssociation = onAssociation
    this.#options = options
    this.#limits = {
      total: whole(options.maxAssociations, 1024, 'maxAssociations', 1, 1_000_000),
      perHost: whole(options.maxAssociationsPerHost, 256, 'maxAssociationsPerHost', 1, 1_000_000),
      idleMs: whole(options.idleTimeout, 300_000, 'idleTimeout', 1, 2_147_483_647),
    }
    this.#hosts = new HostTable(this.#limits.perHost)
    this.#ownTicketKeys = options.ticketKeys === undefined
    this.#ticketKeys =
      options.ticketKeys === undefined ? randomBytes(TICKET_KEY_OCTETS) : ticketKeyOctets(options.ticketKeys)
    this.#timing = timingOf(options)
    this.#lookup = pskLookup(options.psk)
    this.#context = serverContext(options, this.#ticketKeys)
    this.stats = newStats(this.#open, this.#shaking)
    const receiveBufferSize = whole(options.receiveBufferSize, 1 << 20, 'receiveBufferSize', 4096, 1 << 30)
    this.listening = boundSocket({ port: options.port, host: options.host, receiveBufferSize }).then(async (socket) => {
      if (this.#closed !== undefined) {
        await socket.close()
        throw new IotchainError('dtls/closed', 'the DTLS server was closed before it was bound')
      }
      this.#socket = socket
      const { address, port } = socket.address
      this.#address = { address, port, family: isIPv6(address) ? 'IPv6' : 'IPv4' }
      // what cannot be sent is lost, as datagrams are
      socket.start({ onmessage: (datagram, from) => this.#receive(datagram, from), onfailure: () => undefined })
      const period = Math.max(50, Math.min(this.#limits.idleMs / 4, 15_000))
      this.#sweeper = setInterval(() => this.#sweep(), period).unref()
      return this.#address
    })
    this.listening.catch(() => undefined)
  }

  get address(): AddressInfo {
    if (this.#address === undefined) throw new IotchainError('dtls/closed', 'the DTLS server is not bound yet')
    return this.#address
  }

  associations(): Iterable<DtlsAssociation> {
    return [...this.#open.values()]
  }

  setSecureContext(options: SecureOptions): void {
    const context = serverContext({ clientAuth: this.#options.clientAuth, ...options }, this.#ticketKeys)
    this.#timing = timingOf(options)
    this.#lookup = pskLookup(options.psk)
    this.#context = context
    this.#dropSpare()
    for (const association of [...this.#open.values()]) {
      if (association.stillStands()) continue
      association.closeFor(new IotchainError('dtls/revoked', 'the certificate of this association no longer counts'))
    }
  }

  setTicketKeys(keys: Uint8Array | readonly Uint8Array[]): void {
    this.#ticketKeys = ticketKeyOctets(keys)
    this.#ticketsRotatedMs = performance.now()
    binding().setTicketKeys(this.#context, this.#ticketKeys)
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      await this.listening.catch(() => undefined)
      clearInterval(this.#sweeper)
      for (const association of [...this.#shaking.values(), ...this.#open.values()]) association.close()
      this.#dropSpare()
      const socket = this.#socket
      this.#socket = undefined
      await socket?.close()
    })()
    return this.#closed
  }

  #receive(datagram: Buffer, from: UdpPeer): void {
    // Nobody can be answered at port 0.
    if (from.port === 0 || !looksLikeDtls(datagram)) {
      this.stats.ignored++
      return
    }
    const { key } = from
    const shaking = this.#shaking.get(key)
    const open = this.#open.get(key)
    const random = helloRandom(datagram)
    if (random !== undefined) {
      if (shaking?.helloRandom?.equals(random)) shaking.feed(datagram)
      else if (!open?.helloRandom?.equals(random)) this.#hello(datagram, Buffer.from(random), key, from)
      return
    }
    if (shaking === undefined && open === undefined) {
      this.stats.ignored++
      return
    }
    // While a newcomer shakes hands, protected records may be of either; OpenSSL drops those of the other.
    if (open !== undefined && (shaking === undefined || epochOf(datagram) > 0)) open.feed(datagram)
    shaking?.feed(datagram)
  }

  #hello(datagram: Buffer, random: Buffer, key: string, from: UdpPeer): void {
    this.#rotate()
    const { createAssociation, accept, takeOutgoing } = binding()
    const timing = this.#timing
    try {
      this.#spare ??= createAssociation(this.#context, timing)
    } catch {
      this.stats.rejected++ // no memory
      return
    }
    const native = this.#spare
    const remote = remoteOf(from)
    const now = performance.now()
    const full = this.#open.size + this.#shaking.size >= this.#limits.total || !this.#hosts.admits(remote, now)
    const happened = accept(native, datagram, this.#lookup, octets(key), full)
    if ((happened & ACCEPTED) === 0) {
      if (happened & OUTGOING) this.stats.helloVerifySent++
      for (let out = takeOutgoing(native); out !== undefined; out = takeOutgoing(native)) this.#transmit(out, from)
      return
    }
    if (full) {
      this.#dropSpare()
      this.stats.rejected++
      this.#makeRoom(remote)
      return
    }
    this.#spare = undefined
    this.#shaking
      .get(key)
      ?.destroy(new IotchainError('dtls/replaced', 'the peer began another handshake before this one was complete'))
    const association = new Association(native, remote, this.#hostOf(key, from, timing))
    association.helloRandom = random
    this.#shaking.set(key, association)
    this.#hosts.add(remote, now)
    association.step(happened)
  }

  #hostOf(key: string, from: UdpPeer, timing: AssociationHost['timing']): AssociationHost {
    return {
      side: 'server',
      timing,
      lookup: this.#lookup,
      local: () => this.#address,
      transmit: (datagram) => this.#transmit(datagram, from),
      context: () => this.#context,
      accept: (association, facts) => {
        this.#shaking.delete(key)
        const before = this.#open.get(key)
        this.#open.set(key, association)
        before?.destroy(new IotchainError('dtls/replaced', 'the peer came back with a new handshake'))
        this.stats.accepted++
        if (facts.reused) this.stats.resumed++
        this.#onAssociation(association)
        return undefined
      },
      gone: (association, error) => {
        this.#hosts.remove(association.remoteAddress)
        if (this.#open.get(key) === association) this.#open.delete(key)
        if (this.#shaking.get(key) !== association) return
        this.#shaking.delete(key)
        if (this.#closed !== undefined) return
        this.stats.refused++
        if (error !== undefined) this.#options.onRefused?.(error, association.remoteAddress)
      },
    }
  }

  #transmit(datagram: Buffer, to: UdpPeer): void {
    try {
      this.#socket?.send(datagram, to)
    } catch {
      // lost, as datagrams are
    }
  }

  /** Closes the longest silent association of the host at its cap, or of all, if it was silent for long. */
  #makeRoom(newcomer: RemoteAddress): void {
    const host = this.#hosts.count(newcomer) >= this.#limits.perHost ? hostKey(newcomer) : undefined
    let oldest: Association | undefined
    for (const association of [...this.#shaking.values(), ...this.#open.values()]) {
      if (host !== undefined && hostKey(association.remoteAddress) !== host) continue
      if (oldest === undefined || association.lastHeardMs < oldest.lastHeardMs) oldest = association
    }
    if (oldest !== undefined && performance.now() - oldest.lastHeardMs >= EVICT_IDLE_MS) {
      oldest.closeFor(new IotchainError('dtls/idle', 'the association was silent and another peer needed its place'))
    }
  }

  #sweep(): void {
    const now = performance.now()
    this.#hosts.sweep(now)
    const limit = now - this.#limits.idleMs
    for (const association of [...this.#open.values()]) {
      if (association.lastHeardMs > limit) continue
      association.closeFor(new IotchainError('dtls/idle', 'the association was silent for too long'))
    }
  }

  /** Cookies live for one to two minutes, ticket keys (where they are ours to choose) for 12 to 24 hours. */
  #rotate(): void {
    const now = performance.now()
    const cookieAge = now - this.#cookieRotatedMs
    if (cookieAge >= COOKIE_LIFE_MS) {
      binding().rotateCookieSecret(this.#context)
      if (cookieAge >= 2 * COOKIE_LIFE_MS) binding().rotateCookieSecret(this.#context)
      this.#cookieRotatedMs = now
    }
    const ticketAge = now - this.#ticketsRotatedMs
    if (this.#ownTicketKeys && ticketAge >= TICKET_KEY_LIFE_MS) {
      const before = ticketAge >= 2 * TICKET_KEY_LIFE_MS ? [] : [this.#ticketKeys.subarray(0, TICKET_KEY_OCTETS)]
      this.setTicketKeys([randomBytes(TICKET_KEY_OCTETS), ...before].slice(0, MAX_TICKET_KEYS))
    }
  }

  #dropSpare(): void {
    if (this.#spare !== undefined) binding().dispose(this.#spare)
    this.#spare = undefined
  }
}

function newStats(open: Map<string, unknown>, shaking: Map<string, unknown>): DtlsStats {
  return {
    helloVerifySent: 0,
    accepted: 0,
    refused: 0,
    rejected: 0,
    resumed: 0,
    ignored: 0,
    get associations() {
      return open.size + shaking.size
    },
  }
}
