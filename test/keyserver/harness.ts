/** A key server without sockets: requests go straight to its resources, over associations that tests make up. */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { secp256k1 } from '@noble/curves/secp256k1.js'
import { keccak_256 } from '@noble/hashes/sha3.js'
import { suite } from '#crypto'
import { type KeyServerConfig, keyServerSchema } from '../../keyserver/config.ts'
import type { ServerIdentity } from '../../keyserver/identity.ts'
import { KeyServer } from '../../keyserver/service.ts'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { coseKeyEd25519, thumbprint } from '../../protocol/cose/key.ts'
import type { SigningKey } from '../../protocol/crypto/suite.ts'
import { gidOf, gname } from '../../protocol/groups/gid.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import type { GroupMember } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { type Address, addressBytes, addressHex } from '../../protocol/messages/address.ts'
import { decodeChallenge, encodeAuthzRequest } from '../../protocol/messages/authz.ts'
import { claimsOfBits } from '../../protocol/messages/claims.ts'
import {
  decodeJoinResponse,
  encodeJoinRequest,
  type JoinResponse,
  joinProofInput,
} from '../../protocol/messages/join.ts'
import { type KeyRequest, keyRequestDigest, NO_SIGN_KEY } from '../../protocol/messages/key-request.ts'
import { type Logger, silentLogger } from '../../runtime/log.ts'
import { createMetrics } from '../../runtime/metrics.ts'
import { createCa, issueDeviceCertificate } from '../../runtime/pki/authority.ts'
import { generateKeyPair } from '../../runtime/pki/keys.ts'
import { createCsr } from '../../runtime/pki/request.ts'
import { openLevelStore } from '../../store/level.ts'
import { openMemoryStore } from '../../store/memory.ts'
import type { Store } from '../../store/store.ts'
import { codeText } from '../../transport/coap/codes.ts'
import { errorReply } from '../../transport/coap/error-codes.ts'
import { OptionSet } from '../../transport/coap/option-set.ts'
import { decodeProblem } from '../../transport/coap/problem-details.ts'
import type { Router } from '../../transport/coap/router.ts'
import type { CoapReply, CoapRequest } from '../../transport/coap/server.ts'
import type { Peer, SecureFacts } from '../../transport/coap/transport.ts'
import { FakeChain } from './fake-chain.ts'
import { TestClock } from './test-clock.ts'

export const OWNER: Address = `0x${'0a'.repeat(20)}`
export const CONTRACT: Address = `0x${'c0'.repeat(20)}`

const broadcastKey = suite.ed25519.signing(new Uint8Array(32).fill(9))
const identity: ServerIdentity = {
  certificate: '',
  key: '',
  spki: new Uint8Array(32).fill(0xa1),
  names: [],
  signingKey: broadcastKey,
  kdcCred: coseKeyEd25519(broadcastKey.publicKey),
  issuer: 'urn:iotchain:keyserver:a1a1a1a1a1a1a1a1',
}

export interface Reply extends CoapReply {
  readonly text: string
  /** title of the problem details, where there are any */
  readonly problem: string | undefined
  readonly detail: string | undefined
}

export interface World {
  readonly clock: TestClock
  readonly chain: FakeChain
  readonly config: KeyServerConfig
  readonly folder: string
  server: KeyServer
  /** Stops and starts the key server over the same store. */
  restart(): Promise<void>
  close(): Promise<void>
}

export interface WorldOptions {
  readonly config?: Record<string, unknown>
  /** Keeps the store on disk. */
  readonly onDisk?: boolean
  /** A store that is there already; kept open by `close`. */
  readonly store?: Store
  /** A folder that is there already; kept by `close`. */
  readonly folder?: string
  readonly clock?: TestClock
  readonly chain?: (clock: TestClock) => FakeChain
  /** Told of each broadcast that leaves, also while the store is being taken up. */
  readonly onbroadcast?: KeyServer['onbroadcast']
  readonly wrapStore?: (store: Store) => Store
  readonly candidates?: ConstructorParameters<typeof KeyServer>[0]['candidates']
  readonly readAllBelow?: number
  readonly log?: Logger
  readonly relay?: ConstructorParameters<typeof KeyServer>[0]['relay']
  readonly enrolment?: ConstructorParameters<typeof KeyServer>[0]['enrolment']
  readonly onRevoked?: (devices: ReadonlySet<Address>) => void
  readonly revokedBySelf?: ConstructorParameters<typeof KeyServer>[0]['revokedBySelf']
}

