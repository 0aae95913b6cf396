/**
 * A key server small enough for the device's tests: one process, plain UDP in place of DTLS, real groups, real
 * broadcasts, real credentials. Sessions move on when the test says so.
 */
import type { X509Certificate } from 'node:crypto'
import { suite } from '#crypto'
import { equalBytes } from '../../protocol/bytes.ts'
import { coseKeyEd25519, publicKeyOf } from '../../protocol/cose/key.ts'
import type { SigningKey } from '../../protocol/crypto/suite.ts'
import { randomEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import { clientMemberId, deviceMemberId, type Gid, gidOf, gname, parseGname } from '../../protocol/groups/gid.ts'
import { newManagerState } from '../../protocol/groups/manager-state.ts'
import { encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import type { GroupManager, GroupMember } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { encodeCreds } from '../../protocol/messages/group-info.ts'
import { decodeJoinRequest, encodeJoinResponse, joinProofInput } from '../../protocol/messages/join.ts'
import { ACE_GROUPCOMM } from '../../protocol/messages/labels.ts'
import { encodeNodeKeys, encodeSenderId } from '../../protocol/messages/node.ts'
import { issueCredential, type SidGrant } from '../../protocol/objects/credential.ts'
import { deviceAddressOf } from '../../runtime/pki/certificate.ts'
import { CoapClient } from '../../transport/coap/client.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { problemReply } from '../../transport/coap/problem-details.ts'
import { type CoapReply, type CoapRequest, Router } from '../../transport/coap/server.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { dial } from '../../transport/dial.ts'
import { dtlsServerTransport } from '../../transport/dtls/coap-transport.ts'
import type { ListenOptions } from '../../transport/dtls/types.ts'

export const CHAIN = { id: 20180415, registry: `0x${'11'.repeat(20)}` as Address }
const CHANNEL = new Uint8Array(32).fill(7)

interface Group {
  readonly gid: Gid
  readonly bit: number
  readonly manager: GroupManager
  broadcast: Uint8Array | undefined
  /** Beginning of the newest session. */
  nbf: number
  readonly sids: SidGrant[]
}

export interface DoubleOptions {
  readonly device: Address
  readonly nowSeconds?: () => number
}

export class KeyServerDouble {
  readonly groups = new Map<string, Group>()
  readonly kdc: SigningKey = suite.ed25519.signing(suite.ed25519.generate())
  readonly #options: DoubleOptions
  readonly #router = new Router()
  #endpoint: CoapEndpoint | undefined
  #secure: CoapEndpoint | undefined
  #publicKey: Uint8Array | undefined
  /** Credentials of command clients, handed to the device. */
  readonly commanders: Uint8Array[] = []
  /** The next requests are refused: away, no token, … */
  refuse: CoapReply | undefined
  /** Broadcasts are published, but not served: the key server's plain port is cut off. */
  silent = false
  /** Seconds by which the server's clock is ahead. */
  aheadSeconds = 0
  /** Renews certificates, where it is set. */
  onRenew: ((payload: Uint8Array) => Promise<Uint8Array>) | undefined
  joins = 0
  newSids = 0
  port = 0

  constructor(options: DoubleOptions) {
    this.#options = options
  }

  now(): number {
    return (this.#options.nowSeconds?.() ?? Math.floor(Date.now() / 1000)) + this.aheadSeconds
  }

  group(bit: number): Group {
    const device = addressBytes(this.#options.device)
    const gid = gidOf(suite, { chainId: CHAIN.id, registry: addressBytes(CHAIN.registry), device, bit })
    let group = this.groups.get(gname(gid))
    if (group === undefined) {
      const secrets = randomEpochSecrets((n) => suite.randomBytes(n))
      const manager = sdsh(suite).manager({
        state: newManagerState(gid, { minSessionSeconds: 1 }),
        secrets,
        signingKey: this.kdc,
      })
      manager.allocateEpoch({ nbf: this.now() })
      manager.activateEpoch()
      group = { gid, bit, manager, broadcast: undefined, nbf: 0, sids: [] }
      this.groups.set(gname(gid), group)
    }
    return group
  }

  /** The next session of a group, from now on for `seconds`. */
  publish(bit: number, seconds = 3600): Uint8Array {
    const group = this.group(bit)
    const nbf = Math.max(this.now(), group.nbf + 1)
    group.nbf = nbf
    const bytes = group.manager.next({ nbf, exp: nbf + seconds })
    commit(group.manager)
    group.broadcast = bytes
    if (!this.silent) this.#endpoint?.notify(`/bc/${gname(group.gid)}`)
    return bytes
  }

  /** A client that is a member from the next broadcast on, and hands over its keys. */
  client(bit: number, name = 0x22): GroupMember {
    const group = this.group(bit)
    const id = clientMemberId(new Uint8Array(20).fill(name))
    const { personal, keys } = group.manager.join(id, { mode: 'current', now: this.now() })
    commit(group.manager)
    const member = sdsh(suite).member({ gid: group.gid, kdc: suite.ed25519.verifying(this.kdc.publicKey) })
    member.addPersonal(personal)
    for (const key of keys) member.addKey(key)
    return member
  }

  /** The device's credential at this moment. */
  credential(): Uint8Array {
    const iat = this.now()
    const groups = new Map([...this.groups].filter(([, g]) => g.sids.length > 0).map(([name, g]) => [name, g.sids]))
    return issueCredential(
      suite,
      {
        issuer: 'test',
        subject: this.#options.device,
        iat,
        exp: iat + 3600,
        publicKey: this.#publicKey as Uint8Array,
        groups,
      },
      this.kdc,
    )
  }

  async start(port = 0): Promise<void> {
    if (this.port === 0) this.#routes()
    const transport = await bindUdp({ host: '127.0.0.1', port: port === 0 ? this.port : port })
    this.port = transport.address.port
    this.#endpoint = new CoapEndpoint(transport, { router: this.#router })
  }

  /** Joins over DTLS on a port of their own, as a real key server takes them. @returns the port */
  async startDtls(options: Omit<ListenOptions, 'port'>): Promise<number> {
    const transport = await dtlsServerTransport({ ...options, host: '127.0.0.1', port: 0, clientAuth: 'optional' })
    this.#secure = new CoapEndpoint(transport, { router: this.#router })
    return transport.address.port
  }

  async stop(): Promise<void> {
    await this.#secure?.close()
    this.#secure = undefined
    await this.#endpoint?.close()
    this.#endpoint = undefined
  }

  /** In place of DTLS: a plain client that claims a channel binding. */
  readonly dial = async (): Promise<CoapClient> => {
    const { endpoint, peer } = await dial(`coap://127.0.0.1:${this.port}`)
    const secure = { channelBinding: () => CHANNEL, certificate: undefined, authorized: true, pskIdentity: undefined }
    return new CoapClient(endpoint, { key: peer.key, address: peer.address, port: peer.port, secure })
  }

  #routes(): void {
    const guarded =
      (handler: (group: Group, payload: Uint8Array, channel: Uint8Array) => CoapReply) =>
      (request: CoapRequest): CoapReply => {
        const { secure } = request.peer
        if (secure !== undefined && deviceAddressOf(secure.certificate as X509Certificate) !== this.#options.device) {
          return problemReply(Code.unauthorized, { detail: 'no certificate of this device' })
        }
        if (this.refuse !== undefined) return this.refuse
        const name = gname(parseGname(request.params['g'] as string))
        const bit = [...Array(32).keys()].find((b) => gname(this.group(b).gid) === name)
        return bit === undefined
          ? problemReply(Code.notFound, {})
          : handler(this.group(bit), request.payload, secure?.channelBinding() ?? CHANNEL)
      }
    this.#router
      .add({
        pattern: '/ace-group/:g',
        post: guarded((group, payload, channel) => this.#join(group, payload, channel)),
      })
      .add({
        pattern: '/ace-group/:g/nodes/:n',
        get: guarded((group) => this.#nodeKeys(group)),
        put: guarded((group) => {
          this.newSids++
          return this.#cbor(encodeSenderId(this.#issueSid(group)), Code.changed)
        }),
      })
      .add({
        pattern: '/ace-group/:g/creds',
        get: guarded((group) =>
          this.#cbor(
            encodeCreds({
              num: group.manager.session,
              creds: [this.credential(), ...this.commanders],
              peerIdentifiers: [group.sids.at(-1)?.sid as Uint8Array, ...this.commanders.map(() => Uint8Array.of(9))],
            }),
          ),
        ),
      })
      .add({
        pattern: '/renew',
        post: async (request) =>
          this.onRenew === undefined
            ? problemReply(Code.notFound, {})
            : { code: Code.changed, payload: await this.onRenew(request.payload), contentFormat: ContentFormat.cbor },
      })
      .add({
        pattern: '/bc/:g',
        observable: true,
        get: (request) => {
          const broadcast = this.groups.get(request.params['g'] as string)?.broadcast
          if (broadcast === undefined || this.silent) return problemReply(Code.notFound, {})
          return { code: Code.content, payload: broadcast, contentFormat: ContentFormat.coseSign1, maxAge: 60 }
        },
      })
  }

  #join(group: Group, payload: Uint8Array, channel: Uint8Array): CoapReply {
    const request = decodeJoinRequest(payload)
    const publicKey = publicKeyOf(request.clientCred as Uint8Array)
    const proof = request.clientCredVerify as Uint8Array
    const good = suite.ed25519.verifying(publicKey).verify(joinProofInput(group.gid, channel), proof)
    if (!good || request.scope !== group.bit) return problemReply(Code.unauthorized, { detail: 'bad proof' })
    this.#publicKey = publicKey
    const { personal, keys, repeated } = group.manager.join(this.#memberId(), { mode: 'current', now: this.now() })
    const sid = group.sids.at(-1)?.sid ?? this.#issueSid(group)
    commit(group.manager)
    this.joins++
    const response = encodeJoinResponse({
      keys: keys.map((k) => ({ session: k.session, key: k.K })),
      num: group.manager.session,
      exp: this.now() + 60,
      exi: 60,
      serverTime: this.now(),
      creds: [this.credential()],
      peerIdentifiers: [sid],
      policies: {
        sessionSeconds: 60,
        graceSeconds: 60,
        aead: 24,
        window: 96,
        epochSeconds: 86_400,
        maxAgeSeconds: 300,
        confirmations: 3,
      },
      kdcCred: coseKeyEd25519(this.kdc.publicKey),
      senderId: sid,
      controlUri: `coaps://127.0.0.1:${this.port}/ace-group/${gname(group.gid)}`,
      personalKey: encodePersonalKey(personal),
      controlGroupUri: `coap://127.0.0.1:${this.port}/bc/${gname(group.gid)}`,
    })
    return this.#cbor(response, repeated ? Code.changed : Code.created)
  }

  #nodeKeys(group: Group): CoapReply {
    const id = this.#memberId()
    const membership = group.manager.membership(id)
    if (membership === undefined || membership.out !== undefined)
      return problemReply(Code.notFound, { detail: 'not a member' })
    const { allocatedEpoch } = group.manager
    return this.#cbor(
      encodeNodeKeys({
        keys: group.manager.keys(id, { now: this.now() }).map((k) => ({ session: k.session, key: k.K })),
        num: group.manager.session,
        exp: this.now() + 60,
        exi: 60,
        serverTime: this.now(),
        personalKey: encodePersonalKey(group.manager.personal(id)),
        nextPersonalKey:
          allocatedEpoch === undefined ? undefined : encodePersonalKey(group.manager.personal(id, allocatedEpoch)),
        senderId: group.sids.at(-1)?.sid,
      }),
    )
  }

  #issueSid(group: Group): Uint8Array {
    const sid = group.manager.issueSid()
    commit(group.manager)
    if (group.sids.every((g) => !equalBytes(g.sid, sid))) group.sids.push({ sid, from: this.now() })
    return sid
  }

  #memberId(): Uint8Array {
    return deviceMemberId(addressBytes(this.#options.device))
  }

  #cbor(payload: Uint8Array, code: number = Code.content): CoapReply {
    return { code, payload, contentFormat: ACE_GROUPCOMM }
  }
}

/** What a key server writes to its store here, this one throws away. */
function commit(manager: GroupManager): void {
  if (manager.changes() !== undefined) manager.committed()
}
