/**
 * Keeps a group's session keys fresh: observes the key server's broadcasts on plain CoAP and asks other mirrors when
 * it is silent. Nothing here is trusted: a broadcast counts by its signature alone, whoever brings it.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { IotchainError } from '../protocol/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import type { CoapResponse, Observation } from '../transport/coap/messages.ts'
import type { GroupSession } from './group-session.ts'
import { refusal } from './refusal.ts'
import { Task } from './task.ts'

export interface BroadcastWatcherOptions {
  readonly group: GroupSession
  readonly log: Logger
  /** A plain CoAP client for a `coap://host:port`; shared, not closed here. */
  readonly client: (uri: string) => Promise<CoapClient>
  /** Forgets a client that does not answer. */
  readonly forget: (uri: string) => void
  /** Mirrors to ask when the key server is silent, `coap://host:port`. */
  readonly mirrors: readonly string[]
  /**
   * Asks the local network for a path and hands each answer over until the signal says that it is enough; absent
   * where the device keeps away from multicast.
   */
  readonly neighbours?:
    | ((path: string, onResponse: (response: CoapResponse) => void, enough: AbortSignal) => Promise<unknown>)
    | undefined
  readonly nowSeconds: () => number | undefined
  readonly retry: { readonly initial: number; readonly max: number }
}

const REQUEST_MS = 10_000
/** Answers looked at when neighbours are asked: each costs a signature check. */
const NEIGHBOURS = 16
const LEAST_BETWEEN_MS = 5000

export class BroadcastWatcher {
  readonly #options: BroadcastWatcherOptions
  readonly #task: Task
  #observation: Observation | undefined
  #askedMs = Number.NEGATIVE_INFINITY
  #asking: AbortController | undefined

  constructor(options: BroadcastWatcherOptions) {
    this.#options = options
    const name = `broadcasts of ${options.group.gname}`
    const { initial, max } = options.retry
    this.#task = new Task({ name, log: options.log, initialMs: initial, maxMs: max }, () => this.#turn())
  }

  get lastError(): unknown {
    return this.#task.lastError
  }

  start(): void {
    this.#task.start()
  }

  /** The group was joined, or its key server changed. */
  kick(): void {
    this.#task.kick()
  }

  async stop(): Promise<void> {
    this.#asking?.abort()
    this.#observation?.close()
    await this.#task.stop()
  }

  async #turn(): Promise<number | undefined> {
    const { group, nowSeconds } = this.#options
    const uri = group.controlGroupUri
    if (uri === undefined) return undefined
    // A key server that is away is no reason to ask nobody else.
    let fault: unknown
    if (this.#observation === undefined) await this.#observe(uri).catch((error: unknown) => (fault = error))
    const now = nowSeconds()
    const current = group.current()
    if (now === undefined) return 5000
    // The next broadcast is due shortly before the end of the session; silence until half of the rest is normal.
    if (current !== undefined && current.exp - now > 5)
      return Math.min(60_000, Math.max(1000, ((current.exp - now) * 1000) / 2))
    await this.#askAll(uri)
    if (group.current() !== undefined) return 1000
    if (fault !== undefined) throw fault
    return 2000
  }

  async #observe(uri: string): Promise<void> {
    const { group, client, forget, log } = this.#options
    const { origin, path } = split(uri)
    let established = false
    const observation = (await client(origin)).observe(
      path,
      {
        onNotification: (response) => {
          established = true
          if (response.ok) void this.#take(response.payload, origin)
        },
        onEnd: (error) => {
          if (this.#observation !== observation) return
          this.#observation = undefined
          if (error === undefined) return
          log.limited(
            `observe ${origin}`,
            'info',
            { group: group.gname, err: error },
            'the observation of broadcasts ended: it is begun again',
          )
          forget(origin)
          // One that was refused from the start is begun again in its time, or the server would be asked without a pause.
          if (established) this.#task.kick()
        },
        onInterrupted: () => this.#task.nudge(),
      },
      { accept: ContentFormat.coseSign1 },
    )
    this.#observation = observation
    // it goes on registering by itself; meanwhile others are asked
    const patience = new AbortController()
    await Promise.race([
      observation.ready,
      delay(REQUEST_MS, undefined, { signal: patience.signal, ref: false }),
    ]).finally(() => patience.abort())
  }

  /** One GET at each source, until one brings something new. */
  async #askAll(uri: string): Promise<void> {
    const { group, client, forget, mirrors } = this.#options
    const before = group.newestSession
    const { path } = split(uri)
    const origins = [split(uri).origin, ...mirrors]
    let last: unknown
    for (const origin of new Set(origins)) {
      try {
        const reply = await (await client(origin)).get(path, { accept: ContentFormat.coseSign1, timeoutMs: REQUEST_MS })
        if (!reply.ok) throw refusal(reply, `${origin} has no broadcast`)
        await this.#take(reply.payload, origin)
        if (group.newestSession > before) return
      } catch (error) {
        last = error
        forget(origin)
      }
    }
    if (await this.#askNeighbours(path)) return
    if (last !== undefined && group.current() === undefined) throw last
  }

  /**
   * The last resort, when key server and proxy have nothing newer: whoever on the local network offers the group's
   * broadcasts. At most once in the time of a retry: everybody hears it. @returns whether it brought a newer session
   */
  async #askNeighbours(path: string): Promise<boolean> {
    const { group, log, neighbours, retry } = this.#options
    const nowMs = performance.now()
    if (neighbours === undefined || nowMs - this.#askedMs < Math.max(LEAST_BETWEEN_MS, retry.max / 4)) return false
    this.#askedMs = nowMs
    const before = group.newestSession
    const enough = new AbortController()
    this.#asking = enough
    try {
      const taken: Promise<void>[] = []
      await neighbours(
        path,
        (response) => {
          if (!response.ok || taken.length >= NEIGHBOURS) return
          const { address } = response.peer
          taken.push(
            this.#take(response.payload, address).then(() => {
              if (group.newestSession === before || enough.signal.aborted) return
              log.info({ group: group.gname, from: address }, 'a neighbour had the broadcast that was missing')
              enough.abort()
            }),
          )
        },
        enough.signal,
      )
      await Promise.all(taken)
    } catch (error) {
      log.limited('neighbours', 'info', { err: error }, 'the local network could not be asked')
    } finally {
      this.#asking = undefined
    }
    return group.newestSession > before
  }

  async #take(message: Uint8Array, source: string): Promise<void> {
    const { group, log } = this.#options
    try {
      await group.receive(message, source, true)
    } catch (error) {
      log.limited(
        `broadcast ${source}`,
        'warn',
        { group: group.gname, source, err: error },
        'not a broadcast of the key server: ignored',
      )
    }
  }
}

/** `coap://host:5683/bc/00…` → origin and path. */
function split(uri: string): { origin: string; path: string } {
  const match = /^(coap:\/\/[^/]+)(\/.*)$/.exec(uri)
  if (match === null) throw new IotchainError('device/bad-uri', `"${uri}" is no coap URI`)
  return { origin: match[1] as string, path: match[2] as string }
}