export async function createWorld(options: WorldOptions = {}): Promise<World> {
  const clock = options.clock ?? new TestClock()
  const chain = options.chain?.(clock) ?? new FakeChain(clock)
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'iotchain-keyserver-'))
  const base = {
    state: folder,
    keys: { certificate: 'x', key: 'x', broadcast: 'x' },
    issuers: ['x'],
    owners: [OWNER],
    chain: { rpcUrl: 'http://127.0.0.1:1', id: chain.chainId, registry: chain.registry, confirmations: 3 },
    sessions: { length: '60s', minimum: '10s', lead: '10s', epoch: '1h', refreshLead: '5m', window: '0s' },
  }
  const config = keyServerSchema.parse({ ...base, ...options.config })
  const open = async (): Promise<Store> => {
    if (options.store !== undefined) return options.store
    const store = options.onDisk === true ? await openLevelStore(join(folder, 'store')) : openMemoryStore()
    return options.wrapStore?.(store) ?? store
  }
  let store = await open()
  const make = (): KeyServer => {
    const server = new KeyServer({
      config,
      suite,
      store,
      folder,
      enrolment: options.enrolment,
      relay: options.relay,
      onRevoked: options.onRevoked,
      chain,
      identity,
      clock,
      log: options.log ?? silentLogger,
      metrics: createMetrics(),
      publicUri: () => 'coap://[::1]:5683',
      candidates: options.candidates,
      readAllBelow: options.readAllBelow,
      revokedBySelf: options.revokedBySelf,
    })
    server.onbroadcast = options.onbroadcast
    return server
  }
  const world: World = {
    clock,
    chain,
    config,
    folder,
    server: make(),
    async restart() {
      await world.server.stop()
      if (options.onDisk === true) {
        await store.close()
        store = await open()
      }
      world.server = make()
      await world.server.load()
    },
    async close() {
      await world.server.stop()
      if (options.store === undefined) await store.close()
      if (options.folder === undefined) rmSync(folder, { recursive: true, force: true })
    },
  }
  await world.server.load()
  return world
}

let associations = 0

/** An association: what DTLS would say about it. */
export function association(facts: Partial<SecureFacts> = {}): Peer {
  const key = `dtls|${++associations}`
  const binding = suite.sha256(new TextEncoder().encode(key))
  return {
    key,
    address: '::1',
    port: 50_000,
    secure: {
      channelBinding: () => binding,
      certificate: undefined,
      authorized: false,
      pskIdentity: undefined,
      ...facts,
    },
  }
}

export const plainPeer: Peer = { key: '::1|50000', address: '::1', port: 50_000 }

/** One request to a router, as the engine would hand it over. */
export async function call(
  router: Router,
  peer: Peer,
  method: CoapRequest['method'],
  uri: string,
  payload: Uint8Array = new Uint8Array(0),
): Promise<Reply> {
  const [pathText = '', queryText] = uri.split('?')
  const path = pathText.split('/').slice(1)
  const found = router.find(path)
  const handler = found?.resource[method.toLowerCase() as 'get']
  let reply: CoapReply
  try {
    if (found === undefined || handler === undefined) throw new Error(`no ${method} ${uri}`)
    reply = await handler({
      method,
      path,
      pathText,
      query: queryText === undefined ? [] : queryText.split('&'),
      payload,
      contentFormat: undefined,
      accept: undefined,
      etags: [],
      ifMatch: [],
      ifNoneMatch: false,
      observe: undefined,
      params: found.params,
      peer,
      options: new OptionSet([]),
      confirmable: true,
      multicast: false,
      verified: true,
      notification: false,
    })
  } catch (error) {
    reply = errorReply(error, router.options.errorCodes)
    if (reply.code === 0xa0) throw error
  }
  const problem = reply.contentFormat === 257 ? decodeProblem(reply.payload as Uint8Array) : undefined
  return { ...reply, text: codeText(reply.code), problem: problem?.title, detail: problem?.detail }
}

