/**
 * The client's side of one request, however many messages it takes: Block1 up, Block2 down (RFC 7959), Echo
 * (RFC 9175). One token and one Request-Tag serve the whole operation: some servers know an upload by its token,
 * others by its tag.
 */
import { equalBytes } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Block, blockOctets, decodeBlock, encodeBlock, MAX_BLOCK_NUMBER, szxFor } from './block.ts'
import type { ClientExchanges, TokenHandle } from './client-exchanges.ts'
import { Code, codeOfMethod, isSafe, isSuccess } from './codes.ts'
import type { CoapLimits } from './limits.ts'
import { encodeTail, type Message } from './message.ts'
import { CoapResponse, type RequestInit } from './messages.ts'
import { type CoapOption, type OptionSet, uintOption } from './option-set.ts'
import { isCritical, isLegalOption, isRepeatable, OptionNumber, optionName } from './options.ts'
import { requestOptions } from './request-options.ts'
import type { Peer } from './transport.ts'

/** The resource changed while it was fetched: how often to begin anew. */
const RESTARTS = 3
const ECHO_ROUNDS = 2
const REQUEST_TAG_LENGTH = 4

export interface BlockTransferParts {
  readonly exchanges: ClientExchanges
  readonly limits: CoapLimits
  readonly randomBytes: (length: number) => Uint8Array
}

export class BlockTransfer {
  readonly #parts: BlockTransferParts
  readonly #handle: TokenHandle
  readonly #peer: Peer
  readonly #init: RequestInit
  readonly #code: number
  readonly #options: readonly CoapOption[]
  readonly #signal: AbortSignal | undefined
  #echo: Uint8Array | undefined
  #requestTag: Uint8Array | undefined

  constructor(parts: BlockTransferParts, handle: TokenHandle, peer: Peer, init: RequestInit, signal?: AbortSignal) {
    this.#parts = parts
    this.#handle = handle
    this.#peer = peer
    this.#init = init
    this.#code = codeOfMethod(init.method ?? 'GET')
    this.#options = requestOptions(init)
    this.#signal = signal
  }

