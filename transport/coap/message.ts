/**
 * CoAP messages on the wire (RFC 7252 §3). Decoding checks the whole message once and keeps offsets; options are
 * read with a cursor, so that no object exists per option. A message in flight is header, token and a *tail*:
 * the encoded options and payload, which does not depend on who asked.
 */
import { IotchainError } from '../../protocol/errors.ts'
import { type CoapOption, OptionSet } from './option-set.ts'
import type { DropReason } from './stats.ts'

export const MessageType = { con: 0, non: 1, ack: 2, reset: 3 } as const
export type MessageType = 0 | 1 | 2 | 3

export const MAX_TOKEN_LENGTH = 8
const HEADER = 4
const MARKER = 0xff

export class Message {
  readonly octets: Buffer
  readonly type: MessageType
  readonly code: number
  readonly messageId: number
  readonly tokenLength: number
  /** Options are octets [optionsStart, optionsEnd), the payload [payloadStart, end). */
  readonly optionsEnd: number
  readonly payloadStart: number

  constructor(octets: Buffer, optionsEnd: number, payloadStart: number) {
    const first = octets[0] as number
    this.octets = octets
    this.type = ((first >> 4) & 3) as MessageType
    this.code = octets[1] as number
    this.messageId = ((octets[2] as number) << 8) | (octets[3] as number)
    this.tokenLength = first & 15
    this.optionsEnd = optionsEnd
    this.payloadStart = payloadStart
  }

  get optionsStart(): number {
    return HEADER + this.tokenLength
  }

  get token(): Buffer {
    return this.octets.subarray(HEADER, HEADER + this.tokenLength)
  }

  /** The token as a binary string: a map key. */
  get tokenKey(): string {
    return this.octets.toString('latin1', HEADER, HEADER + this.tokenLength)
  }

  get payload(): Buffer {
    return this.octets.subarray(this.payloadStart)
  }

  options(): OptionSet {
    const entries: CoapOption[] = []
    const cursor = new OptionCursor(this)
    while (cursor.next()) entries.push({ number: cursor.number, value: cursor.value })
    return new OptionSet(entries)
  }
}

/** Octets that are no message. `reject` is what a CON is answered with: an RST carrying its message ID. */
export interface Malformed {
  readonly malformed: DropReason
  readonly reject: number | undefined
}

/**
 * Checks and decodes one datagram. Never throws.
 * `version` and `short` are to be ignored, all else that is malformed in a CON is rejected with RST (RFC 7252 §3, §4.2).
 */
export function decodeMessage(datagram: Uint8Array): Message | Malformed {
  const octets = asBuffer(datagram)
  const length = octets.length
  if (length < HEADER) return { malformed: 'short', reject: undefined }
  const first = octets[0] as number
  if (first >> 6 !== 1) return { malformed: 'version', reject: undefined }
  const tokenLength = first & 15
  const code = octets[1] as number
  if (tokenLength > MAX_TOKEN_LENGTH || HEADER + tokenLength > length) return malformed(octets, 'token-length')
  if (code === 0) return length === HEADER ? new Message(octets, HEADER, HEADER) : malformed(octets, 'empty-message')
  const codeClass = code >> 5
  if (codeClass !== 0 && codeClass !== 2 && codeClass !== 4 && codeClass !== 5)
    return malformed(octets, 'reserved-code')
  let at = HEADER + tokenLength
  let number = 0
  while (at < length) {
    const head = octets[at] as number
    if (head === MARKER) {
      return at + 1 === length ? malformed(octets, 'empty-payload') : new Message(octets, at, at + 1)
    }
    at++
    let delta = head >> 4
    if (delta >= 13) {
      if (delta === 15) return malformed(octets, 'truncated-option')
      const extra = delta - 12
      if (at + extra > length) return malformed(octets, 'truncated-option')
      delta =
        extra === 1 ? (octets[at] as number) + 13 : (((octets[at] as number) << 8) | (octets[at + 1] as number)) + 269
      at += extra
    }
    let size = head & 15
    if (size >= 13) {
      if (size === 15) return malformed(octets, 'truncated-option')
      const extra = size - 12
      if (at + extra > length) return malformed(octets, 'truncated-option')
      size =
        extra === 1 ? (octets[at] as number) + 13 : (((octets[at] as number) << 8) | (octets[at + 1] as number)) + 269
      at += extra
    }
    number += delta
    at += size
    if (at > length || number > 0xffff) return malformed(octets, 'truncated-option')
  }
  return new Message(octets, length, length)
}

function malformed(octets: Buffer, reason: DropReason): Malformed {
  const confirmable = (((octets[0] as number) >> 4) & 3) === MessageType.con
  return { malformed: reason, reject: confirmable ? octets.readUInt16BE(2) : undefined }
}

export function isMalformed(decoded: Message | Malformed): decoded is Malformed {
  return 'malformed' in decoded
}

/** Walks the options of a checked message: `while (cursor.next()) …cursor.number, cursor.start, cursor.end`. */
export class OptionCursor {
  number = 0
  start: number
  end: number
  readonly octets: Buffer
  readonly #stop: number