/** A device with its keys, certificate and registry entry. */
export class TestDevice {
  readonly world: World
  readonly seed: Uint8Array
  readonly address: Address
  readonly octets: Uint8Array
  readonly signing: SigningKey
  readonly coseKey: Uint8Array
  peer: Peer

  private constructor(world: World, number: number, peer: Peer) {
    this.world = world
    this.seed = new Uint8Array(32).fill(number)
    this.address = addressOf(this.seed)
    this.octets = addressBytes(this.address)
    this.signing = suite.ed25519.signing(new Uint8Array(32).fill(100 + number))
    this.coseKey = coseKeyEd25519(this.signing.publicKey)
    this.peer = peer
  }

  static async create(
    world: World,
    number = 1,
    options: { register?: boolean; days?: number; certificate?: string } = {},
  ): Promise<TestDevice> {
    const address = addressOf(new Uint8Array(32).fill(number))
    const pem = options.certificate ?? (await certify(address, world.clock, options.days ?? 365))
    const peer = association({ certificate: new X509Certificate(pem), authorized: true })
    const device = new TestDevice(world, number, peer)
    if (options.register !== false) device.register()
    world.chain.mine(3)
    return device
  }

  register(
    patch: Partial<{
      owner: Address
      contracts: Address[]
      signingKey: Uint8Array
      keyServer: Uint8Array
      active: boolean
    }> = {},
  ): void {
    this.world.chain.register({
      device: this.address,
      owner: OWNER,
      signingKey: thumbprint(suite, this.coseKey),
      keyServer: identity.spki,
      contracts: [CONTRACT],
      ...patch,
    })
  }

  gid(bit: number): Uint8Array {
    const { chainId, registry } = this.world.chain
    return gidOf(suite, { chainId, registry: addressBytes(registry), device: this.octets, bit })
  }

  name(bit: number): string {
    return gname(this.gid(bit))
  }

  async tryJoin(bit = 0, peer: Peer = this.peer): Promise<Reply> {
    const proof = this.signing.sign(joinProofInput(this.gid(bit), (peer.secure as SecureFacts).channelBinding()))
    const payload = encodeJoinRequest({ scope: bit, clientCred: this.coseKey, clientCredVerify: proof })
    return call(this.world.server.secure, peer, 'POST', `/ace-group/${this.name(bit)}`, payload)
  }

  async join(bit = 0): Promise<Joined> {
    return joined(await this.tryJoin(bit), this.gid(bit))
  }
}

export interface Joined {
  readonly reply: Reply
  readonly response: JoinResponse
  /** opens broadcasts with what the join gave */
  readonly member: GroupMember
}

function joined(reply: Reply, gid: Uint8Array): Joined {
  if (!reply.text.startsWith('2.')) throw new Error(`${reply.text} ${reply.problem} ${reply.detail}`)
  const response = decodeJoinResponse(reply.payload as Uint8Array)
  const member = sdsh(suite).member({ gid, kdc: suite.ed25519.verifying(broadcastKey.publicKey) })
  member.addPersonal(decodePersonalKey(response.personalKey))
  for (const { session, key } of response.keys) member.addKey({ session, K: key })
  return { reply, response, member }
}

let ca: ReturnType<typeof createCa> | undefined

/** PEM of a certificate for the device, from a CA of the tests. */
export async function certify(address: Address, clock: TestClock, days: number): Promise<string> {
  ca ??= createCa({ nowMs: 1_763_800_000_000 })
  const { issuing } = await ca
  const csr = await createCsr({ address, privateKey: generateKeyPair().privateKey })
  const { certificate } = await issueDeviceCertificate(issuing, csr.der, { days, nowMs: clock.nowMs() })
  return certificate
}

export class TestClient {
  readonly world: World
  readonly seed: Uint8Array
  readonly address: Address
  peer = association()

