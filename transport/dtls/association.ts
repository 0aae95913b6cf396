/** One association, at either end: steps the binding, keeps its timer, delivers what arrives, frees everything. */
import { X509Certificate } from 'node:crypto'
import { IotchainError } from '../../protocol/errors.ts'
import {
  binding,
  CLOSED,
  FAILED,
  INCOMING,
  type NativeAssociation,
  type NativeContext,
  type NativeFacts,
  OPENED,
  OUTGOING,
} from './binding.ts'
import { octets, type Timing } from './options.ts'
import { refused } from './refusals.ts'
import type { DtlsAssociation, RemoteAddress } from './types.ts'

/** What the owner of the socket does for an association. */
export interface AssociationHost {
  readonly side: 'client' | 'server'
  readonly timing: Timing
  readonly lookup: ((identity: string) => Uint8Array | undefined) | undefined
  /** The socket's own address; undefined before it is bound or after its end. */
  local(): { address: string; port: number } | undefined
  /** Hands one datagram to the socket. Never throws. */
  transmit(datagram: Buffer): void
  /** The context whose revocation lists count now. */
  context(): NativeContext
  /** The handshake is complete; an error here refuses it. */
  accept(association: Association, facts: NativeFacts): IotchainError | undefined
  /** Before anything else is told that it is gone. */
  gone(association: Association, error: Error | undefined): void
}

const MAX_DATAGRAM = 16_384
/** Datagrams kept for a listener that is not there yet. */
const MAX_BACKLOG = 16

export class Association implements DtlsAssociation {
  readonly opened: Promise<void>
  readonly closed: Promise<void>
  onclose: ((error?: Error) => void) | undefined
  error: Error | undefined
  /** Monotonic ms of the last datagram that was the peer's beyond doubt. */
  lastHeardMs: number
  /** ClientHello.random of the handshake: tells a repeated hello from a new one. Server side only. */
  helloRandom: Buffer | undefined

  #native: NativeAssociation | undefined
  readonly #host: AssociationHost
  #remote: RemoteAddress
  #facts: NativeFacts | undefined
  #certificate: X509Certificate | undefined
  #timer: NodeJS.Timeout | undefined
  readonly #deadlineMs: number
  #onmessage: ((datagram: Buffer) => void) | undefined
  #backlog: Buffer[] = []
  #resolveOpened!: () => void
  #rejectOpened!: (error: Error) => void
  #resolveClosed!: () => void