  constructor(message: Message) {
    this.octets = message.octets
    this.start = message.optionsStart
    this.end = message.optionsStart
    this.#stop = message.optionsEnd
  }

  next(): boolean {
    let at = this.end
    if (at >= this.#stop) return false
    const octets = this.octets
    const head = octets[at++] as number
    let delta = head >> 4
    if (delta === 13) delta = (octets[at++] as number) + 13
    else if (delta === 14) {
      delta = (((octets[at] as number) << 8) | (octets[at + 1] as number)) + 269
      at += 2
    }
    let size = head & 15
    if (size === 13) size = (octets[at++] as number) + 13
    else if (size === 14) {
      size = (((octets[at] as number) << 8) | (octets[at + 1] as number)) + 269
      at += 2
    }
    this.number += delta
    this.start = at
    this.end = at + size
    return true
  }

  /** A view of the datagram. */
  get value(): Buffer {
    return this.octets.subarray(this.start, this.end)
  }
}

const MAX_OPTION_LENGTH = 65_535 + 269
const EMPTY = Buffer.alloc(0)

/**
 * Encodes options and payload. Options may come in any order; those of one number keep theirs.
 * @throws `coap/bad-option` for a number or length that cannot be written
 */
export function encodeTail(options: readonly CoapOption[], payload: Uint8Array = EMPTY): Buffer {
  const sorted = isSorted(options) ? options : [...options].sort((a, b) => a.number - b.number)
  let length = payload.length === 0 ? 0 : payload.length + 1
  let previous = 0
  for (const { number, value } of sorted) {
    if (!Number.isInteger(number) || number < 0 || number > 0xffff || value.length > MAX_OPTION_LENGTH) {
      throw new IotchainError('coap/bad-option', `option ${number} of ${value.length} octets cannot be encoded`)
    }
    length += 1 + extraOctets(number - previous) + extraOctets(value.length) + value.length
    previous = number
  }
  if (length === 0) return EMPTY
  const out = Buffer.allocUnsafeSlow(length)
  let at = 0
  previous = 0
  for (const { number, value } of sorted) {
    const delta = number - previous
    out[at++] = (nibble(delta) << 4) | nibble(value.length)
    at = writeExtra(out, at, delta)
    at = writeExtra(out, at, value.length)
    out.set(value, at)
    at += value.length
    previous = number
  }
  if (payload.length > 0) {
    out[at++] = MARKER
    out.set(payload, at)
  }
  return out
}

function isSorted(options: readonly CoapOption[]): boolean {
  for (let i = 1; i < options.length; i++) {
    if ((options[i - 1] as CoapOption).number > (options[i] as CoapOption).number) return false
  }
  return true
}

function nibble(value: number): number {
  return value < 13 ? value : value < 269 ? 13 : 14
}

function extraOctets(value: number): number {
  return value < 13 ? 0 : value < 269 ? 1 : 2
}

function writeExtra(out: Buffer, at: number, value: number): number {
  if (value < 13) return at
  if (value < 269) {
    out[at] = value - 13
    return at + 1
  }
  const rest = value - 269
  out[at] = rest >> 8
  out[at + 1] = rest & 255
  return at + 2
}

/** Header, token and tail in one datagram. @param token at most 8 octets */
export function assemble(
  type: MessageType,
  code: number,
  messageId: number,
  token: Uint8Array,
  tail: Uint8Array,
): Buffer {
  const out = Buffer.allocUnsafe(HEADER + token.length + tail.length)
  out[0] = 0x40 | (type << 4) | token.length
  out[1] = code
  out[2] = messageId >> 8
  out[3] = messageId & 255
  out.set(token, HEADER)
  out.set(tail, HEADER + token.length)
  return out
}

/** An empty message: ACK, RST or ping. */
export function assembleEmpty(type: MessageType, messageId: number): Buffer {
  return assemble(type, 0, messageId, EMPTY, EMPTY)
}

/** Puts another message ID into an encoded message. */
export function patchMessageId(datagram: Uint8Array, messageId: number): void {
  datagram[2] = messageId >> 8
  datagram[3] = messageId & 255
}

export interface OutgoingMessage {
  readonly type: MessageType
  readonly code: number
  readonly messageId: number
  readonly token?: Uint8Array | undefined
  readonly options?: readonly CoapOption[] | undefined
  readonly payload?: Uint8Array | undefined
}

/** Encodes a whole message. @throws `coap/bad-option`, `coap/bad-token` */
export function encodeMessage(message: OutgoingMessage): Buffer {
  const token = message.token ?? EMPTY
  if (token.length > MAX_TOKEN_LENGTH) {
    throw new IotchainError('coap/bad-token', `a CoAP token has at most 8 octets, not ${token.length}`)
  }
  return assemble(
    message.type,
    message.code,
    message.messageId,
    token,
    encodeTail(message.options ?? [], message.payload),
  )
}

export function asBuffer(octets: Uint8Array): Buffer {
  return Buffer.isBuffer(octets) ? octets : Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength)
}
