/** A request as it came in: all options read in one walk over the datagram, the rare ones only when asked for. */
import { isUtf8 } from 'node:buffer'
import { type Block, decodeBlock } from './block.ts'
import { type CoapMethod, methodOf } from './codes.ts'
import { type Message, MessageType, OptionCursor } from './message.ts'
import type { OptionSet } from './option-set.ts'
import { decodeUint, isCacheKey, isCritical, isLegalOption, isRepeatable, OptionNumber } from './options.ts'
import type { CoapRequest } from './server.ts'
import type { Peer } from './transport.ts'
import { formatPath } from './uri.ts'

const NONE: readonly never[] = Object.freeze([])
const NO_PARAMS: Readonly<Record<string, string>> = Object.freeze({})
/** Options that make no difference to which transfer or snapshot a block belongs to. */
const NOT_IN_TRANSFER_KEY: ReadonlySet<number> = new Set([
  OptionNumber.observe,
  OptionNumber.block1,
  OptionNumber.block2,
  OptionNumber.echo,
  OptionNumber.etag,
  OptionNumber.ifMatch,
  OptionNumber.ifNoneMatch,
  OptionNumber.requestTag,
  OptionNumber.contentFormat,
])

export class IncomingRequest implements CoapRequest {
  readonly message: Message
  readonly peer: Peer
  readonly multicast: boolean
  method: CoapMethod
  readonly path: string[] = []
  query: readonly string[] = NONE
  params: Readonly<Record<string, string>> = NO_PARAMS
  payload: Uint8Array
  contentFormat: number | undefined
  accept: number | undefined
  etags: readonly Uint8Array[] = NONE
  ifMatch: readonly Uint8Array[] = NONE
  ifNoneMatch = false
  observe: number | undefined
  verified = false
  notification = false
  block1: Block | undefined
  block2: Block | undefined
  size1: number | undefined
  echo: Uint8Array | undefined
  /** All Request-Tags, as text for a map key; undefined when there is none, as opposed to an empty one. */
  requestTag: string | undefined
  noResponse = 0
  proxied = false
  /** The number of the option that makes the request a bad one. */
  badOption: number | undefined
  badPath = false
  #options: OptionSet | undefined
  #pathText: string | undefined

  constructor(message: Message, peer: Peer, multicast: boolean) {
    this.message = message
    this.peer = peer
    this.multicast = multicast
    this.method = methodOf(message.code) ?? 'GET'
    this.payload = message.payload
    this.#read()
  }

  get confirmable(): boolean {
    return this.message.type === MessageType.con
  }

  get options(): OptionSet {
    this.#options ??= this.message.options()
    return this.#options
  }

  get pathText(): string {
    this.#pathText ??= formatPath(this.path)
    return this.#pathText
  }

  /**
   * Same peer, method, resource: what the blocks of one transfer have in common. Made of every option that is part
   * of the cache key but those about blocks, freshness and conditions. Request-Tag is kept apart (`requestTag`).
   */
  transferKey(): string {
    let key = `${this.peer.key}|${this.message.code}`
    const cursor = new OptionCursor(this.message)
    while (cursor.next()) {
      if (!isCacheKey(cursor.number) || NOT_IN_TRANSFER_KEY.has(cursor.number)) continue
      key += `|${cursor.number}:${cursor.end - cursor.start}:${cursor.octets.toString('latin1', cursor.start, cursor.end)}`
    }
    return key
  }

  #read(): void {
    const cursor = new OptionCursor(this.message)
    let previous = -1
    while (cursor.next()) {
      const { number, start, end } = cursor
      const repeated = number === previous
      previous = number
      if (!isLegalOption(number, end - start) || (repeated && !isRepeatable(number))) {
        // what is not understood is ignored if elective (RFC 7252 §5.4.1, §5.4.3, §5.4.5)
        if (isCritical(number)) {
          this.badOption = number
          return
        }
        continue
      }
      this.#take(cursor, number, start, end)
      if (this.badOption !== undefined) return
    }
    // the root has no Uri-Path, but some send one empty segment (RFC 7252 §6.5 makes the same URI of both)
    if (this.path.length === 1 && this.path[0] === '') this.path.pop()
  }

  #take(cursor: OptionCursor, number: number, start: number, end: number): void {
    const { octets } = cursor
    switch (number) {
      case OptionNumber.uriPath:
        this.path.push(this.#text(octets, start, end))
        return
      case OptionNumber.uriQuery:
        this.query = append(this.query, this.#text(octets, start, end))
        return
      case OptionNumber.observe:
        this.observe = decodeUint(octets, start, end)
        return
      case OptionNumber.contentFormat:
        this.contentFormat = decodeUint(octets, start, end)
        return
      case OptionNumber.accept:
        this.accept = decodeUint(octets, start, end)
        return
      case OptionNumber.etag:
        this.etags = append(this.etags, cursor.value)
        return
      case OptionNumber.ifMatch:
        this.ifMatch = append(this.ifMatch, cursor.value)
        return
      case OptionNumber.ifNoneMatch:
        this.ifNoneMatch = true
        return
      case OptionNumber.block1:
        this.block1 = decodeBlock(decodeUint(octets, start, end))
        if (this.block1 === undefined) this.badOption = number
        return
      case OptionNumber.block2:
        this.block2 = decodeBlock(decodeUint(octets, start, end))
        if (this.block2 === undefined) this.badOption = number
        return
      case OptionNumber.size1:
        this.size1 = decodeUint(octets, start, end)
        return
      case OptionNumber.echo:
        this.echo = cursor.value
        return
      case OptionNumber.requestTag:
        this.requestTag = `${this.requestTag ?? ''}${end - start}:${octets.toString('latin1', start, end)}`
        return
      case OptionNumber.noResponse:
        this.noResponse = decodeUint(octets, start, end)
        return
      case OptionNumber.proxyUri:
      case OptionNumber.proxyScheme:
        this.proxied = true
        return
      default:
    }
  }

  #text(octets: Buffer, start: number, end: number): string {
    const text = octets.toString('utf8', start, end)
    if (text.includes('�') && !isUtf8(octets.subarray(start, end))) this.badPath = true
    return text
  }
}

/** Most requests have none: one empty list serves them all. A copy per item would take time in the square of their number. */
function append<T>(list: readonly T[], item: T): readonly T[] {
  if (list === NONE) return [item]
  ;(list as T[]).push(item)
  return list
}
