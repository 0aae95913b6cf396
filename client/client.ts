/**
 * The client as a library: join groups, keep their keys, read and watch resources from devices and proxies.
 *
 * @example
 * const client = new IotClient({ chain, clock: systemClock, state: new ClientState(store) })
 * await client.join({ signer, keyServer, device, bit: 0 })
 * const reading = await client.read({ connection: await dial('coap://proxy'), via: 'proxy', device, path: ['s', 'temp'] })
 */
import { suite } from '#crypto'
import { equalBytes } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { gidOf } from '../protocol/groups/gid.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { parseHeader } from '../protocol/objects/parse.ts'
import { Connections } from './connections.ts'
import { EpochRefresh } from './epoch-refresh.ts'
import { describe, fetchObject, type ObjectPlace } from './fetch.ts'
import { type GroupSource, GroupView, Membership } from './group.ts'
import { type ChainIdentity, type KeyServerAddress, KeyServerSession } from './keyserver-session.ts'
import { type OpenerOptions, type Reading, ReadingOpener } from './open.ts'
import type { ClientSigner } from './signer.ts'
import { coapSource, deviceSource } from './sources.ts'
import type { ClientState, MembershipRecord } from './state.ts'
import { Watch, type WatchCallbacks, type WatchOptions } from './watch.ts'

export interface IotClientOptions {
  readonly chain: ChainIdentity
  readonly clock: Clock
  readonly state: ClientState
  readonly registry?: OpenerOptions['registry']
  readonly allowStale?: boolean | undefined
  readonly connections?: Connections | undefined
  /** Ask the key server for broadcasts and credentials when they are missing (default). Tests that lose them say no. */
  readonly autoFetch?: boolean | undefined
  /** Asked for broadcasts before the others: a neighbour, a file. */
  readonly extraSources?: readonly GroupSource[] | undefined
}

export interface JoinOptions {
  readonly signer: ClientSigner
  readonly keyServer: KeyServerAddress
  readonly device: Address
  readonly bit: number
  /** 32-octet Ed25519 seed of the key that signs commands; absent: to read only. */
  readonly commandSeed?: Uint8Array | undefined
  readonly signal?: AbortSignal | undefined
}

export class IotClient {
  readonly connections: Connections
  readonly #options: IotClientOptions
  readonly #opener: ReadingOpener
  readonly #views = new Map<string, GroupView>()
  readonly #records = new Map<string, MembershipRecord>()
  readonly #signers = new Map<Address, ClientSigner>()
  readonly #epochs: EpochRefresh
  #saving: Promise<void> = Promise.resolve()

