/** From what a handler returns to what goes on the wire: ETag → 2.03, Accept → 4.06, options in order. */
import { equalBytes } from '../../protocol/bytes.ts'
import { type Block, blockOctets, encodeBlock } from './block.ts'
import { Code } from './codes.ts'
import type { IncomingRequest } from './incoming-request.ts'
import { encodeTail } from './message.ts'
import { type CoapOption, textOption, uintOption } from './option-set.ts'
import { OptionNumber } from './options.ts'
import type { CoapReply } from './server.ts'

/** Code and tail: a response but for its header, token and Observe. */
export interface EncodedReply {
  readonly code: number
  readonly tail: Uint8Array
}

const READY = new WeakSet<CoapReply>()

/**
 * Marks a reply as the same for every peer that sends the same GET, until `notify` is called for its path or its
 * Max-Age ends. The engine may then answer the same octets from memory, without asking the handler, and give
 * one notification to all observers. Never for what depends on who asks.
 *
 * @example
 * const reply = ready({ code: Code.content, payload: object, contentFormat: ContentFormat.coseSign1, etag, maxAge: 10 })
 * router.add({ pattern: '/s/temp', get: () => reply, observable: true })
 */
export function ready(reply: CoapReply): CoapReply {
  READY.add(reply)
  return reply
}

export function isReady(reply: CoapReply): boolean {
  return READY.has(reply)
}

/** Applies the conditions of the request to a reply: 2.03 for an ETag that the client has, 4.06 for another format. */
export function applyConditions(request: IncomingRequest, reply: CoapReply): CoapReply {
  if (reply.code !== Code.content) return reply
  const { etag } = reply
  if (request.accept !== undefined && (reply.contentFormat ?? request.accept) !== request.accept) {
    return { code: Code.notAcceptable }
  }
  if (etag !== undefined && request.etags.some((known) => equalBytes(known, etag))) {
    return {
      code: Code.valid,
      etag,
      maxAge: reply.maxAge,
      options: reply.options,
      onAcknowledged: reply.onAcknowledged,
    }
  }
  return reply
}

export interface ReplyBlock {
  readonly block2: Block
  /** Of the whole body. */
  readonly size2: number
}

/** The options of a reply. @param observe the number of a notification */
export function replyOptions(reply: CoapReply, observe?: number, block?: ReplyBlock, block1?: Block): CoapOption[] {
  const options: CoapOption[] = []
  if (reply.etag !== undefined) options.push({ number: OptionNumber.etag, value: reply.etag })
  if (observe !== undefined) options.push(uintOption(OptionNumber.observe, observe))
  for (const segment of reply.locationPath ?? []) options.push(textOption(OptionNumber.locationPath, segment))
  if (reply.contentFormat !== undefined) options.push(uintOption(OptionNumber.contentFormat, reply.contentFormat))
  if (reply.maxAge !== undefined) {
    const seconds = Math.max(0, Math.min(0xffffffff, Math.floor(reply.maxAge)))
    if (seconds !== 60) options.push(uintOption(OptionNumber.maxAge, seconds))
  }
  for (const item of reply.locationQuery ?? []) options.push(textOption(OptionNumber.locationQuery, item))
  if (block !== undefined) {
    options.push({ number: OptionNumber.block2, value: encodeBlock(block.block2) })
    if (block.block2.number === 0) options.push(uintOption(OptionNumber.size2, block.size2))
  }
  if (block1 !== undefined) options.push({ number: OptionNumber.block1, value: encodeBlock(block1) })
  if (reply.options !== undefined) options.push(...reply.options)
  return options
}

/** One block of a reply, or the whole of it. @returns undefined for a block beyond the end */
export function encodeReply(
  reply: CoapReply,
  block: { readonly number: number; readonly szx: number },
  observe?: number,
  block1?: Block,
): (EncodedReply & { readonly more: boolean }) | undefined {
  const payload = reply.payload ?? EMPTY
  const size = blockOctets(block.szx)
  const start = block.number * size
  if (block.number > 0 && start >= payload.length) return undefined
  const more = start + size < payload.length
  const part = block.number === 0 && !more ? payload : payload.subarray(start, start + size)
  const inBlocks = more || block.number > 0
  const block2 = inBlocks
    ? { block2: { number: block.number, more, szx: block.szx }, size2: payload.length }
    : undefined
  return { code: reply.code, tail: encodeTail(replyOptions(reply, observe, block2, block1), part), more }
}

const ETAGS = new WeakMap<Uint8Array, Uint8Array>()

/** The reply with an ETag: its own, or one made of the body, so that a client can tell that its blocks belong together. */
export function withEtag(reply: CoapReply): CoapReply {
  if (reply.etag !== undefined || reply.payload === undefined) return reply
  let etag = ETAGS.get(reply.payload)
  if (etag === undefined) {
    etag = bodyEtag(reply.payload)
    ETAGS.set(reply.payload, etag)
  }
  return { ...reply, etag }
}

/** 8 octets that tell one body from another; not secure against someone who chooses the bodies. */
function bodyEtag(payload: Uint8Array): Uint8Array {
  let a = 0x811c9dc5
  let b = payload.length
  for (let i = 0; i < payload.length; i++) {
    const octet = payload[i] as number
    a = Math.imul(a ^ octet, 0x01000193)
    b = (Math.imul(b, 31) + octet) | 0
  }
  return Uint8Array.of(a >>> 24, a >>> 16, a >>> 8, a, b >>> 24, b >>> 16, b >>> 8, b)
}

const EMPTY = new Uint8Array(0)
