/** From the options that people give to those that the binding takes; every default of the DTLS layer is here. */
import { createHash, createPrivateKey } from 'node:crypto'
import { IotchainError } from '../../protocol/errors.ts'
import { binding, type NativeContext, type NativeContextOptions } from './binding.ts'
import type { ClientAuth, Pem, SecureOptions } from './types.ts'

export const DEFAULT_MTU = 1200
export const DEFAULT_HANDSHAKE_TIMEOUT_MS = 60_000
export const DEFAULT_RETRANSMIT_MS = 1000
/** OpenSSL takes a timer with less than 15 ms to go for expired: a shorter one would send everything twice. */
const LEAST_RETRANSMIT_MS = 20
export const TICKET_KEY_OCTETS = 80
export const MAX_TICKET_KEYS = 4

const CERTIFICATE_SUITES = 'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305'
/** Node's OpenSSL has no ECDHE-PSK with GCM. */
const PSK_SUITE = 'ECDHE-PSK-CHACHA20-POLY1305'
/** RFC 7252 §9.1.3.2; its 8-octet tag is below OpenSSL's security level 1. */
const COMPAT_SUITE = 'ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0'

export interface Timing {
  readonly mtu: number
  readonly handshakeTimeout: number
  readonly retransmitInitial: number
}

/** @throws `dtls/bad-options` */
export function timingOf(options: SecureOptions): Timing {
  return {
    mtu: whole(options.mtu, DEFAULT_MTU, 'mtu', 256, 16_384),
    handshakeTimeout: whole(options.handshakeTimeout, DEFAULT_HANDSHAKE_TIMEOUT_MS, 'handshakeTimeout', 1, 3_600_000),
    retransmitInitial: whole(
      options.retransmitInitial,
      DEFAULT_RETRANSMIT_MS,
      'retransmitInitial',
      LEAST_RETRANSMIT_MS,
      60_000,
    ),
  }
}

/** @throws `dtls/bad-options` */
export function whole(value: number | undefined, fallback: number, name: string, least: number, most: number): number {
  const chosen = value ?? fallback
  if (!Number.isInteger(chosen) || chosen < least || chosen > most) {
    throw bad(`${name} must be a whole number from ${least} to ${most}`)
  }
  return chosen
}

/** @throws `dtls/bad-options`, `dtls/not-built`, `dtls/unsupported` */
export function serverContext(
  options: SecureOptions & { clientAuth?: ClientAuth | undefined },
  ticketKeys: Uint8Array,
): NativeContext {
  const clientAuth = options.clientAuth ?? 'none'
  const level = ({ none: 0, optional: 1, require: 2 } as const)[clientAuth]
  if (level === undefined) throw bad('clientAuth must be none, optional or require')
  if (level > 0 && options.ca === undefined) {
    throw bad(
      `clientAuth: ${clientAuth} needs the CA certificates that client certificates are checked against`,
      'give ca',
    )
  }
  if ((options.cert === undefined || options.key === undefined) && options.psk === undefined) {
    throw bad('a DTLS server needs cert and key, or psk')
  }
  const common = nativeOptions(options, 1)
  return create(options, {
    ...common,
    clientAuth: level,
    lookup: options.psk === undefined ? 0 : 1,
    ticketKeys,
    // A ticket counts only where the same authorities are trusted in the same way.
    sessionIdContext: createHash('sha256')
      .update(clientAuth)
      .update(common.ca ?? '')
      .digest(),
  })
}

/** @throws as serverContext, and `dtls/no-trust` */
export function clientContext(options: SecureOptions & { expectSpki?: Uint8Array | undefined }): NativeContext {
  const { psk } = options
  if (typeof psk === 'function') throw bad('a DTLS client gives its pre-shared key as { identity: key }')
  const entries = Object.entries(psk ?? {})
  if (psk !== undefined && entries.length !== 1) throw bad('a DTLS client has exactly one pre-shared key')
  if (options.ca === undefined && options.expectSpki === undefined && psk === undefined) {
    throw new IotchainError('dtls/no-trust', 'nothing is given by which the server could be told from an impostor', {
      hint: 'give the CA certificate, or the SHA-256 of the key that the registry names',
    })
  }
  if (options.expectSpki !== undefined && psk !== undefined) {
    throw bad('a handshake with a pre-shared key shows no certificate, so expectSpki cannot be checked')
  }
  if (options.expectSpki !== undefined && options.expectSpki.length !== 32) throw bad('expectSpki must be 32 octets')
  const [entry] = entries
  return create(options, {
    ...nativeOptions(options, 0),
    ...(entry === undefined ? {} : { pskIdentity: octets(entry[0]), psk: entry[1] }),
  })
}

