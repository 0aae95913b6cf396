/**
 * A client shows that it is the address in a token: the signed key request, checked in the order of cost
 * (protocol.md "Challenge"): nonce ours, unspent, of this association → token exists → signature.
 */
import type { ChainView } from '../chain/view.ts'
import { equalBytes, toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { publicKeyOf, thumbprint } from '../protocol/cose/key.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { gname } from '../protocol/groups/gid.ts'
import { addressBytes, addressHex } from '../protocol/messages/address.ts'
import { claimsWord } from '../protocol/messages/claims.ts'
import type { JoinRequest } from '../protocol/messages/join.ts'
import { keyRequestDigest, NO_SIGN_KEY, type SignedKeyRequest } from '../protocol/messages/key-request.ts'
import type { Logger } from '../runtime/log.ts'
import type { SecureFacts } from '../transport/coap/transport.ts'
import type { Entitlements } from './entitlements.ts'
import { Turnstile } from './gate.ts'
import type { Login, Logins } from './logins.ts'
import type { Readings } from './readings.ts'
import { refusal } from './refusals.ts'

export interface ClientLoginOptions {
  readonly suite: CryptoSuite
  readonly chain: ChainView
  readonly clock: Clock
  readonly log: Logger
  readonly readings: Readings
  readonly entitlements: Entitlements
  readonly logins: Logins
  /** SHA-256 of our SPKI */
  readonly keyServer: Uint8Array
  readonly clockSkewSeconds: number
  /** signatures checked at once */
  readonly verifications: number
}

/** A challenge did not hold: the client gets another one with 4.00. */
export class NewChallenge {
  readonly nonce: Uint8Array
  constructor(nonce: Uint8Array) {
    this.nonce = nonce
  }
}

export class ClientLogin {
  readonly #o: ClientLoginOptions
  readonly #turnstile: Turnstile

  constructor(options: ClientLoginOptions) {
    this.#o = options
    this.#turnstile = new Turnstile(options.verifications)
  }

  /** The login that a join rests on: by the key request in it, or an earlier one on this association. */
  async login(
    association: string,
    secure: SecureFacts,
    name: string,
    join: JoinRequest,
  ): Promise<Login | NewChallenge> {
    const { logins, chain, readings, entitlements } = this.#o
    const covers = (l: Login): boolean =>
      ((l.claims >>> join.scope) & 1) === 1 && gname(entitlements.gid(addressBytes(l.device), join.scope)) === name
    const signed = join.clientCredVerify
    if (signed === undefined) {
      const login = logins.find(association, covers)
      if (login !== undefined) return login
      throw refusal('keyserver/login-required', 'nobody with this right has logged in on this association', {
        hint: 'POST /authz-info for a challenge, sign it, and send it with the join',
      })
    }
    if (signed instanceof Uint8Array) throw refusal('keyserver/bad-request', 'a client sends a signed key request')
    const { request } = signed
    const digest = keyRequestDigest({ chainId: chain.chainId, registry: addressBytes(chain.registry) }, request)
    const repeated = logins.find(association, (l) => l.digest === toHex(digest) && covers(l))
    if (repeated !== undefined) return repeated
    if (!logins.spend(association, request.nonce)) return new NewChallenge(logins.challenge(association))
    this.#checkRequest(secure, name, join, signed)

    const served = entitlements.peek(addressHex(request.device))
    const client = addressHex(request.client)
    const reading = await entitlements.readClient(served, client)
    entitlements.checkServed(reading.device)
    if (reading.client.admissions.size === 0 && reading.client.waiting.length === 0) {
      throw refusal('keyserver/no-token', 'this client has no token for the device', {
        hint: 'request a token first: `iotchain request`',
      })
    }
    if (this.#turnstile.full) {
      throw refusal('keyserver/busy', 'too many signatures are being checked', { retryAfterSeconds: 2 })
    }
    const genuine = await this.#turnstile.run(() =>
      readings.at((head) => chain.verifySignature(client, digest, signed.signature, head)),
    )
    if (!genuine) throw refusal('keyserver/bad-proof', 'the key request is not signed by the client that it names')
    const commandKey = equalBytes(request.signKey, NO_SIGN_KEY) ? undefined : join.clientCred
    const login: Login = {
      client,
      device: served.address,
      claims: claimsWord(request.claims),
      commandKey,
      digest: toHex(digest),
    }
    logins.add(association, login)
    this.#o.log.info({ client, device: served.address, claims: toHex(request.claims) }, 'client logged in')
    return login
  }

  #checkRequest(secure: SecureFacts, name: string, join: JoinRequest, { request }: SignedKeyRequest): void {
    const bad = (what: string): never => {
      throw refusal('keyserver/bad-proof', what)
    }
    if (!equalBytes(request.channel, secure.channelBinding())) bad('the key request is for another association')
    if (!equalBytes(request.keyServer, this.#o.keyServer)) bad('the key request is for another key server')
    const now = Math.floor(this.#o.clock.nowMs() / 1000)
    const skew = this.#o.clockSkewSeconds
    if (request.issuedAt > now + skew || request.expiresAt <= now - skew) {
      bad('the key request is not valid now: check the clock of the client')
    }
    if (((claimsWord(request.claims) >>> join.scope) & 1) !== 1) bad('the key request does not cover this right')
    if (gname(this.#o.entitlements.gid(request.device, join.scope)) !== name)
      bad('the key request is for another group')
    const wanted = join.clientCred === undefined ? NO_SIGN_KEY : thumbprint(this.#o.suite, join.clientCred)
    if (!equalBytes(request.signKey, wanted)) bad('signKey is not the thumbprint of client_cred')
    if (join.clientCred !== undefined) publicKeyOf(join.clientCred)
  }
}