  constructor(options: IotClientOptions) {
    this.#options = options
    this.connections = options.connections ?? new Connections()
    this.#epochs = new EpochRefresh({ clock: options.clock, fetch: (m) => this.#refresh(m) })
    this.#opener = new ReadingOpener({
      clock: options.clock,
      seen: options.state,
      groupOf: (gid, device) => this.#groupOf(gid, device),
      registry: options.registry,
      allowStale: options.allowStale,
    })
  }

  gid(device: Address, bit: number): Uint8Array {
    const { chainId, registry } = this.#options.chain
    return gidOf(suite, { chainId, registry: addressBytes(registry), device: addressBytes(device), bit })
  }

  /** Takes up the memberships of an address that an earlier run kept. */
  async load(client: Address): Promise<Membership[]> {
    const { chainId, registry } = this.#options.chain
    const records = await this.#options.state.memberships(client)
    return records
      .filter((r) => r.chainId === chainId && r.registry === registry && !this.#newerHeld(r))
      .map((record) => {
        const membership = new Membership({
          ...record,
          clock: this.#options.clock,
          state: record.member,
          sources: this.#sources(record.broadcasts),
        })
        membership.addCredentials(record.credentials)
        return this.#adopt(membership, record)
      })
  }

  /**
   * Proves the address to the key server and becomes a member (or takes the same keys again).
   * @throws `client/no-token`, `client/confirmations` with retryAfterSeconds, `client/unavailable`, `dtls/…`
   */
  async join(options: JoinOptions): Promise<Membership> {
    const { clock, chain } = this.#options
    const session = await KeyServerSession.open(options.keyServer, chain, { clock, signal: options.signal })
    try {
      return await this.joinOn(session, options)
    } finally {
      await session.close()
    }
  }

  /** As `join`, on an association that is open already. */
  async joinOn(session: KeyServerSession, options: JoinOptions): Promise<Membership> {
    const { clock, chain } = this.#options
    const { signer, keyServer, device, bit, commandSeed } = options
    const gid = this.gid(device, bit)
    const commandKey = commandSeed === undefined ? {} : { commandKey: suite.ed25519.signing(commandSeed).publicKey }
    const response = await session.join({ signer, device, gid, bit, ...commandKey })
    const known = this.#views.get(viewKey(gid))
    const state =
      known instanceof Membership && known.client === signer.address
        ? known.state()
        : (await this.#options.state.membership(signer.address, gid))?.member
    const sources = this.#sources(response.controlGroupUri)
    const membership = Membership.fromJoin(
      { gid, device, bit, client: signer.address, clock, sources, state },
      response,
    )
    this.#signers.set(signer.address, signer)
    const record: MembershipRecord = {
      version: 1,
      client: signer.address,
      device,
      bit,
      gid,
      chainId: chain.chainId,
      registry: chain.registry,
      keyServer: { uri: keyServer.uri, spki: keyServer.spki },
      kdcCred: response.kdcCred,
      broadcasts: response.controlGroupUri,
      policies: response.policies,
      credentials: response.creds,
      member: membership.state(),
      senderId: response.senderId,
      commandSeed,
      joinedAt: Math.floor(clock.nowMs() / 1000),
    }
    await this.#options.state.saveMembership(record)
    return this.#adopt(membership, record)
  }

  /** What a stranger may know of a group: enough to verify its objects, not to open them. */
  async view(options: {
    keyServer: KeyServerAddress
    device: Address
    bit: number
    broadcasts?: string
  }): Promise<GroupView> {
    const { clock, chain } = this.#options
    const { device, bit } = options
    const gid = this.gid(device, bit)
    const session = await KeyServerSession.open(options.keyServer, chain, { clock })
    try {
      const sources = options.broadcasts === undefined ? [] : this.#sources(options.broadcasts)
      const view = new GroupView({ gid, device, bit, clock, kdcCred: await session.kdcCred(gid), sources })
      view.addCredentials(await session.credentials(gid))
      this.#views.set(viewKey(gid), view)
      return view
    } finally {
      await session.close()
    }
  }

  /** Of two addresses that are members of one group the one that joined later counts. */
  #newerHeld(record: MembershipRecord): boolean {
    const held = this.#records.get(viewKey(record.gid))
    return held !== undefined && held.joinedAt > record.joinedAt
  }

  group(device: Address, bit: number): GroupView | undefined {
    return this.#views.get(viewKey(this.gid(device, bit)))
  }

  groups(): IterableIterator<GroupView> {
    return this.#views.values()
  }

  /** A personal key of the present epoch is fetched with this signer when it is needed. */
  useSigner(signer: ClientSigner): void {
    this.#signers.set(signer.address, signer)
  }

  /**
   * The latest reading of a resource.
   * @throws whatever open.ts refuses, `client/not-found`, `coap/timeout` …
   */
  async read(place: ObjectPlace, options: { form?: 'signed' | 'mac'; signal?: AbortSignal } = {}): Promise<Reading> {
    const form = options.form ?? 'signed'
    if (form === 'mac' && place.via === 'proxy') {
      throw new IotchainError('client/wrong-form', 'proxies have signed objects only', {
        hint: 'read from the device to get a mac-object',
      })
    }
    this.useAsSource(place)
    const bytes = await fetchObject(place, { form, signal: options.signal })
    if (bytes === undefined)
      throw new IotchainError('client/refused', `${describe(place)} was answered without content`)
    return this.#opener.open(bytes, { device: place.device, path: place.path, form })
  }

  watch(place: ObjectPlace, callbacks: WatchCallbacks, options: WatchOptions = {}): Watch {
    this.useAsSource(place)
    return new Watch(this.#opener, place, callbacks, options)
  }

  /** Opens octets that came by any other way. */
  open(bytes: Uint8Array, asked: Parameters<ReadingOpener['open']>[1]): Promise<Reading> {
    return this.#opener.open(bytes, asked)
  }

  /**
   * Opens an object of the past. A session that the newest broadcast does not heal any more is looked up in the archive.
   */
  async openPast(bytes: Uint8Array, asked: Parameters<ReadingOpener['open']>[1]): Promise<Reading> {
    try {
      return await this.#opener.open(bytes, asked)
    } catch (error) {
      if (!isIotchainError(error) || error.code !== 'object/no-access') throw error
      const { gid, session } = parseHeader(bytes)
      const group = this.#groupOf(gid, asked.device)
      if (!(group instanceof Membership) || !(await group.fetchArchived(session))) throw error
      return this.#opener.open(bytes, asked)
    }
  }

  /** Waits for what is being kept, then closes connections. The state's store stays with its owner. */
  async close(): Promise<void> {
    this.#epochs.close()
    await this.connections.close()
    await this.#saving
  }

  /** The place that is read from is asked for broadcasts and credentials too. */
  useAsSource(place: ObjectPlace): void {
    if (this.#options.autoFetch === false) return
    const name = `${place.connection.peer.address}:${place.connection.peer.port}`
    const connect = () => Promise.resolve(place.connection)
    for (const view of this.#views.values()) {
      if (view.device !== place.device || view.sources.some((s) => s.name === name)) continue
      const source = place.via === 'proxy' ? coapSource(name, connect) : deviceSource(name, connect)
      view.sources = [...view.sources, source]
    }
  }

  #groupOf(gid: Uint8Array, device: Address): GroupView | undefined {
    const view = this.#views.get(viewKey(gid))
    return view !== undefined && view.device === device && equalBytes(view.gid, gid) ? view : undefined
  }

  #sources(broadcastsUri: string): GroupSource[] {
    if (this.#options.autoFetch === false) return []
    return [...(this.#options.extraSources ?? []), coapSource('key server', () => this.connections.to(broadcastsUri))]
  }

  #adopt(membership: Membership, record: MembershipRecord): Membership {
    const before = this.#views.get(viewKey(membership.gid))
    if (before instanceof Membership) this.#epochs.drop(before)
    this.#views.set(viewKey(membership.gid), membership)
    this.#records.set(viewKey(membership.gid), record)
    membership.onUnknownEpoch = (m) => this.#refresh(m)
    membership.onChange = (m) => this.#save(m)
    if (this.#options.autoFetch !== false) this.#epochs.follow(membership)
    return membership
  }

  /** A personal key for a later epoch: joining again uses nothing up, and the node resource has the next one too. */
  async #refresh(membership: Membership): Promise<void> {
    const record = this.#records.get(viewKey(membership.gid))
    const signer = this.#signers.get(membership.client)
    if (record === undefined || signer === undefined) {
      throw new IotchainError(
        'client/needs-key',
        'the personal key of a new epoch is needed, and the wallet is not open',
        {
          hint: 'run the command again with the key of this membership',
        },
      )
    }
    const { clock, chain } = this.#options
    const session = await KeyServerSession.open(record.keyServer, chain, { clock })
    try {
      const { device, bit, gid } = membership
      const response = await session.join({ signer, device, gid, bit })
      membership.addPersonal(response.personalKey)
      membership.addKeys(response.keys)
      membership.addCredentials(response.creds)
      const { nextPersonalKey } = await session.nodeKeys({ signer, gid })
      if (nextPersonalKey !== undefined) membership.addPersonal(nextPersonalKey)
    } finally {
      await session.close()
    }
    this.#save(membership)
  }

  #save(membership: Membership): void {
    const key = viewKey(membership.gid)
    const record = this.#records.get(key)
    if (record === undefined) return
    const current: MembershipRecord = {
      ...record,
      member: membership.state(),
      credentials: membership.credentials.credentials.slice(0, 256).map((c) => c.bytes),
    }
    this.#records.set(key, current)
    this.#saving = this.#saving.then(() => this.#options.state.saveMembership(current)).catch(() => undefined)
  }
}

function viewKey(gid: Uint8Array): string {
  return Buffer.from(gid).toString('hex')
}
