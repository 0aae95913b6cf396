/**
 * The resources of the configuration, alive: a driver, a sampler and a CoAP resource for each. A new configuration
 * replaces only what differs; the others go on without missing a reading.
 */
import type { Clock } from '../protocol/clock.ts'
import { PACK_SEGMENT } from '../protocol/objects/aad.ts'
import { commandRecords } from '../protocol/objects/command.ts'
import type { Logger } from '../runtime/log.ts'
import { Code } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { problemReply } from '../transport/coap/problem-details.ts'
import type { Router } from '../transport/coap/server.ts'
import type { Commands } from './commands.ts'
import type { DeviceTime } from './device-time.ts'
import type { Driver, DriverEnvironment, Sample } from './drivers/driver.ts'
import { loadDriver } from './drivers/load-driver.ts'
import type { GroupSession } from './group-session.ts'
import { DEFAULT_PERIOD_MS } from './period.ts'
import type { ResourceSettings } from './resource-settings.ts'
import { Sampler } from './sampler.ts'
import type { Sealing } from './sealing.ts'
import type { ServedResource } from './serve.ts'

export interface LiveResource {
  readonly settings: ResourceSettings
  readonly driver: Driver
  readonly group: GroupSession
  readonly sampler: Sampler
}

export interface ResourceHostOptions {
  readonly environment: DriverEnvironment
  readonly clock: Clock
  readonly time: Pick<DeviceTime, 'nowMs'>
  readonly log: Logger
  readonly sealing: Sealing
  readonly router: Router
  readonly groupOf: (bit: number) => Promise<GroupSession>
  readonly serve: (resource: ServedResource) => void
  readonly commands: Commands
}

export class ResourceHost {
  readonly #options: ResourceHostOptions
  readonly #live = new Map<string, LiveResource>()
  #applied: Promise<void> = Promise.resolve()

  constructor(options: ResourceHostOptions) {
    this.#options = options
  }

  get resources(): Iterable<LiveResource> {
    return this.#live.values()
  }

  /** The group that may read a resource. */
  groupOf(path: string): GroupSession | undefined {
    return this.#live.get(path)?.group
  }

  /**
   * One configuration after the other: the last one counts, however long a sensor of an earlier one takes to stop.
   * @param loaded drivers that were loaded (and not started) before, by path
   */
  apply(resources: readonly ResourceSettings[], loaded: ReadonlyMap<string, Driver> = new Map()): Promise<void> {
    const turn = this.#applied.then(() => this.#apply(resources, loaded))
    this.#applied = turn.catch(() => undefined)
    return turn
  }

  async #apply(resources: readonly ResourceSettings[], loaded: ReadonlyMap<string, Driver>): Promise<void> {
    const wanted = new Map(resources.map((r) => [r.path, r]))
    for (const [path, live] of this.#live) {
      const next = wanted.get(path)
      if (next !== undefined && JSON.stringify(next) === JSON.stringify(live.settings)) continue
      this.#live.delete(path)
      this.#options.router.remove(path)
      this.#options.router.remove(`${path}/${PACK_SEGMENT}/:seq`)
      await live.sampler.stop()
    }
    const fresh: LiveResource[] = []
    for (const settings of resources) {
      if (this.#live.has(settings.path)) continue
      const driver = loaded.get(settings.path) ?? (await loadDriver(settings, this.#options.environment))
      const live = await this.#make(settings, driver)
      this.#live.set(settings.path, live)
      fresh.push(live)
    }
    // The slowest sensor holds up nobody: each reports when it can.
    for (const live of fresh) void live.sampler.start()
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#live.values()].map((live) => live.sampler.stop()))
  }

  async #make(settings: ResourceSettings, driver: Driver): Promise<LiveResource> {
    const { clock, time, log, sealing, groupOf, serve, commands } = this.#options
    const group = await groupOf(settings.group)
    const { path } = settings
    const description = driver.describe()
    const simulated = description.simulated === true
    const periodMs = periodOf(settings)
    const sampler = new Sampler({
      path,
      driver,
      periodMs,
      onChange: settings.on === 'change' || path.startsWith('/a/'),
      clock,
      time,
      log,
      onSamples: (samples: readonly Sample[]) => {
        const last = commands.last(path)
        const extra = last === undefined ? undefined : commandRecords(last)
        sealing.submit({ path, group, samples, simulated, extra })
      },
    })
    const live: LiveResource = { settings, driver, group, sampler }
    const periodSeconds = Math.max(1, Math.round((periodMs ?? DEFAULT_PERIOD_MS) / 1000))
    serve({ path, group, description, periodSeconds, command: await this.#command(live) })
    return live
  }

  /** POST and PUT of an actuator that somebody may command. */
  async #command(live: LiveResource): Promise<ServedResource['command']> {
    const { settings, driver, sampler } = live
    const bit = 'commandGroup' in settings ? settings.commandGroup : undefined
    if (bit === undefined || driver.write === undefined) return undefined
    const { commands, groupOf } = this.#options
    const group = await groupOf(bit)
    return async (request) => {
      if (request.contentFormat !== ContentFormat.coseSign1) {
        return problemReply(Code.unsupportedContentFormat, {
          detail: 'a command is a signed object, content-format 18',
        })
      }
      await commands.take(request.payload, settings.path, group, async (value) => driver.write?.(value))
      // The sender believes the sealed state, not this reply.
      await sampler.readNow()
      return { code: Code.changed }
    }
  }
}

/** Sampling period; undefined when only changes are reported. */
export function periodOf(settings: ResourceSettings): number | undefined {
  if (settings.every !== undefined) return settings.every
  return settings.on === 'change' ? undefined : DEFAULT_PERIOD_MS
}
