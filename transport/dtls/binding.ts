/** The native half of DTLS: its interface. Loaded on first use, so that plain CoAP needs no compiler. */
import type { IotchainError } from '../../protocol/errors.ts'
import { loadNative } from '../native.ts'

declare const contextBrand: unique symbol
declare const associationBrand: unique symbol
/** An SSL_CTX. */
export type NativeContext = object & { readonly [contextBrand]: true }
/** An SSL. Its OpenSSL part goes with `dispose`, at the latest with the collector. */
export type NativeAssociation = object & { readonly [associationBrand]: true }

/** Bits of what a step brought about. */
export const OPENED = 1
export const OUTGOING = 2
export const INCOMING = 4
export const CLOSED = 8
export const FAILED = 16
export const ACCEPTED = 32

export interface NativeContextOptions {
  readonly server: 0 | 1
  readonly cert?: Uint8Array
  readonly key?: Uint8Array
  readonly passphrase?: Uint8Array
  readonly ca?: Uint8Array
  readonly crl?: Uint8Array
  readonly ciphers?: Uint8Array
  /** 1: the suites are not our own choice, so a context knows all algorithms of OpenSSL. */
  readonly named?: 0 | 1
  /** 0 none, 1 optional, 2 require. */
  readonly clientAuth?: 0 | 1 | 2
  readonly psk?: Uint8Array
  readonly pskIdentity?: Uint8Array
  /** 1 where a server answers PSK hellos by the look-up that each step brings along. */
  readonly lookup?: 0 | 1
  readonly ticketKeys?: Uint8Array
  readonly sessionIdContext?: Uint8Array
}

export interface NativeAssociationOptions {
  readonly mtu: number
  readonly retransmitInitial: number
  readonly name?: Uint8Array
  readonly checkName?: Uint8Array
  readonly checkAddress?: Uint8Array
  readonly pin?: Uint8Array
  readonly session?: Uint8Array
}

export interface NativeFacts {
  readonly protocol: string
  readonly cipher: string
  readonly reused: boolean
  readonly extendedMasterSecret: boolean
  readonly pskIdentity?: string
  /** DER. */
  readonly certificate?: Buffer
}

type Lookup = ((identity: string) => Uint8Array | undefined) | undefined

export interface Binding {
  /** Version text of the OpenSSL in use. */
  readonly openssl: string
  createContext(options: NativeContextOptions): NativeContext
  setTicketKeys(context: NativeContext, keys: Uint8Array): void
  rotateCookieSecret(context: NativeContext): void
  createAssociation(context: NativeContext, options: NativeAssociationOptions): NativeAssociation
  accept(association: NativeAssociation, hello: Uint8Array, lookup: Lookup, remote: Uint8Array, full: boolean): number
  receive(association: NativeAssociation, datagram?: Uint8Array, lookup?: Lookup): number
  expire(association: NativeAssociation): number
  timeLeft(association: NativeAssociation): number
  send(association: NativeAssociation, datagram: Uint8Array): number
  shut(association: NativeAssociation): number
  dispose(association: NativeAssociation): void
  takeOutgoing(association: NativeAssociation): Buffer | undefined
  takeIncoming(association: NativeAssociation): Buffer | undefined
  failure(association: NativeAssociation): string
  facts(association: NativeAssociation): NativeFacts
  session(association: NativeAssociation): Buffer | undefined
  standing(association: NativeAssociation, context: NativeContext): number
  exportKey(association: NativeAssociation, length: number, label: Uint8Array, context?: Uint8Array): Buffer
}

let loaded: Binding | undefined

/** @throws `dtls/not-built`, `dtls/unsupported` */
export function binding(): Binding {
  loaded ??= loadNative() as Binding
  return loaded
}

/** Whether DTLS can be used here; the reason where it cannot. */
export function dtlsAvailable(): { available: true; openssl: string } | { available: false; error: IotchainError } {
  try {
    return { available: true, openssl: binding().openssl }
  } catch (error) {
    return { available: false, error: error as IotchainError }
  }
}
