/**
 * The public shape of DTLS 1.2 here: one endpoint (a server's UDP socket) or one client socket, and the
 * associations on it. Shaped like the `node:dtls` that Node's core announces, so that core can take its place.
 */
import type { X509Certificate } from 'node:crypto'
import type { AddressInfo } from 'node:net'

/** PEM text of one or several certificates, keys or lists. */
export type Pem = string | Uint8Array

/** Looks up the pre-shared key of an identity; undefined refuses it. Runs inside the handshake: must not block. */
export type PskLookup = (identity: string) => Uint8Array | undefined

export interface SecureOptions {
  /** Own certificate, PEM, leaf first, then its issuing certificates. */
  readonly cert?: Pem | undefined
  /** Private key of `cert`, PEM (PKCS#8, encrypted or not, or SEC1). */
  readonly key?: Pem | undefined
  /** Opens an encrypted `key`. */
  readonly passphrase?: string | undefined
  /** Certificates that the peer's chain may end in, PEM. A listed intermediate needs no root beside it. */
  readonly ca?: Pem | readonly Pem[] | undefined
  /** Certificate revocation lists, PEM. A peer whose issuer has no list here is not checked for revocation. */
  readonly crl?: Pem | readonly Pem[] | undefined
  /** OpenSSL cipher list. Default: the three AEAD suites of ECDHE-ECDSA, and ECDHE-PSK where `psk` is given. */
  readonly ciphers?: string | undefined
  /** Adds ECDHE-ECDSA-AES128-CCM8, RFC 7252's mandatory suite, for constrained peers. Default false. */
  readonly coapCompat?: boolean | undefined
  /** A client gives one identity; a server a table or a look-up. */
  readonly psk?: Readonly<Record<string, Uint8Array>> | PskLookup | undefined
  /** Largest UDP payload to send in a handshake, octets. Default 1200. */
  readonly mtu?: number | undefined
  /** A handshake that takes longer fails with `dtls/timeout`, ms. Default 60 000. */
  readonly handshakeTimeout?: number | undefined
  /** First retransmission timer, ms; doubles up to 60 s. Default 1000 (RFC 6347 §4.2.4.1); 250 suits a LAN. */
  readonly retransmitInitial?: number | undefined
}

export type ClientAuth = 'none' | 'optional' | 'require'

export interface ListenOptions extends SecureOptions {
  /** UDP port; 0 takes a free one. */
  readonly port: number
  /** Address to bind. Default `::` with IPv4 beside it where the host has IPv6, else `0.0.0.0`. */
  readonly host?: string | undefined
  /**
   * `none` asks for no certificate. `optional`: without one the association is anonymous; with one that does not
   * verify the handshake fails. `require`: no certificate, no association (a PSK handshake shows none and passes).
   * Default `none`; `optional` and `require` need `ca`.
   */
  readonly clientAuth?: ClientAuth | undefined
  /** Associations at once, handshakes included. Default 1024 (about 60 KiB each). */
  readonly maxAssociations?: number | undefined
  /** Associations at once from one IPv4 address or one IPv6 /64, and handshakes a second that it may begin. Default 256. */
  readonly maxAssociationsPerHost?: number | undefined
  /** An association silent for so long is closed, ms. Default 300 000. */
  readonly idleTimeout?: number | undefined
  /** SO_RCVBUF of the socket, octets. Default 1 MiB (the kernel may cap it). */
  readonly receiveBufferSize?: number | undefined
  /**
   * Session ticket keys, 80 random octets each, the current one first. Given: the caller rotates them with
   * `setTicketKeys` within 24 h. Default: random ones, replaced every 12 h, accepted for 12 h more.
   */
  readonly ticketKeys?: Uint8Array | readonly Uint8Array[] | undefined
  /** Told of each handshake that failed after its cookie: who, and why. Must not throw. */
  readonly onRefused?: ((error: Error, remote: RemoteAddress) => void) | undefined
}

export interface ConnectOptions extends SecureOptions {
  /** Name or IP address that the server's certificate must carry. Default: the host connected to. */
  readonly servername?: string | undefined
  /** SHA-256 of the server's SubjectPublicKeyInfo (DER), 32 octets. With `ca`: both must hold. Alone: replaces the chain
   *  and the name; the validity dates and the key usage are checked all the same. */
  readonly expectSpki?: Uint8Array | undefined
  /** An earlier association's `session`: tried first, a full handshake follows where the server declines. */
  readonly session?: Uint8Array | undefined
  /** Ends the handshake (and nothing after it). */
  readonly signal?: AbortSignal | undefined
}