  constructor(native: NativeAssociation, remote: RemoteAddress, host: AssociationHost) {
    this.#native = native
    this.#remote = remote
    this.#host = host
    this.lastHeardMs = performance.now()
    this.#deadlineMs = this.lastHeardMs + host.timing.handshakeTimeout
    this.opened = new Promise((resolve, reject) => {
      this.#resolveOpened = resolve
      this.#rejectOpened = reject
    })
    this.opened.catch(() => undefined) // nobody need look: `closed` and `onclose` tell the same
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve
    })
  }

  get remoteAddress(): RemoteAddress {
    return this.#remote
  }
  set remoteAddress(remote: RemoteAddress) {
    this.#remote = remote
  }
  get localAddress(): { address: string; port: number } {
    const local = this.#host.local()
    return { address: local?.address ?? '', port: local?.port ?? 0 }
  }
  get isOpen(): boolean {
    return this.#native !== undefined && this.#facts !== undefined
  }
  get isGone(): boolean {
    return this.#native === undefined
  }
  get protocol(): string | undefined {
    return this.#facts?.protocol
  }
  get cipher(): string | undefined {
    return this.#facts?.cipher
  }
  get reused(): boolean {
    return this.#facts?.reused ?? false
  }
  get pskIdentity(): string | undefined {
    return this.#host.side === 'server' ? this.#facts?.pskIdentity : undefined
  }
  get peerX509Certificate(): X509Certificate | undefined {
    if (this.#certificate === undefined && this.#facts?.certificate !== undefined) {
      this.#certificate = new X509Certificate(this.#facts.certificate)
    }
    return this.#certificate
  }
  get authorized(): boolean {
    if (this.#native === undefined || this.#facts?.certificate === undefined) return false
    return binding().standing(this.#native, this.#host.context()) === 0
  }
  get session(): Buffer | undefined {
    if (this.#host.side === 'server' || this.#native === undefined || this.#facts === undefined) return undefined
    return binding().session(this.#native)
  }

  get onmessage(): ((datagram: Buffer) => void) | undefined {
    return this.#onmessage
  }
  set onmessage(listener: ((datagram: Buffer) => void) | undefined) {
    this.#onmessage = listener
    if (listener === undefined || this.#backlog.length === 0) return
    const waiting = this.#backlog
    this.#backlog = []
    for (const datagram of waiting) listener(datagram)
  }

  /** A client's first flight. */
  start(): void {
    if (this.#native !== undefined) this.step(binding().receive(this.#native))
  }

  /** A datagram that came from the peer's address. */
  feed(datagram: Uint8Array): void {
    if (this.#native !== undefined) this.step(binding().receive(this.#native, datagram, this.#host.lookup))
  }

  /** Acts on what a call of the binding brought about. */
  step(happened: number): void {
    if (happened & OUTGOING) this.#flush()
    if (happened & OPENED && !this.#open()) return
    if (happened & (INCOMING | OPENED)) this.lastHeardMs = performance.now()
    if (happened & INCOMING) this.#deliver()
    if (this.#native === undefined) return
    if (happened & FAILED) this.#end(this.#failed(binding().failure(this.#native)))
    else if (happened & CLOSED) this.#end(this.#facts === undefined ? this.#failed('the peer closed it') : undefined)
    else if (this.#facts === undefined || this.#timer !== undefined || happened & OPENED) this.#schedule()
  }

  send(datagram: Uint8Array): void {
    if (this.#native === undefined || this.#facts === undefined) {
      const when = this.#native === undefined ? 'is closed' : 'is not open yet'
      throw new IotchainError('dtls/closed', `the DTLS association ${when}`, { cause: this.error })
    }
    if (datagram.length === 0 || datagram.length > MAX_DATAGRAM) {
      throw new IotchainError('dtls/too-large', `a datagram has 1 to ${MAX_DATAGRAM} octets, not ${datagram.length}`)
    }
    this.step(binding().send(this.#native, datagram))
  }

  close(): void {
    if (this.#native === undefined) return
    if (this.#facts === undefined) {
      this.#end(new IotchainError('dtls/closed', 'the association was closed before its handshake was complete'))
      return
    }
    if (binding().shut(this.#native) & OUTGOING) this.#flush()
    this.#end(undefined)
  }

  /** Sends close_notify all the same, and gives the reason to this side. */
  closeFor(error: Error): void {
    if (this.#native !== undefined && this.#facts !== undefined && binding().shut(this.#native) & OUTGOING)
      this.#flush()
    this.#end(error)
  }

  destroy(error?: Error): void {
    this.#end(
      error ??
        (this.#facts === undefined
          ? new IotchainError('dtls/closed', 'the association was closed before its handshake was complete')
          : undefined),
    )
  }

  exportKeyingMaterial(length: number, label: string, context?: Uint8Array): Buffer {
    if (this.#native === undefined || this.#facts === undefined) {
      throw new IotchainError('dtls/closed', 'keying material exists only while the association is open')
    }
    if (!this.#facts.extendedMasterSecret) {
      throw new IotchainError(
        'dtls/no-extended-master-secret',
        'the peer lacks the extended master secret (RFC 7627), so nothing can be bound to this association',
        { hint: 'use a peer whose DTLS library has it: OpenSSL, GnuTLS, Mbed TLS, pion' },
      )
    }
    return binding().exportKey(this.#native, length, octets(label), context)
  }

  channelBinding(): Buffer {
    return this.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding')
  }

  /** Whether the certificate would still count under the host's present context. */
  stillStands(): boolean {
    return this.#facts?.certificate === undefined || this.authorized
  }

  #open(): boolean {
    const native = this.#native as NativeAssociation
    const facts = binding().facts(native)
    const standing = facts.certificate === undefined ? 0 : binding().standing(native, this.#host.context())
    this.#facts = facts
    clearTimeout(this.#timer)
    this.#timer = undefined
    const error =
      standing === 0
        ? this.#host.accept(this, facts)
        : this.#failed('the certificate of the resumed session expired or is revoked')
    if (error !== undefined) {
      this.#facts = undefined
      if (binding().shut(native) & OUTGOING) this.#flush()
      this.#end(error)
      return false
    }
    this.#resolveOpened()
    return this.#native !== undefined
  }

  #flush(): void {
    const native = this.#native
    if (native === undefined) return
    const { takeOutgoing } = binding()
    for (let datagram = takeOutgoing(native); datagram !== undefined; datagram = takeOutgoing(native)) {
      this.#host.transmit(datagram)
    }
  }

  #deliver(): void {
    while (this.#native !== undefined) {
      const datagram = binding().takeIncoming(this.#native)
      if (datagram === undefined) return
      if (this.#onmessage !== undefined) this.#onmessage(datagram)
      else if (this.#backlog.length < MAX_BACKLOG) this.#backlog.push(datagram)
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#native === undefined) return
    const left = binding().timeLeft(this.#native)
    if (this.#facts !== undefined && left < 0) return
    const toDeadline = this.#facts === undefined ? this.#deadlineMs - performance.now() : Number.POSITIVE_INFINITY
    const wait = left < 0 ? toDeadline : Math.min(left, toDeadline)
    this.#timer = setTimeout(() => this.#expired(), Math.max(1, Math.ceil(wait)))
  }

  #expired(): void {
    if (this.#native === undefined) return
    if (this.#facts === undefined && performance.now() >= this.#deadlineMs) {
      const seconds = Math.round(this.#host.timing.handshakeTimeout / 100) / 10
      this.#end(
        new IotchainError('dtls/timeout', `the DTLS handshake was not complete after ${seconds} s`, {
          hint: 'check the address and the port (UDP), and that a firewall lets datagrams through both ways',
        }),
      )
      return
    }
    this.step(binding().expire(this.#native))
  }

  #failed(reason: string): IotchainError {
    if (this.#facts !== undefined) return new IotchainError('dtls/failed', `the DTLS association failed: ${reason}`)
    const peer = this.#host.side === 'client' ? 'server' : 'client'
    const alert = /alert (.*)$/.exec(reason)
    return alert === null
      ? refused(`the ${peer} was refused: ${reason}`)
      : refused(`the ${peer} refused the handshake: ${alert[1]}`)
  }

  #end(error: Error | undefined): void {
    const native = this.#native
    if (native === undefined) return
    const wasOpen = this.#facts !== undefined
    this.#native = undefined
    clearTimeout(this.#timer)
    this.#backlog = []
    this.error = error
    binding().dispose(native)
    this.#host.gone(this, error)
    if (!wasOpen) this.#rejectOpened(error as Error)
    this.#resolveClosed()
    this.onclose?.(error)
  }
}
