/** The running device: every part, started in the order in which they need each other and stopped the other way round. */
import { join } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'
import type { DaemonContext } from '../runtime/daemon.ts'
import { openLevelStore } from '../store/level.ts'
import type { Store } from '../store/store.ts'
import { CoapEndpoint } from '../transport/coap/endpoint.ts'
import type { Router } from '../transport/coap/server.ts'
import { bindUdp } from '../transport/coap/udp.ts'
import { dial } from '../transport/dial.ts'
import { Commands } from './commands.ts'
import { Credentials } from './credentials.ts'
import type { DeviceOptions } from './daemon.ts'
import { DeviceTime } from './device-time.ts'
import type { Driver } from './drivers/driver.ts'
import { forgetOrdered } from './forget.ts'
import { registerGauges } from './gauges.ts'
import { Groups } from './groups.ts'
import { hostClockIsRight } from './host-clock.ts'
import { type DeviceIdentity, daysLeft, withCertificate } from './identity.ts'
import { KeyServer } from './key-server.ts'
import { listenAddress } from './listen-address.ts'
import { machineId } from './machine-id.ts'
import { Packs } from './packs.ts'
import { PlainClients } from './plain-clients.ts'
import { Renewal } from './renewal.ts'
import { ResourceHost } from './resource-host.ts'
import { SealedStore } from './sealed-store.ts'
import { Sealing } from './sealing.ts'
import { Sequence } from './sequence.ts'
import { createRouter, packResource, readingResource } from './serve.ts'
import type { DeviceSettings } from './settings.ts'
import { Task } from './task.ts'
import { Uploader } from './uploader.ts'

export interface PartsOptions extends DeviceOptions {
  readonly settings: DeviceSettings
  readonly context: DaemonContext
  readonly identity: DeviceIdentity
  readonly drivers: ReadonlyMap<string, Driver>
}

export class Parts {
  readonly #options: PartsOptions
  /** What has been started, to be stopped in reverse. */
  readonly #stops: (() => Promise<void> | void)[] = []
  #endpoint: CoapEndpoint | undefined
  #host: ResourceHost | undefined
  #objects: SealedStore | undefined
  #groups: Groups | undefined
  #forget: Task | undefined

  constructor(options: PartsOptions) {
    this.#options = options
  }

  get address(): { readonly address: string; readonly port: number } | undefined {
    return this.#endpoint?.address
  }

  get groups(): Groups | undefined {
    return this.#groups
  }

