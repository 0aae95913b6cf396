/** Wires the proxy: store → key servers and credentials → admission → CoAP and HTTP. */
import type { Clock } from '../protocol/clock.ts'
import { gname } from '../protocol/groups/gid.ts'
import type { Logger } from '../runtime/log.ts'
import type { Metrics } from '../runtime/metrics.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store } from '../store/store.ts'
import { CoapEndpoint } from '../transport/coap/endpoint.ts'
import type { Router } from '../transport/coap/router.ts'
import { bindUdp } from '../transport/coap/udp.ts'
import { Admission } from './admission.ts'
import { ObjectArchive } from './archive.ts'
import { BroadcastMirror } from './broadcasts.ts'
import { Changes } from './changes.ts'
import type { ProxyConfig } from './config.ts'
import { GroupCredentials } from './credentials.ts'
import { ResourceDirectory, type StoredRegistration } from './directory.ts'
import { Forwarder } from './forward.ts'
import { HttpGateway } from './http.ts'
import { type KeyServer, KeyServers } from './key-servers.ts'
import { parseListen } from './listen.ts'
import { RateLimit } from './rate-limit.ts'
import { Readable } from './readable.ts'
import { createRouter, ERROR_CODES } from './routes.ts'

export interface ProxyParts {
  readonly log: Logger
  readonly metrics?: Metrics | undefined
  readonly clock: Clock
  readonly store: Store
  readonly keyServers: readonly KeyServer[]
}

const MAINTAIN_MS = 60_000

/** The proxy without its process: what the daemon and the tests start and stop. */
export class ObjectProxy {
  readonly archive: ObjectArchive
  readonly credentials: GroupCredentials
  readonly broadcasts: BroadcastMirror
  readonly readable: Readable
  readonly router: Router
  readonly changes = new Changes()
  readonly #config: ProxyConfig
  readonly #parts: ProxyParts
  readonly #keyServers: KeyServers
  readonly #directory: ResourceDirectory | undefined
  readonly #forwarder: Forwarder | undefined
  #endpoint: CoapEndpoint | undefined
  #http: HttpGateway | undefined
  #maintenance: NodeJS.Timeout | undefined

  private constructor(config: ProxyConfig, parts: ProxyParts, archive: ObjectArchive, keyServers: KeyServers) {
    const { clock, log, store } = parts
    this.#config = config
    this.#parts = parts
    this.#keyServers = keyServers
    this.archive = archive
    this.credentials = new GroupCredentials({ keyServers, store, clock, log, refetchMs: config.credentials.refetch })
    this.broadcasts = new BroadcastMirror({
      keyServers,
      store,
      clock,
      log,
      maxGroups: config.broadcasts.groups,
      archive: config.broadcasts.archive,
      onChange: (gid) => this.changes.publish(`/bc/${gname(gid)}`),
      isWatched: (gid) => this.changes.has(`/bc/${gname(gid)}`),
    })
    const admission = new Admission({
      archive,
      credentials: this.credentials,
      clock,
      log,
      maxSkewSeconds: config.accept.maxSkew / 1000,
      maxObjectOctets: config.accept.objectBytes,
      rate: new RateLimit({
        clock,
        perSecond: config.accept.putsPerSecond,
        burst: config.accept.putBurst,
        what: 'objects of this device',
      }),
      historyKeepSeconds: config.history.keep / 1000,
      onChange: (target) => this.changes.publish(`/d/${target.device}${target.resource}`),
    })
    this.readable = new Readable({ archive, broadcasts: this.broadcasts, credentials: this.credentials, clock })
    this.#directory = config.directory.enabled
      ? new ResourceDirectory({
          limit: config.directory.endpoints,
          clock,
          onChange: (id, registration) => keepRegistration(store, log, id, registration),
        })
      : undefined
    this.#forwarder =
      config.forward.allow.length === 0 ? undefined : new Forwarder({ allow: config.forward.allow, clock })
    this.router = createRouter({
      admission,
      readable: this.readable,
      directory: this.#directory,
      maxObjectOctets: config.accept.objectBytes,
      forward: this.#forwarder?.handle,
    })
    this.changes.subscribeToAll((path) => this.router.notify(path))
  }

