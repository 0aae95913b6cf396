/** The groups of this device: for each, its keys, its membership and the watch over its broadcasts. */
import { suite } from '#crypto'
import { gidOf } from '../protocol/groups/gid.ts'
import { addressBytes } from '../protocol/messages/address.ts'
import type { Logger } from '../runtime/log.ts'
import type { Store } from '../store/store.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { askNeighbours } from '../transport/coap/neighbourhood.ts'
import { isLoopback } from '../transport/coap/source-prefix.ts'
import { BroadcastWatcher, type BroadcastWatcherOptions } from './broadcasts.ts'
import type { Credentials } from './credentials.ts'
import type { DeviceTime } from './device-time.ts'
import { FalseBroadcasts } from './false-broadcasts.ts'
import { GroupSession } from './group-session.ts'
import type { DeviceIdentity } from './identity.ts'
import type { KeyServer } from './key-server.ts'
import { listenAddress } from './listen-address.ts'
import { Membership } from './membership.ts'
import type { PlainClients } from './plain-clients.ts'
import type { Sequence } from './sequence.ts'
import type { DeviceSettings } from './settings.ts'

export interface GroupsOptions {
  readonly settings: DeviceSettings
  readonly identity: DeviceIdentity
  readonly store: Store
  readonly sequence: Sequence
  readonly time: DeviceTime
  readonly keyServer: KeyServer
  readonly credentials: Credentials
  readonly clients: PlainClients
  readonly log: Logger
  /** A session can be sealed under that could not be before. */
  readonly onSession: (group: GroupSession) => void
}

interface Part {
  readonly session: GroupSession
  readonly membership: Membership
  readonly watcher: BroadcastWatcher
}

export class Groups {
  readonly #options: GroupsOptions
  readonly #parts = new Map<number, Part>()
  readonly #byName = new Map<string, GroupSession>()
  readonly #falseBroadcasts = new FalseBroadcasts(() => performance.now())
  #started = false

  constructor(options: GroupsOptions) {
    this.#options = options
  }

  /** By group name. */
  get sessions(): ReadonlyMap<string, GroupSession> {
    return this.#byName
  }

  /** The group of a claims bit, loaded from the store when it is new here. */
  async of(bit: number): Promise<GroupSession> {
    const held = this.#parts.get(bit)
    if (held !== undefined) return held.session
    const part = await this.#load(bit)
    this.#parts.set(bit, part)
    this.#byName.set(part.session.gname, part.session)
    if (this.#started) startPart(part)
    return part.session
  }

  membership(group: GroupSession): Membership | undefined {
    return this.#parts.get(group.bit)?.membership
  }

  /** Faults that last, for doctor and health: group name → error. */
  faults(): ReadonlyMap<string, unknown> {
    const found = new Map<string, unknown>()
    for (const { session, membership, watcher } of this.#parts.values()) {
      const error = membership.lastError ?? watcher.lastError
      if (error !== undefined) found.set(session.gname, error)
    }
    return found
  }

  start(): void {
    this.#started = true
    for (const part of this.#parts.values()) startPart(part)
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#parts.values()].flatMap((p) => [p.membership.stop(), p.watcher.stop()]))
  }

  async #load(bit: number): Promise<Part> {
    const { settings, identity, store, sequence, time, keyServer, credentials, clients, log, onSession } = this.#options
    const chain = { chainId: settings.chain.id, registry: addressBytes(settings.chain.registry) }
    const gid = gidOf(suite, { ...chain, device: identity.device, bit })
    const { device, signingKey } = identity
    const session = await GroupSession.load({
      gid,
      bit,
      device,
      signingKey,
      store,
      sequence,
      time,
      falseBroadcasts: this.#falseBroadcasts,
      log,
    })
    const nowSeconds = (): number | undefined => time.nowSeconds()
    const watcher = new BroadcastWatcher({
      group: session,
      log,
      client: (uri) => clients.get(uri),
      forget: (uri) => clients.forget(uri),
      mirrors: settings.device.proxy === undefined ? [] : [settings.device.proxy.replace(/\/$/, '')],
      neighbours: neighbours(settings),
      nowSeconds,
      retry: settings.retry,
    })
    const membership = new Membership({
      group: session,
      keyServer,
      sequence,
      credentials,
      log,
      nowSeconds,
      hostClockIsRight: () => time.hostIsRight(),
      needsTime: () => time.needsAnchor(),
      retry: settings.retry,
      onJoined: () => {
        watcher.kick()
        onSession(session)
      },
    })
    session.onSession = () => onSession(session)
    session.onGap = (reason) => membership.gap(reason)
    return { session, membership, watcher }
  }
}

/** Whoever is on the interfaces that the device may use for multicast. */
function neighbours({ device }: DeviceSettings): BroadcastWatcherOptions['neighbours'] {
  const { multicast } = device
  if (multicast === 'off' || isLoopback(listenAddress(device.listen).host)) return undefined
  return (path, onResponse, signal) =>
    askNeighbours({ interfaces: multicast, path, accept: ContentFormat.coseSign1, onResponse, signal })
}

function startPart({ membership, watcher }: Part): void {
  membership.start()
  watcher.start()
}
