/**
 * How a new device gets its certificate: an association made with a code, a proof of the device's own address, one
 * atomic write that uses up the code and records the certificate (protocol.md "Enrolment"). Renewal is over the
 * certificate that is to be replaced.
 */
import { createHash } from 'node:crypto'
import { equalBytes, toHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { publicKeyOf, thumbprint } from '../protocol/cose/key.ts'
import { recoverAddress } from '../protocol/crypto/secp256k1.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { isIotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes, addressHex } from '../protocol/messages/address.ts'
import {
  type ChainInfo,
  type EnrolmentBody,
  type EnrolmentReply,
  enrolmentDigest,
  type RenewalReply,
} from '../protocol/messages/enrolment.ts'
import type { Logger } from '../runtime/log.ts'
import { type Authority, issueDeviceCertificate } from '../runtime/pki/authority.ts'
import { certificateLife, parseCertificate, parseCertificates } from '../runtime/pki/certificate.ts'
import { verifyCsr } from '../runtime/pki/request.ts'
import type { SecureFacts } from '../transport/coap/transport.ts'
import type { Certificates } from './certificates.ts'
import type { EnrolmentCode, EnrolmentCodes } from './enrolment-codes.ts'
import type { Entitlements } from './entitlements.ts'
import { Gate } from './gate.ts'
import { refusal } from './refusals.ts'
import type { Roster, ServedDevice } from './roster.ts'
import { type CertificateRecord, type CodeUseRecord, Key, putRecord, type Storage } from './storage.ts'

export interface EnrolmentOptions {
  readonly suite: CryptoSuite
  readonly clock: Clock
  readonly log: Logger
  readonly storage: Storage
  readonly roster: Roster
  readonly entitlements: Entitlements
  readonly certificates: Certificates
  readonly codes: EnrolmentCodes
  readonly authority: Authority
  /** PEM: issuing CA first, root last */
  readonly caChain: string
  readonly days: number
  readonly kdcCred: Uint8Array
  readonly keyServer: Uint8Array
  readonly chain: ChainInfo
}

const RENEW_FROM = 1 / 2

export class Enrolment {
  readonly #o: EnrolmentOptions
  readonly #caChain: readonly Uint8Array[]
  /** One at a time: two requests never both find a code unused. */
  readonly #gate = new Gate()

  constructor(options: EnrolmentOptions) {
    this.#o = options
    this.#caChain = parseCertificates(options.caChain).map((c) => Uint8Array.from(c.raw))
  }

  /** @throws `keyserver/…`, `pki/…`, `store/…` */
  async enrol(secure: SecureFacts, body: EnrolmentBody): Promise<EnrolmentReply> {
    const { codes } = this.#o
    const identity = secure.pskIdentity
    const code = identity === undefined ? undefined : codes.find(identity)
    if (identity === undefined || code === undefined) {
      throw refusal('keyserver/bad-code', 'this association was not made with an enrolment code that is good now', {
        hint: 'ask for a new code: iotchain-keyserver code',
      })
    }
    const wait = codes.waitSeconds(identity)
    if (wait > 0) {
      throw refusal('keyserver/guessing', 'too many tries with this code', { retryAfterSeconds: wait })
    }
    try {
      const reply = await this.#gate.run(() => this.#enrol(secure, body, code))
      codes.proved(identity)
      return reply
    } catch (error) {
      if (isIotchainError(error) && !error.code.startsWith('store/')) codes.failed(identity)
      throw error
    }
  }

  async #enrol(secure: SecureFacts, body: EnrolmentBody, code: EnrolmentCode): Promise<EnrolmentReply> {
    const { suite, storage, clock, log, roster } = this.#o
    const device = await this.#proveDevice(secure, body)
    if (code.device !== undefined && code.device !== device) {
      throw refusal('keyserver/not-yours', 'this code was made for another device')
    }
    const csrHash = toHex(sha256(body.csr))
    const used = await storage.get<CodeUseRecord>(Key.codeUse(code.identity))
    if (used !== undefined) {
      const record = await storage.get<CertificateRecord>(Key.certificate(used.device, used.serial))
      if (used.csrHash !== csrHash || used.device !== device || record === undefined) {
        throw refusal('keyserver/bad-code', 'this code has been used', { hint: 'ask for a new code' })
      }
      return this.#reply(record, code.owner)
    }
    await this.#refuseSecond(device)
    const record = await this.#issue(body.csr, device, code.owner)
    const served = roster.devices.get(device)
    const gate = served?.gate ?? new Gate()
    await gate.run(async () => {
      const before = served?.record ?? { device, senderIds: {} }
      const after = { ...before, enrolledOwner: code.owner }
      const use: CodeUseRecord = { csrHash, device, serial: record.serial, at: Math.floor(clock.nowMs() / 1000) }
      await storage.commit([
        putRecord(Key.certificate(device, record.serial), record),
        putRecord(Key.codeUse(code.identity), use),
        putRecord(Key.device(device), after),
      ])
      roster.device(device).record = after
    })
    const signingKey = toHex(thumbprint(suite, body.coseKey))
    log.info({ device, owner: code.owner, serial: record.serial, signingKeyThumbprint: signingKey }, 'device enrolled')
    return this.#reply(record, code.owner)
  }

  /** A new certificate for the same key, over the old one. @throws `keyserver/…` */
  async renew(secure: SecureFacts, csr: Uint8Array): Promise<RenewalReply> {
    const { certificates, entitlements, storage, clock, log, roster } = this.#o
    const proven = certificates.deviceOf(secure)
    const request = await verifyCsr(csr)
    const present = secure.certificate
    if (present === undefined || request.address !== proven.device || !present.checkIssued(this.#issuer())) {
      throw refusal('keyserver/not-yours', 'renewal is for the device of this association, under the same CA')
    }
    const samePublicKey = Buffer.compare(
      request.publicKey.export({ type: 'spki', format: 'der' }),
      present.publicKey.export({ type: 'spki', format: 'der' }),
    )
    if (samePublicKey !== 0) {
      throw refusal('keyserver/wrong-key', 'a certificate is renewed for the same key only', {
        hint: 'a new key means enrolling again with a new code',
      })
    }
    const served = entitlements.peek(proven.device)
    await entitlements.checkDevice(served)
    return this.#gate.run(async () => {
      const now = clock.nowMs() / 1000
      const newest = (await this.#live(proven.device)).at(-1)
      if (newest !== undefined && equalBytes(newest.csr, csr)) {
        const { notBeforeSeconds: from, notAfterSeconds: to } = certificateLife(newest.certificate)
        if (now < from + (to - from) * RENEW_FROM) return { certificate: newest.certificate, caChain: this.#caChain }
      }
      const owner = newest?.owner ?? served.record.enrolledOwner
      const record = await this.#issue(csr, proven.device, owner)
      await storage.commit([putRecord(Key.certificate(proven.device, record.serial), record)])
      const member = roster.devices.get(proven.device)
      if (member !== undefined) await this.#prolong(member, record)
      log.info({ device: proven.device, serial: record.serial }, 'certificate renewed')
      return { certificate: record.certificate, caChain: this.#caChain }
    })
  }

  /** A member stays one under the new certificate, also if it never gets to show it before the old one ends. */
  async #prolong(served: ServedDevice, { certificate, serial, notAfter }: CertificateRecord): Promise<void> {
    await served.gate.run(async () => {
      if (served.record.certificate === undefined) return
      const record = { ...served.record, certificate: { sha256: sha256(certificate), serial, notAfter } }
      await this.#o.storage.commit([putRecord(Key.device(served.address), record)])
      served.record = record
      for (const group of served.groups.values()) {
        if (!group.isMember(served.memberId)) continue
        await group.change((m) => m.renew(served.memberId, notAfter))
      }
    })
  }

  /** The certificates of a device that are neither over nor revoked, oldest first. */
  async #live(device: Address): Promise<CertificateRecord[]> {
    const now = this.#o.clock.nowMs() / 1000
    const found: CertificateRecord[] = []
    for await (const [, record] of this.#o.storage.records<CertificateRecord>(Key.certificates(device))) {
      if (record.notAfter > now && !this.#o.certificates.isRevoked(record.serial)) found.push(record)
    }
    return found.sort((a, b) => a.notAfter - b.notAfter)
  }

  async #refuseSecond(device: Address): Promise<void> {
    const live = (await this.#live(device)).at(-1)
    if (live === undefined) return
    throw refusal('keyserver/other-certificate', `certificate ${live.serial} of this device is in force`, {
      hint: `if the device was reset: iotchain-keyserver revoke --device ${device}, then try again`,
    })
  }

  async #proveDevice(secure: SecureFacts, body: EnrolmentBody): Promise<Address> {
    const { suite } = this.#o
    const request = await verifyCsr(body.csr)
    const device = addressHex(body.device)
    if (request.address !== device) {
      throw refusal('keyserver/bad-proof', 'the certificate request names another device than the enrolment')
    }
    publicKeyOf(body.coseKey)
    const digest = enrolmentDigest({
      device: addressBytes(device),
      csrHash: sha256(body.csr),
      signingKey: thumbprint(suite, body.coseKey),
      channel: secure.channelBinding(),
    })
    let signer: Address | undefined
    try {
      signer = recoverAddress(digest, body.sig)
    } catch {
      signer = undefined
    }
    if (signer !== device) {
      throw refusal('keyserver/bad-proof', 'the enrolment is not signed by the device’s own key for this association')
    }
    return device
  }

  async #issue(csr: Uint8Array, device: Address, owner: Address | undefined): Promise<CertificateRecord> {
    const { authority, days, clock } = this.#o
    const { certificate, serial } = await issueDeviceCertificate(authority, csr, {
      address: device,
      days,
      nowMs: clock.nowMs(),
    })
    const parsed = parseCertificate(certificate)
    return {
      serial: serial.toLowerCase(),
      device,
      owner,
      csr,
      certificate: Uint8Array.from(parsed.raw),
      notAfter: certificateLife(parsed).notAfterSeconds,
    }
  }

  #reply(record: CertificateRecord, owner: Address): EnrolmentReply {
    const { kdcCred, keyServer, chain } = this.#o
    return {
      certificate: record.certificate,
      caChain: this.#caChain,
      kdcCred,
      owner: addressBytes(owner),
      keyServer,
      chain,
    }
  }

  #issuer() {
    return parseCertificate(this.#o.authority.certificate)
  }
}

function sha256(octets: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash('sha256').update(octets).digest())
}