/** The look-up that each handshake step brings along; undefined where no PSK is offered. Never throws. */
export function pskLookup(psk: SecureOptions['psk']): ((identity: string) => Uint8Array | undefined) | undefined {
  if (psk === undefined) return undefined
  if (typeof psk !== 'function') {
    const table = new Map(Object.entries(psk))
    return (identity) => table.get(identity)
  }
  return (identity) => {
    try {
      return psk(identity)
    } catch {
      return undefined
    }
  }
}

/** @throws `dtls/bad-options` */
export function ticketKeyOctets(keys: Uint8Array | readonly Uint8Array[]): Uint8Array {
  const all = Buffer.concat(keys instanceof Uint8Array ? [keys] : keys)
  if (all.length === 0 || all.length % TICKET_KEY_OCTETS !== 0 || all.length > MAX_TICKET_KEYS * TICKET_KEY_OCTETS) {
    throw bad(`ticket keys have ${TICKET_KEY_OCTETS} octets each, ${MAX_TICKET_KEYS} at most`)
  }
  return all
}

export function octets(text: string): Uint8Array {
  return Buffer.from(text)
}

export function bad(message: string, hint?: string, cause?: unknown): IotchainError {
  return new IotchainError('dtls/bad-options', message, { hint, cause })
}

function nativeOptions(options: SecureOptions, server: 0 | 1): NativeContextOptions {
  const { cert, key, passphrase, ca, crl } = options
  if ((cert === undefined) !== (key === undefined)) throw bad('cert and key belong together: give both or none')
  return {
    server,
    ciphers: octets(suites(options, server)),
    named: options.ciphers === undefined ? 0 : 1,
    ...(cert === undefined ? {} : { cert: pem(cert) }),
    ...(key === undefined ? {} : { key: pem(key) }),
    ...(passphrase === undefined ? {} : { passphrase: octets(passphrase) }),
    ...(ca === undefined ? {} : { ca: pem(ca) }),
    ...(crl === undefined ? {} : { crl: pem(crl) }),
  }
}

function suites(options: SecureOptions, server: 0 | 1): string {
  if (options.ciphers !== undefined) return options.ciphers
  // A client that brings a key for enrolment must not fall back to a certificate it has no means to check.
  if (options.psk !== undefined && (server === 0 || options.cert === undefined)) return PSK_SUITE
  return [
    CERTIFICATE_SUITES,
    ...(options.psk === undefined ? [] : [PSK_SUITE]),
    ...(options.coapCompat === true ? [COMPAT_SUITE] : []),
  ].join(':')
}

function pem(value: Pem | readonly Pem[]): Uint8Array {
  const parts = Array.isArray(value) ? (value as readonly Pem[]) : [value as Pem]
  return Buffer.concat(parts.flatMap((part) => [Buffer.from(part as Uint8Array), Buffer.from('\n')]))
}

function create(options: SecureOptions, native: NativeContextOptions): NativeContext {
  const load = binding()
  try {
    return load.createContext(native)
  } catch (cause) {
    const message = (cause as Error).message
    throw bad(message.startsWith('the private key') ? explainKey(options, message) : message, undefined, cause)
  }
}

/** OpenSSL says little about a key that does not open: Node's own reader tells a wrong passphrase from a wrong file. */
function explainKey(options: SecureOptions, message: string): string {
  const text = Buffer.from(options.key as Uint8Array).toString('latin1')
  const encrypted = /-----BEGIN ENCRYPTED|Proc-Type: 4,ENCRYPTED/.test(text)
  try {
    createPrivateKey({ key: text, ...(options.passphrase === undefined ? {} : { passphrase: options.passphrase }) })
  } catch {
    if (!encrypted) return 'the private key is not one in PEM'
    return options.passphrase === undefined
      ? 'the private key is encrypted and no passphrase was given'
      : 'the passphrase does not open the private key'
  }
  return /mismatch/.test(message) ? 'the private key does not belong to the certificate' : message
}
