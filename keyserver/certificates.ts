/** Which device stands behind an association: its certificate, checked again at every request. */
import type { X509Certificate } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Address } from '../protocol/messages/address.ts'
import {
  certificateLife,
  certificateSha256,
  deviceAddressOf,
  EKU_CLIENT_AUTH,
  extendedKeyUsages,
} from '../runtime/pki/certificate.ts'
import type { SecureFacts } from '../transport/coap/transport.ts'
import { refusal } from './refusals.ts'
import type { DeviceRecord } from './storage.ts'

export interface ProvenDevice {
  readonly device: Address
  readonly sha256: Uint8Array
  /** hex, lower case */
  readonly serial: string
  /** unix seconds */
  readonly notAfter: number
}

export class Certificates {
  readonly #clock: Clock
  /** serial numbers, hex in lower case, of certificates that count no more */
  readonly #revoked = new Set<string>()
  /** What was read of a certificate object; associations keep theirs. */
  readonly #read = new WeakMap<X509Certificate, ProvenDevice | undefined>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  revoke(serials: Iterable<string>): void {
    for (const serial of serials) this.#revoked.add(serial.toLowerCase())
  }

  isRevoked(serial: string): boolean {
    return this.#revoked.has(serial.toLowerCase())
  }

  /** True for an association whose peer showed a device certificate, good or not. */
  shown(secure: SecureFacts): boolean {
    return secure.certificate !== undefined
  }

  /** The device behind the association. @throws `keyserver/certificate` */
  deviceOf(secure: SecureFacts): ProvenDevice {
    const { certificate } = secure
    if (certificate === undefined || !secure.authorized) {
      throw refusal('keyserver/certificate', 'this association shows no device certificate that is in force')
    }
    if (!this.#read.has(certificate)) this.#read.set(certificate, readDevice(certificate))
    const proven = this.#read.get(certificate)
    if (proven === undefined) throw refusal('keyserver/certificate', 'the certificate names no device')
    if (this.#revoked.has(proven.serial)) {
      throw refusal('keyserver/certificate', 'the certificate has been revoked', { hint: 'enrol the device again' })
    }
    if (proven.notAfter <= this.#clock.nowMs() / 1000) {
      throw refusal('keyserver/certificate', 'the certificate has expired', { hint: 'enrol the device again' })
    }
    return proven
  }

  /** True while the certificate that a device joined with still counts. */
  stands(record: DeviceRecord): boolean {
    const { certificate } = record
    return (
      certificate !== undefined &&
      certificate.notAfter > this.#clock.nowMs() / 1000 &&
      !this.#revoked.has(certificate.serial)
    )
  }
}

function readDevice(certificate: X509Certificate): ProvenDevice | undefined {
  const device = deviceAddressOf(certificate)
  if (device === undefined || !extendedKeyUsages(certificate).includes(EKU_CLIENT_AUTH)) return undefined
  return {
    device,
    sha256: certificateSha256(certificate),
    serial: certificate.serialNumber.toLowerCase(),
    notAfter: certificateLife(certificate).notAfterSeconds,
  }
}
