/** Requests to a group (RFC 7252 §8.1): one NON goes out, any number of responses come back. */
import { BlockTransfer, type BlockTransferParts, toResponse } from './block-transfer.ts'
import { codeOfMethod } from './codes.ts'
import { assemble, encodeTail, MessageType } from './message.ts'
import type { MessageLayer } from './message-layer.ts'
import type { CoapResponse, RequestInit } from './messages.ts'
import { uintOption } from './option-set.ts'
import { OptionNumber } from './options.ts'
import { requestOptions } from './request-options.ts'
import type { Timers } from './timers.ts'
import type { Peer } from './transport.ts'

export interface MulticastInit extends Omit<RequestInit, 'confirmable' | 'timeoutMs' | 'blockOctets'> {
  /** How long responses are collected; default the leisure plus 2 s. 0: none are wanted (No-Response is sent). */
  readonly windowMs?: number | undefined
  readonly onResponse?: ((response: CoapResponse) => void) | undefined
}

export interface MulticastParts extends BlockTransferParts {
  readonly layer: MessageLayer
  readonly timers: Timers
}

/** Class 2, 4 and 5 (RFC 7967 §2.1). */
const NO_RESPONSE_AT_ALL = 26
const EXTRA_MS = 2000
const MAX_RESPONSES = 1024
const TOKEN_LENGTH = 4

export async function multicastRequest(
  parts: MulticastParts,
  group: Peer,
  init: MulticastInit,
): Promise<CoapResponse[]> {
  const { exchanges, layer, limits, timers } = parts
  const windowMs = init.windowMs ?? limits.leisureMs + EXTRA_MS
  const options = requestOptions(init)
  if (windowMs === 0) options.push(uintOption(OptionNumber.noResponse, NO_RESPONSE_AT_ALL))
  const tail = encodeTail(options, init.payload)
  const responses = new Map<string, CoapResponse>()
  const following: Promise<void>[] = []
  const handle = exchanges.open(undefined)
  const take = (response: CoapResponse) => {
    responses.set(response.peer.key, response)
    init.onResponse?.(response)
  }
  await new Promise<void>((resolve) => {
    const timer = timers.after(windowMs, () => resolve())
    const stop = () => {
      timer.cancel()
      resolve()
    }
    init.signal?.addEventListener('abort', stop, { once: true })
    handle.onFailure = stop
    handle.onResponse = (message, peer) => {
      if (responses.has(peer.key) || responses.size + following.length >= MAX_RESPONSES) return
      let response: CoapResponse
      try {
        response = toResponse(message, peer)
      } catch {
        return
      }
      const inBlocks = ((response.options.getUint(OptionNumber.block2) ?? 0) & 8) !== 0
      if (!inBlocks) take(response)
      else following.push(follow(parts, peer, init, response).then(take, () => {}))
    }
    const code = codeOfMethod(init.method ?? 'GET')
    layer.transmit(assemble(MessageType.non, code, layer.nextMessageId(group), handle.token, tail), group)
  })
  exchanges.close(handle)
  await Promise.all(following)
  return [...responses.values()]
}

/** One NON request whose response nobody wants, to a peer or a group: sent once, never waited for (RFC 7967). */
export function tell(parts: Pick<MulticastParts, 'layer' | 'randomBytes'>, peer: Peer, init: RequestInit): void {
  const { layer } = parts
  const options = [...requestOptions(init), uintOption(OptionNumber.noResponse, NO_RESPONSE_AT_ALL)]
  const code = codeOfMethod(init.method ?? 'POST')
  const tail = encodeTail(options, init.payload)
  layer.transmit(
    assemble(MessageType.non, code, layer.nextMessageId(peer), parts.randomBytes(TOKEN_LENGTH), tail),
    peer,
  )
}

/** The later blocks come by unicast (RFC 7959 §2.8). */
async function follow(
  parts: MulticastParts,
  peer: Peer,
  init: MulticastInit,
  first: CoapResponse,
): Promise<CoapResponse> {
  const handle = parts.exchanges.open(peer)
  try {
    return await new BlockTransfer(parts, handle, peer, init, init.signal).download(first)
  } finally {
    parts.exchanges.close(handle)
  }
}