  async run(): Promise<CoapResponse> {
    return this.download(await this.#upload())
  }

  /** Fetches what is missing of a response, which may be a notification that came by itself. */
  async download(first: CoapResponse): Promise<CoapResponse> {
    let head = first
    for (let restart = 0; ; restart++) {
      const whole = await this.#assemble(head)
      if (whole !== undefined) return whole
      if (restart >= RESTARTS) {
        throw new IotchainError('coap/changed', 'the resource changes faster than it can be fetched', {
          hint: 'try again later, or ask the server for a smaller representation',
        })
      }
      // to ask again for what a POST has already done would do it twice
      if (!isSafe(this.#code)) throw badResponse('it forgot the response before all of it was fetched')
      head = await this.#upload()
      if (!isSuccess(head.code)) return head
    }
  }

  get #blockOctets(): number {
    return Math.min(this.#init.blockOctets ?? this.#parts.limits.blockOctets, 1024)
  }

  async #upload(): Promise<CoapResponse> {
    const payload = this.#init.payload ?? EMPTY
    let szx = szxFor(this.#blockOctets)
    if (payload.length <= blockOctets(szx)) {
      const wanted = this.#init.blockOctets === undefined ? [] : [blockOption(OptionNumber.block2, 0, false, szx)]
      const response = await this.#exchange([...this.#options, ...wanted], payload)
      const smaller = this.#smallerSize(response, szx)
      if (smaller === undefined || payload.length <= blockOctets(smaller)) return response
      szx = smaller
    }
    this.#requestTag = this.#parts.randomBytes(REQUEST_TAG_LENGTH)
    let restarted = false
    for (;;) {
      const outcome = await this.#uploadBlocks(payload, szx)
      if (outcome.smaller !== undefined) {
        szx = outcome.smaller
        continue
      }
      // the server lost what it had (a restart, a full table): once more, from the beginning
      if (outcome.response.code === Code.requestEntityIncomplete && !restarted) {
        restarted = true
        this.#requestTag = this.#parts.randomBytes(REQUEST_TAG_LENGTH)
        continue
      }
      return outcome.response
    }
  }

  async #uploadBlocks(payload: Uint8Array, firstSzx: number): Promise<{ response: CoapResponse; smaller?: number }> {
    let szx = firstSzx
    let offset = 0
    for (;;) {
      const size = blockOctets(szx)
      const number = offset / size
      if (number > MAX_BLOCK_NUMBER) throw tooLarge('the body has too many blocks')
      const more = offset + size < payload.length
      const options = [...this.#options, blockOption(OptionNumber.block1, number, more, szx)]
      if (offset === 0) options.push(uintOption(OptionNumber.size1, payload.length))
      const response = await this.#exchange(options, payload.subarray(offset, offset + size), (message) =>
        answersBlock(message, OptionNumber.block1, offset),
      )
      const smaller = offset === 0 ? this.#smallerSize(response, szx) : undefined
      if (smaller !== undefined) return { response, smaller }
      if (!isSuccess(response.code)) return { response }
      const block = blockOf(response, OptionNumber.block1)
      if (!more) {
        if (response.code !== Code.continue) return { response }
        throw badResponse('the server still wants blocks after the last one')
      }
      if (block === undefined || block.number !== number) {
        throw badResponse('the server took the first block for the whole body')
      }
      offset += size
      if (block.szx < szx) szx = block.szx
    }
  }

  // 4.13 with a smaller block size means "in smaller blocks" (RFC 7959 §2.9.3)
  #smallerSize(response: CoapResponse, szx: number): number | undefined {
    if (response.code !== Code.requestEntityTooLarge) return undefined
    const block = blockOf(response, OptionNumber.block1)
    return block !== undefined && block.szx < szx ? block.szx : undefined
  }

  /** @returns undefined when the blocks do not belong together: the resource changed meanwhile */
  async #assemble(first: CoapResponse): Promise<CoapResponse | undefined> {
    const block = blockOf(first, OptionNumber.block2)
    if (block === undefined || (!block.more && block.number === 0)) return first
    if (block.number !== 0) throw badResponse('the first block has another number')
    const { responseOctets } = this.#parts.limits
    const announced = first.options.getUint(OptionNumber.size2) ?? 0
    const parts = [first.payload]
    let octets = first.payload.length
    let { more, szx } = block
    while (more) {
      if (octets > responseOctets || announced > responseOctets) throw tooLarge('the response is too large to be taken')
      if (octets % blockOctets(szx) !== 0 || octets === 0) throw badResponse('a block in the middle is not full')
      const number = octets / blockOctets(szx)
      if (number > MAX_BLOCK_NUMBER) throw tooLarge('the response has too many blocks')
      const start = octets
      const next = await this.#exchange(this.#blockwise(number, szx), EMPTY, (message) =>
        answersBlock(message, OptionNumber.block2, start),
      )
      // the server has forgotten the representation, or it is shorter by now
      if (!isSuccess(next.code))
        return next.code === Code.requestEntityIncomplete || next.code === Code.badRequest ? undefined : next
      const got = blockOf(next, OptionNumber.block2)
      if (got === undefined || got.number * blockOctets(got.szx) !== octets)
        throw badResponse('a block has another number')
      if (!sameEtag(first.etag, next.etag)) return undefined
      parts.push(next.payload)
      octets += next.payload.length
      more = got.more
      szx = got.szx
    }
    return new CoapResponse(first.code, Buffer.concat(parts), first.options, first.peer)
  }

  /** The request for a later block: no body, no Observe. */
  #blockwise(number: number, szx: number): CoapOption[] {
    const kept = this.#options.filter((o) => o.number !== OptionNumber.observe && o.number !== OptionNumber.etag)
    return [...kept, blockOption(OptionNumber.block2, number, false, szx)]
  }

  async #exchange(
    options: readonly CoapOption[],
    payload: Uint8Array = EMPTY,
    accepts?: (message: Message) => boolean,
  ): Promise<CoapResponse> {
    for (let round = 0; ; round++) {
      const all = [...options]
      if (this.#echo !== undefined) all.push({ number: OptionNumber.echo, value: this.#echo })
      if (this.#requestTag !== undefined) all.push({ number: OptionNumber.requestTag, value: this.#requestTag })
      const message = await this.#parts.exchanges.send(
        this.#handle,
        this.#peer,
        { code: this.#code, tail: encodeTail(all, payload), confirmable: this.#init.confirmable !== false, accepts },
        this.#signal,
      )
      const response = toResponse(message, this.#peer)
      const echo = response.code === Code.unauthorized ? response.options.get(OptionNumber.echo) : undefined
      if (echo === undefined || round >= ECHO_ROUNDS) return response
      this.#echo = echo
    }
  }
}

/** @throws `coap/bad-response` for a critical option that is not understood (RFC 7252 §5.4.1) */
export function toResponse(message: Message, peer: Peer): CoapResponse {
  const options = message.options()
  const bad = badCriticalOption(options)
  if (bad !== undefined) throw badResponse(`the response carries ${optionName(bad)}, which is not understood`)
  return new CoapResponse(message.code, message.payload, options, peer)
}

export function badCriticalOption(options: OptionSet): number | undefined {
  let previous = -1
  for (const { number, value } of options) {
    const legal = isLegalOption(number, value.length) && (number !== previous || isRepeatable(number))
    if (!legal && isCritical(number)) return number
    previous = number
  }
  return undefined
}

function blockOf(response: CoapResponse, number: number): Block | undefined {
  const value = response.options.getUint(number)
  if (value === undefined) return undefined
  const block = decodeBlock(value)
  if (block === undefined) throw badResponse('a block has the reserved size')
  return block
}

/** Whether a response that came by itself is about the block that begins at `start`, not a late one about another. */
function answersBlock(message: Message, option: number, start: number): boolean {
  if (!isSuccess(message.code)) return true
  const value = message.options().getUint(option)
  const block = value === undefined ? undefined : decodeBlock(value)
  return block === undefined || block.number * blockOctets(block.szx) === start
}

function blockOption(option: number, number: number, more: boolean, szx: number): CoapOption {
  return { number: option, value: encodeBlock({ number, more, szx }) }
}

function sameEtag(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : equalBytes(a, b)
}

function badResponse(why: string): IotchainError {
  return new IotchainError('coap/bad-response', `the server broke the protocol: ${why}`)
}

function tooLarge(why: string): IotchainError {
  return new IotchainError('coap/too-large', why)
}

const EMPTY = new Uint8Array(0)