  constructor(world: World, number: number) {
    this.world = world
    this.seed = new Uint8Array(32).fill(number)
    this.address = addressOf(this.seed)
  }

  /** A token for these bits, deep enough. */
  grant(
    device: TestDevice,
    bits: number[],
    seconds: number,
    options: { shallow?: boolean; contract?: Address } = {},
  ): void {
    const { chain, clock } = this.world
    const claims = bits.reduce((word, b) => (word | (1 << b)) >>> 0, 0)
    chain.grant(options.contract ?? CONTRACT, device.address, this.address, claims, clock.seconds + seconds)
    if (options.shallow !== true) chain.mine(3)
  }

  revoke(device: TestDevice, contract = CONTRACT): void {
    this.world.chain.revoke(contract, device.address, this.address)
  }

  async authz(device: TestDevice, bits: number[]): Promise<Reply> {
    const payload = encodeAuthzRequest({
      client: addressBytes(this.address),
      device: device.octets,
      claims: claimsOfBits(bits),
    })
    return call(this.world.server.secure, this.peer, 'POST', '/authz-info', payload)
  }

  async challenge(device: TestDevice, bits: number[]): Promise<Uint8Array> {
    const reply = await this.authz(device, bits)
    if (reply.text !== '2.01') throw new Error(`${reply.text} ${reply.problem} ${reply.detail}`)
    return decodeChallenge(reply.payload as Uint8Array).kdcchallenge
  }

  request(device: TestDevice, bits: number[], nonce: Uint8Array, patch: Partial<KeyRequest> = {}): KeyRequest {
    return {
      client: addressBytes(this.address),
      device: device.octets,
      claims: claimsOfBits(bits),
      keyServer: identity.spki,
      channel: (this.peer.secure as SecureFacts).channelBinding(),
      nonce,
      signKey: NO_SIGN_KEY,
      issuedAt: this.world.clock.seconds,
      expiresAt: this.world.clock.seconds + 60,
      ...patch,
    }
  }

  sign(request: KeyRequest): Uint8Array {
    const { chainId, registry } = this.world.chain
    const digest = keyRequestDigest({ chainId, registry: addressBytes(registry) }, request)
    const signature = secp256k1.sign(digest, this.seed, { prehash: false, format: 'recovered' })
    return Uint8Array.of(...signature.subarray(1), (signature[0] as number) + 27)
  }

  post(
    device: TestDevice,
    bit: number,
    request?: KeyRequest,
    clientCred?: Uint8Array,
    signature?: Uint8Array,
  ): Promise<Reply> {
    const clientCredVerify = request === undefined ? undefined : { request, signature: signature ?? this.sign(request) }
    const payload = encodeJoinRequest({ scope: bit, clientCred, clientCredVerify })
    return call(this.world.server.secure, this.peer, 'POST', `/ace-group/${device.name(bit)}`, payload)
  }

  async tryJoin(device: TestDevice, bit = 0, bits: number[] = [bit]): Promise<Reply> {
    const nonce = await this.challenge(device, bits)
    return this.post(device, bit, this.request(device, bits, nonce))
  }

  async join(device: TestDevice, bit = 0, bits: number[] = [bit]): Promise<Joined> {
    return joined(await this.tryJoin(device, bit, bits), device.gid(bit))
  }
}

/** Lets sessions begin until `seconds` have passed, a second at a time, as the loop would. */
export async function live(world: World, seconds: number): Promise<void> {
  for (let i = 0; i < seconds; i++) {
    world.clock.pass(1)
    await world.server.sessions.tick()
  }
}

/** The newest broadcast as anybody gets it. */
export async function newest(world: World, device: TestDevice, bit = 0): Promise<Uint8Array> {
  const reply = await call(world.server.plain, plainPeer, 'GET', `/bc/${device.name(bit)}`)
  if (reply.text !== '2.05') throw new Error(`${reply.text} ${reply.problem}`)
  return reply.payload as Uint8Array
}

export function addressOf(seed: Uint8Array): Address {
  return addressHex(keccak_256(secp256k1.getPublicKey(seed, false).subarray(1)).subarray(12))
}

export { fromHex, toHex }