  /** Reads what is stored; opens no socket. */
  static async load(config: ProxyConfig, parts: ProxyParts): Promise<ObjectProxy> {
    const { store, clock, log } = parts
    const archive = await ObjectArchive.open(store, {
      devices: config.accept.devices,
      resourcesPerDevice: config.accept.resourcesPerDevice,
      historyBytesPerDevice: config.history.bytesPerDevice,
      historyKeepSeconds: config.history.keep / 1000,
    })
    const keyServers = new KeyServers({
      servers: parts.keyServers,
      store,
      clock,
      log,
      unknownPerMinute: config.credentials.unknownPerMinute,
    })
    await keyServers.load()
    const proxy = new ObjectProxy(config, parts, archive, keyServers)
    await proxy.credentials.load()
    const kept: StoredRegistration[] = []
    for await (const [, value] of store.range(prefixRange('rd '))) kept.push(decodeRecord<StoredRegistration>(value))
    proxy.#directory?.restore(kept)
    return proxy
  }

  /** Port of the CoAP socket. */
  get coapPort(): number {
    return this.#endpoint?.address.port ?? 0
  }

  get httpPort(): number | undefined {
    return this.#http?.port
  }

  async start(): Promise<void> {
    const { coap, http } = this.#config
    const { log } = this.#parts
    const onFailure = (err: Error): void => log.warn({ err }, 'no multicast here')
    const transport = await bindUdp({
      host: coap.host,
      port: coap.port,
      recvBufferSize: coap.receiveBufferBytes,
      multicast: coap.multicast === 'off' ? undefined : { interfaces: coap.multicast, onFailure },
    })
    if (transport.groups.length > 0) log.info({ groups: transport.groups }, 'can be discovered')
    this.#endpoint = new CoapEndpoint(transport, {
      router: this.router,
      trustedPrefixes: coap.trustedPrefixes,
    })
    if (http.listen !== 'off') {
      const { host, port } = parseListen(http.listen)
      this.#http = new HttpGateway({
        host,
        port,
        origins: http.origins,
        maxStreams: http.maxStreams,
        lookup: (path, query) => this.readable.read(path, query),
        changes: this.changes,
        log,
        errorCodes: ERROR_CODES,
      })
      await this.#http.start()
    }
    this.#maintenance = setInterval(() => void this.maintain(), MAINTAIN_MS)
    this.#maintenance.unref()
    this.#gauges()
    log.info({ coap: this.coapPort, http: this.httpPort, devices: this.archive.deviceCount }, 'listening')
  }

  /** Forgets what is too old, fetches what is about to expire. Never throws. */
  async maintain(): Promise<void> {
    const { log, clock } = this.#parts
    try {
      this.broadcasts.maintain()
      this.#directory?.expire()
      this.#forwarder?.maintain()
      await this.credentials.maintain()
      await this.archive.expire(clock.nowMs() / 1000)
    } catch (error) {
      log.limited('maintain', 'error', { err: error }, 'the upkeep failed; it is tried again')
    }
  }

  async stop(): Promise<void> {
    clearInterval(this.#maintenance)
    this.broadcasts.stop()
    this.#forwarder?.stop()
    await this.#http?.stop()
    await this.#endpoint?.close()
    await this.archive.idle()
    await this.#keyServers.close()
  }

  #gauges(): void {
    const { metrics } = this.#parts
    metrics?.gauge('iotchain_proxy_devices', 'Devices with stored objects.', () => this.archive.deviceCount)
    metrics?.gauge('iotchain_proxy_groups', 'Groups whose broadcasts are mirrored.', () => this.broadcasts.groupCount)
    metrics?.gauge('iotchain_proxy_streams', 'Open HTTP event streams.', () => this.#http?.streams ?? 0)
    metrics?.gauge(
      'iotchain_proxy_registrations',
      'Entries of the resource directory.',
      () => this.#directory?.size ?? 0,
    )
  }
}

/** A lost registration comes again by itself: it is not worth waiting for the disk. */
function keepRegistration(store: Store, log: Logger, id: string, registration: StoredRegistration | undefined): void {
  const key = `rd ${id}`
  store
    .batch([
      registration === undefined ? { type: 'del', key } : { type: 'put', key, value: encodeRecord(registration) },
    ])
    .catch((error: unknown) => log.limited('rd', 'warn', { err: error }, 'a registration could not be kept'))
}
