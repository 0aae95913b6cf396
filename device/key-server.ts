/**
 * The device's business with its key server over mutual DTLS (protocol.md "Transport"): join, personal keys, Sender
 * IDs, credentials. One association at a time, made when it is needed and closed when idle; each answer sets the
 * device's clock.
 */
import { IotchainError } from '../protocol/errors.ts'
import { deviceMemberId, type Gid, gname } from '../protocol/groups/gid.ts'
import { type CredsList, decodeCreds } from '../protocol/messages/group-info.ts'
import { decodeJoinResponse, encodeJoinRequest, type JoinResponse, joinProofInput } from '../protocol/messages/join.ts'
import { ACE_GROUPCOMM } from '../protocol/messages/labels.ts'
import { decodeNodeKeys, decodeSenderId, type NodeKeys, nodeName } from '../protocol/messages/node.ts'
import type { Logger } from '../runtime/log.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code } from '../transport/coap/codes.ts'
import type { CoapResponse, RequestInit } from '../transport/coap/messages.ts'
import type { DeviceTime } from './device-time.ts'
import type { DeviceIdentity } from './identity.ts'
import { refusal } from './refusal.ts'

export interface KeyServerOptions {
  /** `coaps://host:port` */
  readonly uri: string
  /** Asked at each association: the certificate is renewed while the device runs. */
  readonly identity: () => DeviceIdentity
  readonly time: DeviceTime
  readonly log: Logger
  /** Opens the DTLS association and a CoAP client on it. */
  readonly dial: (uri: string, identity: DeviceIdentity) => Promise<CoapClient>
}

export interface Joined {
  readonly response: JoinResponse
  /** True when the membership was made by this very request: the Sender ID in it is fresh. */
  readonly created: boolean
}

const IDLE_MS = 30_000
const REQUEST_MS = 60_000

export class KeyServer {
  readonly #options: KeyServerOptions
  #client: Promise<CoapClient> | undefined
  #idle: NodeJS.Timeout | undefined
  #busy = 0
  #closed = false

  constructor(options: KeyServerOptions) {
    this.#options = options
  }

  /** @throws `device/refused` with what the key server says, `device/clock`, and faults of DTLS and CoAP */
  async join(gid: Gid, bit: number): Promise<Joined> {
    const identity = this.#options.identity()
    return this.#use(async (client) => {
      const channel = client.peer.secure?.channelBinding()
      if (channel === undefined) throw new IotchainError('device/not-secure', 'the key server is not reached by DTLS')
      const request = encodeJoinRequest({
        scope: bit,
        clientCred: identity.coseKey,
        clientCredVerify: identity.signingKey.sign(joinProofInput(gid, channel)),
      })
      const reply = await client.post(['ace-group', gname(gid)], request, {
        contentFormat: ACE_GROUPCOMM,
        accept: ACE_GROUPCOMM,
        timeoutMs: REQUEST_MS,
      })
      const response = decodeJoinResponse(accept(reply, 'join'))
      this.#options.time.anchor(response.serverTime)
      return { response, created: reply.code === Code.created }
    })
  }

  /**
   * The personal keys of this and the next epoch, and the newest session keys.
   * @throws `device/not-joined` when the membership has ended
   */
  async nodeKeys(gid: Gid): Promise<NodeKeys> {
    const reply = await this.#request({ path: this.#node(gid), accept: ACE_GROUPCOMM })
    if (reply.code === Code.notFound)
      throw new IotchainError('device/not-joined', 'the key server knows no membership of this device')
    const keys = decodeNodeKeys(accept(reply, 'personal key'))
    this.#options.time.anchor(keys.serverTime)
    return keys
  }

  /** A new Sender ID, for a new incarnation. */
  async newSenderId(gid: Gid): Promise<Uint8Array> {
    const reply = await this.#request({ method: 'PUT', path: this.#node(gid), accept: ACE_GROUPCOMM })
    return decodeSenderId(accept(reply, 'Sender ID'))
  }

  async creds(gid: Gid): Promise<CredsList> {
    const reply = await this.#request({ path: ['ace-group', gname(gid), 'creds'], accept: ACE_GROUPCOMM })
    return decodeCreds(accept(reply, 'credentials'))
  }

  /** Any request on the association, for what is not a matter of groups (renewal of the certificate). */
  async send(init: RequestInit): Promise<CoapResponse> {
    return this.#request(init)
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#drop()
  }

  #node(gid: Gid): readonly string[] {
    return ['ace-group', gname(gid), 'nodes', nodeName(deviceMemberId(this.#options.identity().device))]
  }

  #request(init: RequestInit): Promise<CoapResponse> {
    return this.#use((client) => client.request({ timeoutMs: REQUEST_MS, ...init }))
  }

  /** Runs on the open association; one that turns out dead is replaced once. */
  async #use<T>(work: (client: CoapClient) => Promise<T>): Promise<T> {
    if (this.#closed) throw new IotchainError('device/stopped', 'the device is stopping')
    if (!(await this.#options.time.hostIsRight())) {
      throw new IotchainError(
        'device/clock',
        'this host’s clock is not known to be right: certificates cannot be checked',
        {
          hint: 'connect a time server (systemctl status systemd-timesyncd), or set time.trust: always',
        },
      )
    }
    clearTimeout(this.#idle)
    this.#busy++
    const reused = this.#client !== undefined
    this.#client ??= this.#dial()
    const mine = this.#client
    try {
      return await work(await mine)
    } catch (error) {
      const transport = error instanceof IotchainError && /^(coap|dtls)\//.test(error.code)
      if (!transport) throw error
      if (this.#client === mine) await this.#drop()
      if (!reused) throw error
      this.#client ??= this.#dial()
      return await work(await this.#client)
    } finally {
      this.#busy--
      if (this.#busy === 0 && !this.#closed) {
        this.#idle = setTimeout(() => void this.#drop(), IDLE_MS)
        this.#idle.unref()
      }
    }
  }

  /** The next request makes an association anew, with the certificate of then. */
  async reconnect(): Promise<void> {
    if (this.#busy === 0) await this.#drop()
  }

  #dial(): Promise<CoapClient> {
    return this.#options.dial(this.#options.uri, this.#options.identity())
  }

  async #drop(): Promise<void> {
    clearTimeout(this.#idle)
    const client = this.#client
    this.#client = undefined
    try {
      await (await client)?.close()
    } catch {
      // It never opened, or is gone already.
    }
  }
}

function accept(reply: CoapResponse, what: string): Uint8Array {
  if (!reply.ok) throw refusal(reply, `the key server refused the ${what}`)
  return reply.payload
}
