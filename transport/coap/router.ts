/** Finds the resource of a path, and keeps the list that `/.well-known/core` shows. */
import { IotchainError } from '../../protocol/errors.ts'
import { linksOf } from './link-format.ts'
import type { Handler, Link, Resource } from './server.ts'
import { formatPath, parsePath } from './uri.ts'

export interface RouterOptions {
  /** Serve `/.well-known/core` (default true). */
  readonly wellKnownCore?: boolean | undefined
  /** More error codes: `IotchainError.code` or its area with `/*` → CoAP code; wins over the engine's table. */
  readonly errorCodes?: Readonly<Record<string, number>> | undefined
  /** Takes requests with Proxy-Uri or Proxy-Scheme, which draw 5.05 otherwise. */
  readonly forward?: Handler | undefined
}

export interface RouteMatch {
  readonly resource: Resource
  readonly params: Readonly<Record<string, string>>
}

interface Node {
  readonly children: Map<string, Node>
  /** `:name` */
  any: { readonly name: string; readonly node: Node } | undefined
  /** `*name` */
  rest: { readonly name: string; readonly resource: Resource } | undefined
  resource: Resource | undefined
}

const NO_PARAMS: Readonly<Record<string, string>> = Object.freeze({})

export class Router {
  readonly options: RouterOptions
  readonly #root: Node = newNode()
  readonly #resources = new Map<string, Resource>()
  readonly #listeners = new Set<(path: string) => void>()

  constructor(options: RouterOptions = {}) {
    this.options = options
  }

  /**
   * @throws `coap/bad-pattern` for a pattern that is malformed or names a parameter otherwise than one beside it;
   *   `coap/duplicate-resource` for one that is there already
   */
  add(resource: Resource): this {
    const { pattern } = resource
    if (this.#resources.has(pattern)) {
      throw new IotchainError('coap/duplicate-resource', `the resource ${pattern} is there already`)
    }
    this.#insert(resource)
    this.#resources.set(pattern, resource)
    return this
  }

  /** Requests for it draw 4.04 from now on; its observers are told so. */
  remove(pattern: string): void {
    if (!this.#resources.delete(pattern)) return
    this.#clear()
    for (const resource of this.#resources.values()) this.#insert(resource)
    this.notify(pattern)
  }

  /** The state of `path` changed: every endpoint that serves this router tells its observers. */
  notify(path: string): void {
    for (const listener of this.#listeners) listener(path)
  }

  /** For endpoints. @returns a function that ends it */
  onNotify(listener: (path: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  find(path: readonly string[]): RouteMatch | undefined {
    return search(this.#root, path, 0, undefined)
  }

  /** What `/.well-known/core` lists, in the order of adding. */
  links(): Link[] {
    return [...this.#resources.values()].flatMap(linksOf)
  }

  #insert(resource: Resource): void {
    const segments = resource.pattern.split('/')
    if (!resource.pattern.startsWith('/') || resource.pattern.includes('?')) {
      throw badPattern(resource.pattern, 'it begins with / and has no query')
    }
    let node = this.#root
    for (const [i, segment] of segments.entries()) {
      if (i === 0 || (resource.pattern === '/' && i === 1)) continue
      const name = segment.slice(1)
      if (segment.startsWith('*')) {
        if (i !== segments.length - 1 || name === '') throw badPattern(resource.pattern, '*name is the last part')
        if (node.rest !== undefined) throw badPattern(resource.pattern, 'there is another *name at this place')
        node.rest = { name, resource }
        return
      }
      if (segment.startsWith(':')) {
        if (name === '') throw badPattern(resource.pattern, 'a parameter needs a name')
        node.any ??= { name, node: newNode() }
        if (node.any.name !== name)
          throw badPattern(resource.pattern, `this place is called :${node.any.name} elsewhere`)
        node = node.any.node
        continue
      }
      const literal = parsePath(segment).path[0] ?? ''
      const child = node.children.get(literal) ?? newNode()
      node.children.set(literal, child)
      node = child
    }
    node.resource = resource
  }

  #clear(): void {
    this.#root.children.clear()
    this.#root.any = undefined
    this.#root.rest = undefined
    this.#root.resource = undefined
  }
}

function newNode(): Node {
  return { children: new Map(), any: undefined, rest: undefined, resource: undefined }
}

// depth is bounded by the patterns, not by the path: a rest matches at once
function search(
  node: Node,
  path: readonly string[],
  at: number,
  params: [string, string][] | undefined,
): RouteMatch | undefined {
  if (at === path.length) {
    if (node.resource === undefined) return undefined
    return { resource: node.resource, params: params === undefined ? NO_PARAMS : Object.fromEntries(params) }
  }
  const segment = path[at] as string
  const child = node.children.get(segment)
  const literal = child === undefined ? undefined : search(child, path, at + 1, params)
  if (literal !== undefined) return literal
  if (node.any !== undefined) {
    const found = search(node.any.node, path, at + 1, [...(params ?? []), [node.any.name, segment]])
    if (found !== undefined) return found
  }
  if (node.rest === undefined) return undefined
  const rest = formatPath(path.slice(at)).slice(1)
  return { resource: node.rest.resource, params: Object.fromEntries([...(params ?? []), [node.rest.name, rest]]) }
}

function badPattern(pattern: string, why: string): IotchainError {
  return new IotchainError('coap/bad-pattern', `bad resource pattern ${pattern}: ${why}`)
}