  async start(): Promise<void> {
    const { settings, context, identity, drivers } = this.#options
    const { log, clock, metrics } = context
    const state = context.resolve(settings.state)
    const store = await openLevelStore(join(state, 'db'))
    this.#stops.push(() => store.close())
    const sequence = Sequence.open(join(state, 'sequence'), this.#options.machine ?? machineId())
    if (sequence.loss === 'damaged') log.warn('the sequence file is damaged: new Sender IDs are asked for')
    const always = settings.time.trust === 'always'
    const time = new DeviceTime({
      clock,
      log,
      latest: sequence.latest,
      hostClockIsRight: always
        ? async () => true
        : (this.#options.hostClockIsRight ?? ((now) => hostClockIsRight(now))),
    })
    await time.hostIsRight()
    this.#stops.push(() => sequence.noteTime(time.nowSeconds() ?? 0))

    const objects = await this.#openObjects(store)
    const credentials = new Credentials({ device: identity.device, log, store })
    let present = identity
    const keyServer = new KeyServer({
      uri: settings.keyserver,
      identity: () => present,
      time,
      log,
      dial: this.#options.dialKeyServer ?? dialKeyServer,
    })
    this.#stops.push(() => keyServer.close())
    const renewal = new Renewal({
      keyServer,
      identity: () => present,
      request: context.resolve(settings.identity.request),
      stateDirectory: state,
      log,
      nowSeconds: () => time.nowSeconds(),
      retry: settings.retry,
      onRenewed: (certificate) => {
        present = withCertificate(present, certificate)
        void keyServer.reconnect()
      },
    })
    this.#stops.push(() => renewal.stop())
    const clients = new PlainClients((uri) => dial(uri))
    this.#stops.push(() => clients.close())

    let router: Router | undefined
    const sealing = new Sealing({
      sequence,
      time,
      clock,
      log,
      capacity: settings.buffer.waiting,
      onSealed: (object, reading, plaintext) => {
        packs.note(object, reading.group, plaintext)
        void objects.add(object, { latest: true }).then(() => {
          router?.notify(object.path)
          uploader?.wake()
        })
      },
    })
    const packs = await Packs.load({
      store,
      log,
      capacity: settings.buffer.history,
      nowSeconds: () => time.nowSeconds(),
      seal: (...args) => sealing.sealNow(...args),
      onPack: (pack) => {
        void objects.add(pack, { latest: false }).then(() => uploader?.wake())
      },
    })
    const groups = new Groups({
      settings,
      identity,
      store,
      sequence,
      time,
      keyServer,
      credentials,
      clients,
      log,
      onSession: () => sealing.drain(),
    })
    this.#groups = groups
    const uploader = this.#uploader(objects, () => time.nowSeconds())
    router = createRouter({ groups: groups.sessions, objects, packs, credentials, log })

    const endpoint = await this.#bind(router)
    this.#endpoint = endpoint
    const commands = await Commands.open(
      {
        device: identity.device,
        store,
        credentials,
        log,
        nowSeconds: () => time.nowSeconds(),
        monotonicMs: () => clock.monotonicMs(),
        fetchCredentials: async (group) => groups.membership(group)?.fetchCredentials(),
      },
      settings.resources.map((r) => r.path).filter((path) => path.startsWith('/a/')),
    )
    const host = new ResourceHost({
      commands,
      environment: driverEnvironment(settings, context),
      clock,
      time,
      log,
      sealing,
      router,
      groupOf: (bit) => groups.of(bit),
      serve: (resource) => {
        router.add(readingResource(resource, { objects, packs })).add(packResource(resource.path, packs))
      },
    })
    this.#host = host
    this.#stops.push(() => sealing.stop())
    this.#stops.push(() => packs.stop())
    this.#stops.push(() => host.stop())
    await host.apply(settings.resources, drivers)
    for (const group of groups.sessions.values()) await credentials.load(group.kdcCred)
    this.#stops.push(() => groups.stop())
    const forget = new Task(
      { name: 'forget', log, initialMs: settings.retry.initial, maxMs: settings.retry.max },
      async () => {
        const left = await forgetOrdered({
          state,
          log,
          objects,
          packs,
          groupOf: (path) => host.groupOf(path),
          seal: (...args) => sealing.sealNow(...args),
          onSealed: () => uploader?.wake(),
        })
        return left ? settings.retry.max : undefined
      },
    )
    this.#forget = forget
    this.#stops.push(() => forget.stop())
    groups.start()
    renewal.start()
    forget.start()
    uploader?.start()

    registerGauges(metrics, {
      sealing,
      objects,
      uploader,
      commands,
      time,
      daysLeft: () => daysLeft(present, clock.nowMs() / 1000),
    })
    log.info({ device: identity.address, listen: endpoint.address, resources: settings.resources.length }, 'serving')
  }

  /** Takes the resources of a new configuration, and looks for orders to forget. */
  async apply(settings: DeviceSettings): Promise<void> {
    await this.#host?.apply(settings.resources)
    this.#forget?.kick()
  }

  health(): void {
    for (const { sampler, settings } of this.#host?.resources ?? []) {
      if (!sampler.isAlive())
        throw new IotchainError('device/stuck', `the sensor of ${settings.path} has not been read for too long`)
    }
    if (this.#objects?.hangs() === true) throw new IotchainError('device/store', 'a write to the store does not end')
  }

  async stop(): Promise<void> {
    const { log } = this.#options.context
    for (const stop of this.#stops.splice(0).reverse()) {
      try {
        await stop()
      } catch (error) {
        log.warn({ err: error }, 'a part did not stop cleanly')
      }
    }
  }

  async #openObjects(store: Store): Promise<SealedStore> {
    const { settings, context } = this.#options
    const objects = await SealedStore.open({
      store,
      log: context.log,
      strict: settings.buffer.durability === 'strict',
      queueCapacity: settings.device.proxy === undefined ? 0 : settings.buffer.objects,
    })
    this.#objects = objects
    this.#stops.push(() => objects.close())
    return objects
  }

  #uploader(objects: SealedStore, nowSeconds: () => number | undefined): Uploader | undefined {
    const { settings, context, identity } = this.#options
    const proxy = settings.device.proxy
    if (proxy === undefined) return undefined
    const { log } = context
    const uploader = new Uploader({
      address: identity.address,
      objects,
      log,
      dial: () => dial(proxy),
      nowSeconds,
      retry: settings.retry,
    })
    this.#stops.push(() => uploader.stop())
    return uploader
  }

  async #bind(router: Router): Promise<CoapEndpoint> {
    const { settings, context } = this.#options
    const { log } = context
    const { multicast, listen } = settings.device
    const onFailure = (err: Error): void => log.warn({ err }, 'no multicast here')
    const transport = await bindUdp({
      ...listenAddress(listen),
      multicast: multicast === 'off' ? undefined : { interfaces: multicast, onFailure },
    })
    if (transport.groups.length > 0) log.info({ groups: transport.groups }, 'can be discovered')
    const endpoint = new CoapEndpoint(transport, {
      router,
      onEvent: (event) => log.debug({ event }, 'coap'),
    })
    this.#stops.push(() => endpoint.close())
    return endpoint
  }
}

export function driverEnvironment(settings: DeviceSettings, context: DaemonContext) {
  return {
    sysfsRoot: settings.sysfsRoot,
    stateDirectory: join(context.resolve(settings.state), 'counters'),
    log: context.log,
    monotonicMs: () => context.clock.monotonicMs(),
    gpio: settings.gpio,
  }
}

function dialKeyServer(uri: string, identity: DeviceIdentity) {
  return dial(uri, { secure: { cert: identity.certificate, key: identity.key, ca: identity.ca } })
}
