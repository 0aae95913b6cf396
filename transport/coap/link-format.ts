/** CoRE link format (RFC 6690): `</s/temp>;rt="temperature";ct=18;obs`. */
import { IotchainError } from '../../protocol/errors.ts'
import type { Link, LinkAttributes, Resource } from './server.ts'
import { formatPath, parsePath } from './uri.ts'

/** The links that a resource shows in `/.well-known/core`. */
export function linksOf(resource: Resource): Link[] {
  const links = [...(resource.links?.() ?? [])]
  if (resource.attributes !== undefined && !/\/[:*]/.test(resource.pattern)) {
    links.unshift({ href: formatPath(parsePath(resource.pattern).path), attributes: resource.attributes })
  }
  if (resource.observable !== true) return links
  return links.map(({ href, attributes }) => ({ href, attributes: { ...attributes, obs: true } }))
}

export function encodeLinks(links: readonly Link[]): string {
  return links.map(encodeLink).join(',')
}

function encodeLink({ href, attributes }: Link): string {
  let out = `<${href}>`
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue
    if (value === true) out += `;${name}`
    else if (typeof value === 'number') out += `;${name}=${value}`
    else out += `;${name}=${encodeValue(value)}`
  }
  return out
}

// several numbers are quoted (RFC 7252 §7.2.1: ct="0 41"), one is not
function encodeValue(value: string | readonly string[] | readonly number[]): string {
  if (typeof value !== 'string' && value.length === 1 && typeof value[0] === 'number') return String(value[0])
  const text = typeof value === 'string' ? value : value.join(' ')
  return `"${text.replace(/["\\]/g, '\\$&')}"`
}

/**
 * Reads a link-format document. Values stay text (`ct="0 41"` → `'0 41'`); a parameter without value is `true`;
 * of a parameter that may appear once the first counts.
 * @throws `coap/bad-link-format`
 */
export function decodeLinks(text: string): Link[] {
  const links: Link[] = []
  let at = 0
  const skipSpace = () => {
    while (text[at] === ' ' || text[at] === '\t' || text[at] === '\n' || text[at] === '\r') at++
  }
  skipSpace()
  while (at < text.length) {
    if (text[at] !== '<') throw badLinks('a link begins with <')
    const end = text.indexOf('>', at)
    if (end < 0) throw badLinks('a > is missing')
    const href = text.slice(at + 1, end)
    const attributes: Record<string, string | boolean> = {}
    at = end + 1
    skipSpace()
    while (text[at] === ';') {
      at++
      skipSpace()
      const name = /^[!#$&+\-.^_`|~A-Za-z0-9*]+/.exec(text.slice(at, at + 128))?.[0]
      if (name === undefined) throw badLinks('a parameter needs a name')
      at += name.length
      skipSpace()
      let value: string | boolean = true
      if (text[at] === '=') {
        at++
        skipSpace()
        ;[value, at] = readValue(text, at)
        skipSpace()
      }
      if (!Object.hasOwn(attributes, name)) attributes[name] = value
    }
    links.push({ href, attributes })
    if (at >= text.length) break
    if (text[at] !== ',') throw badLinks('links are separated by a comma')
    at++
    skipSpace()
  }
  return links
}

function readValue(text: string, start: number): [string, number] {
  if (text[start] !== '"') {
    let end = start
    while (end < text.length && text[end] !== ';' && text[end] !== ',') end++
    return [text.slice(start, end).trimEnd(), end]
  }
  let out = ''
  for (let at = start + 1; at < text.length; at++) {
    const c = text[at] as string
    if (c === '"') return [out, at + 1]
    if (c === '\\') at++
    out += c === '\\' ? (text[at] ?? '') : c
  }
  throw badLinks('a quoted value does not end')
}

function badLinks(why: string): IotchainError {
  return new IotchainError('coap/bad-link-format', `not a link-format document: ${why}`)
}

/** Keeps the links that match every item of the query (RFC 6690 §4.1): `rt=core.ps*`, `href=/s/*`, `obs`. */
export function filterLinks(links: readonly Link[], query: readonly string[]): Link[] {
  return links.filter((link) => query.every((item) => matches(link, item)))
}

function matches(link: Link, item: string): boolean {
  const equals = item.indexOf('=')
  const name = equals < 0 ? item : item.slice(0, equals)
  const wanted = equals < 0 ? undefined : item.slice(equals + 1)
  if (name === 'href') return wanted !== undefined && matchesText(link.href, wanted)
  const value = Object.hasOwn(link.attributes, name) ? link.attributes[name as keyof LinkAttributes] : undefined
  if (value === undefined || value === false) return false
  if (wanted === undefined) return true
  if (value === true) return wanted === ''
  // relation types, rt, if and ct are lists separated by spaces
  const text = Array.isArray(value) ? value.join(' ') : String(value)
  return matchesText(text, wanted) || text.split(' ').some((word) => matchesText(word, wanted))
}

function matchesText(text: string, wanted: string): boolean {
  return wanted.endsWith('*') ? text.startsWith(wanted.slice(0, -1)) : text === wanted
}