export interface RemoteAddress {
  readonly address: string
  readonly port: number
  readonly family: 'IPv4' | 'IPv6'
}

export interface DtlsAssociation {
  /** Resolves after the handshake; rejects with `dtls/refused`, `dtls/timeout`, `dtls/unreachable` … */
  readonly opened: Promise<void>
  /** Resolves once the association is gone, for whatever reason; never rejects. */
  readonly closed: Promise<void>
  /** Why it ended, where it was not by `close` on either side. */
  readonly error: Error | undefined
  /** One call per datagram received, in the order of arrival (UDP: some may be missing). */
  onmessage: ((datagram: Buffer) => void) | undefined
  /** Told once, when the association is gone. */
  onclose: ((error?: Error) => void) | undefined
  /**
   * Sends one datagram of 1 … 16 384 octets; best kept below `mtu` − 64.
   * @throws `dtls/closed` before the handshake or after the end, `dtls/too-large`
   */
  send(datagram: Uint8Array): void
  /** Sends close_notify and frees everything. Idempotent. */
  close(): void
  /** Frees everything and says nothing to the peer. Idempotent. */
  destroy(error?: Error): void
  readonly remoteAddress: RemoteAddress
  /** The own end of the socket; port 0 before it is bound. */
  readonly localAddress: { readonly address: string; readonly port: number }
  /** `DTLSv1.2`; undefined before the handshake. */
  readonly protocol: string | undefined
  /** OpenSSL's name of the suite. */
  readonly cipher: string | undefined
  /** The peer showed a certificate that verified, that is in force now and that no list in force revokes. */
  readonly authorized: boolean
  /** The peer's verified certificate. Resumption keeps it: look at `authorized` on every request. */
  readonly peerX509Certificate: X509Certificate | undefined
  /** Identity of a PSK handshake; such an association has no certificate and may only enrol. */
  readonly pskIdentity: string | undefined
  /** True where a ticket was resumed. */
  readonly reused: boolean
  /** Client side: what `connect({session})` takes later. Secret: it holds the master secret. */
  readonly session: Buffer | undefined
  /**
   * RFC 5705 keying material. Without `context` none is mixed in (`use_context` = 0).
   * @throws `dtls/no-extended-master-secret` where the handshake lacks RFC 7627, `dtls/closed`
   */
  exportKeyingMaterial(length: number, label: string, context?: Uint8Array): Buffer
  /**
   * 32 octets that only these two ends of this association share (label EXPORTER-Channel-Binding, no context).
   * Differs from RFC 9266, whose empty context gives another value in DTLS 1.2.
   * @throws as exportKeyingMaterial
   */
  channelBinding(): Buffer
}

export interface DtlsEndpoint {
  /** Resolves with the bound address; rejects with `dtls/bind`. */
  readonly listening: Promise<AddressInfo>
  /** @throws `dtls/closed` before `listening` */
  readonly address: AddressInfo
  readonly stats: DtlsStats
  /** Takes a renewed certificate, another CA or a new CRL for handshakes from now on; open associations whose
   *  certificate the new list revokes are closed. */
  setSecureContext(options: SecureOptions): void
  /** 80 octets each, the current one first. */
  setTicketKeys(keys: Uint8Array | readonly Uint8Array[]): void
  /** The associations whose handshake is complete. */
  associations(): Iterable<DtlsAssociation>
  /** Sends close_notify to each association, closes the socket, frees the context. */
  close(): Promise<void>
}

export interface DtlsStats {
  /** Stateless answers to hellos without a valid cookie. */
  helloVerifySent: number
  /** Handshakes complete. */
  accepted: number
  /** Handshakes failed after the cookie. */
  refused: number
  /** Hellos turned away by a cap. */
  rejected: number
  /** Of `accepted`: resumed by ticket. */
  resumed: number
  /** Datagrams that belong to no association and are no ClientHello. */
  ignored: number
  /** Associations now, handshakes included. */
  readonly associations: number
}
