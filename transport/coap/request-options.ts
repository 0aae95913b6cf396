/** The options of a request that a program makes. */
import type { IotchainError } from '../../protocol/errors.ts'
import type { RequestInit } from './messages.ts'
import { type CoapOption, textOption, uintOption } from './option-set.ts'
import { OptionNumber } from './options.ts'
import { parsePath } from './uri.ts'

/** In the order of their numbers. @throws `coap/bad-uri` ({@link IotchainError}) */
export function requestOptions(init: RequestInit): CoapOption[] {
  const { path, query } = typeof init.path === 'string' ? parsePath(init.path) : { path: init.path, query: [] }
  const options: CoapOption[] = []
  for (const value of list(init.ifMatch)) options.push({ number: OptionNumber.ifMatch, value })
  if (init.host !== undefined) options.push(textOption(OptionNumber.uriHost, init.host))
  for (const value of list(init.etag)) options.push({ number: OptionNumber.etag, value })
  if (init.ifNoneMatch === true) options.push({ number: OptionNumber.ifNoneMatch, value: EMPTY })
  for (const segment of path) options.push(textOption(OptionNumber.uriPath, segment))
  if (init.contentFormat !== undefined) options.push(uintOption(OptionNumber.contentFormat, init.contentFormat))
  for (const item of query) options.push(textOption(OptionNumber.uriQuery, item))
  for (const item of init.query ?? []) options.push(textOption(OptionNumber.uriQuery, item))
  if (init.accept !== undefined) options.push(uintOption(OptionNumber.accept, init.accept))
  if (init.options !== undefined) options.push(...init.options)
  return options
}

function list(value: Uint8Array | readonly Uint8Array[] | undefined): readonly Uint8Array[] {
  if (value === undefined) return []
  return value instanceof Uint8Array ? [value] : value
}

const EMPTY = new Uint8Array(0)
