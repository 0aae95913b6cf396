/**
 * One association with a key server: log in by the challenge (protocol.md "Challenge"), join groups, fetch personal
 * keys again. The server is known by its public key, which the registry on chain names; its certificate may be anyone's.
 */

import { suite } from '#crypto'
import { concat, toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { coseKeyEd25519, thumbprintOf } from '../protocol/cose/key.ts'
import { IotchainError } from '../protocol/errors.ts'
import { clientMemberId, gname, toGid } from '../protocol/groups/gid.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { decodeChallenge, encodeAuthzRequest } from '../protocol/messages/authz.ts'
import { claimsOfBits } from '../protocol/messages/claims.ts'
import { decodeCreds, decodeKdcCred } from '../protocol/messages/group-info.ts'
import { decodeJoinResponse, encodeJoinRequest, type JoinResponse } from '../protocol/messages/join.ts'
import { KEY_REQUEST, type KeyRequest, NO_SIGN_KEY } from '../protocol/messages/key-request.ts'
import { ACE_GROUPCOMM } from '../protocol/messages/labels.ts'
import { decodeNodeKeys, type NodeKeys, nodeName } from '../protocol/messages/node.ts'
import {
  decodeRelayReply,
  decodeRelayTask,
  encodeRelayRequest,
  type RelayRequest,
  type RelayTask,
} from '../protocol/messages/relay.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import type { CoapResponse } from '../transport/coap/messages.ts'
import { dial } from '../transport/dial.ts'
import { responseError } from './errors.ts'
import type { ClientSigner } from './signer.ts'

export interface KeyServerAddress {
  /** coaps://host:port */
  readonly uri: string
  /** SHA-256 of its SubjectPublicKeyInfo, 32 octets: from the registry on chain, or given by a person. */
  readonly spki: Uint8Array
}

export interface ChainIdentity {
  readonly chainId: number
  /** The DeviceRegistry contract. */
  readonly registry: Address
}

export interface JoinWish {
  readonly signer: ClientSigner
  readonly device: Address
  readonly gid: Uint8Array
  /** The claims bit of the group. */
  readonly bit: number
  /** All bits that this association will be used for; default only `bit`. */
  readonly bits?: readonly number[]
  /** 32-octet Ed25519 public key that will sign commands; absent: to read only. */
  readonly commandKey?: Uint8Array
}

/** A KeyRequest is signed for so long; the challenge itself lives no longer. */
const REQUEST_SECONDS = 60
/** The relay tries the request on its node before it answers. */
const RELAY_PATIENCE_MS = 60_000

export class KeyServerSession {
  readonly #client: CoapClient
  readonly #server: KeyServerAddress
  readonly #chain: ChainIdentity
  readonly #clock: Clock
  /** (client, device) → the bits and the command key that this association is logged in for. */
  readonly #logins = new Map<string, string>()

  private constructor(client: CoapClient, server: KeyServerAddress, chain: ChainIdentity, clock: Clock) {
    this.#client = client
    this.#server = server
    this.#chain = chain
    this.#clock = clock
  }

  /**
   * Opens an association.
   * @throws `client/bad-uri`, `dtls/…` when nobody answers or another key does
   */
  static async open(
    server: KeyServerAddress,
    chain: ChainIdentity,
    options: { clock: Clock; signal?: AbortSignal | undefined; handshakeTimeoutMs?: number | undefined },
  ): Promise<KeyServerSession> {
    if (!server.uri.startsWith('coaps://')) {
      throw new IotchainError(
        'client/bad-uri',
        `the key server's address "${server.uri}" does not begin with coaps://`,
        {
          hint: 'give it with --key-server coaps://HOST:PORT',
        },
      )
    }
    const client = await dial(server.uri, {
      secure: { expectSpki: server.spki, handshakeTimeout: options.handshakeTimeoutMs, signal: options.signal },
    })
    return new KeyServerSession(client, server, chain, options.clock)
  }

  /**
   * Joins a group, or asks again as a member; the second time the answer is the same.
   * @throws `client/no-token`, `client/confirmations` (with retryAfterSeconds), `client/unavailable`, `client/forbidden` …
   */
  async join(wish: JoinWish): Promise<JoinResponse> {
    const bits = [...new Set([wish.bit, ...(wish.bits ?? [])])].sort((a, b) => a - b)
    const signKey = wish.commandKey === undefined ? NO_SIGN_KEY : thumbprintOf(suite, wish.commandKey)
    const login = `${bits.join(',')} ${toHex(signKey)}`
    const who = `${wish.signer.address} ${wish.device}`
    const proven = this.#logins.get(who) === login
    const clientCred = wish.commandKey === undefined ? undefined : coseKeyEd25519(wish.commandKey)
    const send = async (proof: boolean): Promise<CoapResponse> =>
      this.#client.post(
        ['ace-group', gname(toGid(wish.gid))],
        encodeJoinRequest({
          scope: wish.bit,
          clientCred,
          clientCredVerify: proof ? await this.#prove(wish, bits, signKey) : undefined,
        }),
        { contentFormat: ACE_GROUPCOMM, accept: ACE_GROUPCOMM },
      )
    let response = await send(!proven)
    // A challenge that ran out while a person looked for a password is worth a second one.
    if (!response.ok && (response.code === Code.badRequest || response.code === Code.unauthorized))
      response = await send(true)
    if (!response.ok) throw keyServerError(response, 'the join')
    this.#logins.set(who, login)
    return decodeJoinResponse(response.payload)
  }

  /** The personal key of the present or of another epoch; of a member that joined on this association. */
  async nodeKeys(wish: Pick<JoinWish, 'signer' | 'gid'>, epoch?: number): Promise<NodeKeys> {
    const node = nodeName(clientMemberId(addressBytes(wish.signer.address)))
    const response = await this.#client.get(['ace-group', gname(toGid(wish.gid)), 'nodes', node], {
      query: epoch === undefined ? [] : [`epoch=${epoch}`],
      accept: ACE_GROUPCOMM,
    })
    if (!response.ok) throw keyServerError(response, 'the personal key')
    return decodeNodeKeys(response.payload)
  }

  /** Leaves the group at the next scheduled session. */
  async leave(wish: Pick<JoinWish, 'signer' | 'gid'>): Promise<void> {
    const node = nodeName(clientMemberId(addressBytes(wish.signer.address)))
    const response = await this.#client.delete(['ace-group', gname(toGid(wish.gid)), 'nodes', node])
    if (!response.ok) throw keyServerError(response, 'leaving')
  }

  /** The encoded COSE_Key that signs broadcasts and credentials; anybody may ask. */
  async kdcCred(gid: Uint8Array): Promise<Uint8Array> {
    const response = await this.#client.get(['ace-group', gname(toGid(gid)), 'kdc-cred'])
    if (!response.ok) throw keyServerError(response, "the key server's signing key")
    return decodeKdcCred(response.payload)
  }

  /** The credentials of the group's devices, or those that were good at some time (unix seconds); anybody may ask. */
  async credentials(gid: Uint8Array, at?: number): Promise<readonly Uint8Array[]> {
    const response = await this.#client.get(['ace-group', gname(toGid(gid)), 'creds'], {
      query: at === undefined ? [] : [`at=${at}`],
    })
    if (!response.ok) throw keyServerError(response, 'device credentials')
    return decodeCreds(response.payload).creds
  }

  /** A puzzle that a relayed request has to solve; good on this association only. */
  async relayTask(): Promise<RelayTask> {
    const response = await this.#client.get('/relay')
    if (!response.ok) throw keyServerError(response, 'the relay')
    return decodeRelayTask(response.payload)
  }

  /** Hands over a signed request with the solution. @returns the transaction's hash, 32 octets */
  async relay(request: RelayRequest): Promise<Uint8Array> {
    const response = await this.#client.post('/relay', encodeRelayRequest(request), {
      contentFormat: ContentFormat.cbor,
      timeoutMs: RELAY_PATIENCE_MS,
    })
    if (!response.ok) throw keyServerError(response, 'the relay')
    return decodeRelayReply(response.payload)
  }

  close(): Promise<void> {
    return this.#client.close()
  }

  async #prove(wish: JoinWish, bits: readonly number[], signKey: Uint8Array) {
    const client = addressBytes(wish.signer.address)
    const device = addressBytes(wish.device)
    const claims = claimsOfBits(bits)
    const response = await this.#client.post('/authz-info', encodeAuthzRequest({ client, device, claims }), {
      contentFormat: ACE_GROUPCOMM,
      accept: ACE_GROUPCOMM,
    })
    if (!response.ok) throw keyServerError(response, 'the challenge')
    const { kdcchallenge } = decodeChallenge(response.payload)
    const secure = this.#client.peer.secure
    if (secure === undefined) throw new IotchainError('client/bad-uri', 'keys are handed out over DTLS only')
    const issuedAt = Math.floor(this.#clock.nowMs() / 1000)
    const request: KeyRequest = {
      client,
      device,
      claims,
      keyServer: this.#server.spki,
      channel: concat(secure.channelBinding()),
      nonce: kdcchallenge,
      signKey,
      issuedAt,
      expiresAt: issuedAt + REQUEST_SECONDS,
    }
    const domain = { chainId: this.#chain.chainId, registry: addressBytes(this.#chain.registry) }
    const signature = await wish.signer.signStruct(domain, KEY_REQUEST, { ...request })
    return { request, signature }
  }
}

/** A key server's refusal, in the words of a client. */
function keyServerError(response: CoapResponse, what: string): IotchainError {
  const { title, detail } = response.problem ?? {}
  const options = { retryAfterSeconds: response.maxAge }
  switch (title) {
    case 'keyserver/no-token':
      return new IotchainError('client/no-token', `the key server refused ${what}: ${detail ?? 'there is no token'}`, {
        hint: 'ask for a token with `iotchain request`',
      })
    case 'keyserver/confirmations':
      return new IotchainError('client/confirmations', detail ?? 'the token waits for its confirmations', options)
    default:
      return responseError(response, `${what} at the key server`)
  }
}
