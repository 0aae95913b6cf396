/**
 * Renews the device's certificate when two thirds of its life are over: the stored request goes to the key server
 * again, over the old certificate, and the new one is kept in the state folder. Needs no X.509 library.
 */
import { join } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'
import { decodeRenewalReply, encodeRenewal } from '../protocol/messages/enrolment.ts'
import { readFileIfExists, writeFileAtomic } from '../runtime/atomic-file.ts'
import type { Logger } from '../runtime/log.ts'
import { certificateLife, deviceAddressOf, parseCertificate, spkiSha256 } from '../runtime/pki/certificate.ts'
import { Code } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import type { DeviceIdentity } from './identity.ts'
import type { KeyServer } from './key-server.ts'
import { chainFiles, derOfRequest } from './pem.ts'
import { refusal } from './refusal.ts'
import { Task } from './task.ts'

export interface RenewalOptions {
  readonly keyServer: KeyServer
  readonly identity: () => DeviceIdentity
  /** Path of the certificate request (PEM). */
  readonly request: string
  readonly stateDirectory: string
  readonly log: Logger
  readonly nowSeconds: () => number | undefined
  readonly retry: { readonly initial: number; readonly max: number }
  /** The new certificate, PEM with its issuers: in use from the next association on. */
  readonly onRenewed: (certificate: string) => void
}

/** A renewed certificate lies beside the sequence file. */
export const RENEWED_FILE = 'device.crt'
/** Longest time between two looks at the clock. */
const LOOK_MS = 3_600_000
const DAY_MS = 86_400_000

export class Renewal {
  readonly #options: RenewalOptions
  readonly #task: Task

  constructor(options: RenewalOptions) {
    this.#options = options
    const { initial, max } = options.retry
    this.#task = new Task({ name: 'certificate renewal', log: options.log, initialMs: initial, maxMs: max }, () =>
      this.#turn(),
    )
  }

  get lastError(): unknown {
    return this.#task.lastError
  }

  start(): void {
    this.#task.start()
  }

  stop(): Promise<void> {
    return this.#task.stop()
  }

  async #turn(): Promise<number | undefined> {
    const { keyServer, identity, request, stateDirectory, log, nowSeconds, onRenewed } = this.#options
    const now = nowSeconds()
    if (now === undefined) return 60_000
    const { renewAtSeconds, notAfterSeconds } = certificateLife(identity().leaf)
    if (now < renewAtSeconds) return Math.min(LOOK_MS, (renewAtSeconds - now) * 1000)
    const daysLeft = Math.floor((notAfterSeconds - now) / 86_400)
    const pem = readFileIfExists(request)?.toString()
    if (pem === undefined) {
      log.warn({ daysLeft }, 'the certificate request is not there: the certificate cannot be renewed')
      return DAY_MS
    }
    const reply = await keyServer.send({
      method: 'POST',
      path: ['renew'],
      payload: encodeRenewal(derOfRequest(pem)),
      contentFormat: ContentFormat.cbor,
    })
    if (reply.code === Code.notFound) {
      log.warn({ daysLeft }, 'the key server issues no certificates: renew this one by hand')
      return DAY_MS
    }
    if (!reply.ok) throw refusal(reply, 'the key server refused to renew the certificate')
    const { certificate, caChain } = decodeRenewalReply(reply.payload)
    const leaf = parseCertificate(certificate)
    const same = deviceAddressOf(leaf) === identity().address && spkiSha256(leaf).equals(spkiSha256(identity().leaf))
    if (!same || certificateLife(leaf).notAfterSeconds <= notAfterSeconds) {
      throw new IotchainError('device/bad-identity', 'the key server sent a certificate that does not renew this one')
    }
    const { chain } = chainFiles(certificate, caChain)
    writeFileAtomic(join(stateDirectory, RENEWED_FILE), chain)
    log.info({ until: leaf.validTo }, 'certificate renewed')
    onRenewed(chain)
    // Whatever life it has been given, it is not the turn of the next one at once.
    const left = certificateLife(leaf).notAfterSeconds - now
    return Math.max(1000, Math.min(LOOK_MS, (left * 1000) / 3))
  }
}
