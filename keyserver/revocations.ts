/**
 * Certificates that count no more: from the operators' revocation lists, and from `iotchain-keyserver revoke`, which
 * leaves a file for the running daemon. A revoked device is out at the next session, early; its associations end.
 */
import type { X509Certificate } from 'node:crypto'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { readFileIfExists, writeFileAtomic } from '../runtime/atomic-file.ts'
import type { Logger } from '../runtime/log.ts'
import { parseCertificates } from '../runtime/pki/certificate.ts'
import { loadX509, webCryptoPublic } from '../runtime/pki/x509.ts'
import type { Certificates } from './certificates.ts'
import type { Roster } from './roster.ts'
import { type CertificateRecord, del, Key, putRecord, type RevocationRecord, type Storage } from './storage.ts'

export interface RevocationsOptions {
  readonly storage: Storage
  readonly roster: Roster
  readonly certificates: Certificates
  readonly log: Logger
  /** where the command leaves its files */
  readonly folder: string
  readonly nowSeconds: () => number
  /** Told when something was revoked. */
  readonly onRevoked: (devices: ReadonlySet<Address>) => void
}

const POLL_MS = 2000

export type RevocationOrder = { readonly device: Address } | { readonly serial: string }

/** Leaves an order for the daemon. */
export function orderRevocation(folder: string, order: RevocationOrder): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const name = 'device' in order ? `device-${order.device.slice(2)}` : `serial-${order.serial}`
  writeFileAtomic(join(folder, `${name}.order`), `${JSON.stringify(order)}\n`, { mode: 0o600 })
}

export class Revocations {
  readonly #o: RevocationsOptions
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined

  constructor(options: RevocationsOptions) {
    this.#o = options
  }

  /** Takes up what the store holds. */
  async load(): Promise<void> {
    for await (const [key] of this.#o.storage.records<RevocationRecord>('revoked/')) {
      this.#o.certificates.revoke([key.slice('revoked/'.length)])
    }
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#running ??= this.takeOrders()
        .catch((error: unknown) => this.#o.log.limited('orders', 'warn', { err: error }, 'revocations are waiting'))
        .finally(() => {
          this.#running = undefined
        })
    }, POLL_MS)
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
  }

  /** Carries out what `revoke` left. @throws why the first of those that wait does */
  async takeOrders(): Promise<void> {
    let files: string[]
    try {
      files = readdirSync(this.#o.folder)
    } catch {
      return
    }
    let fault: unknown
    for (const file of files.filter((f) => f.endsWith('.order'))) {
      try {
        const path = join(this.#o.folder, file)
        const order = parseOrder(readFileIfExists(path)?.toString('utf8') ?? '')
        if (order !== undefined) await this.#revoke(order)
        rmSync(path, { force: true })
      } catch (error) {
        // one that cannot be read holds up no other
        fault ??= error
      }
    }
    if (fault !== undefined) throw fault
  }

  async #revoke(order: RevocationOrder): Promise<void> {
    const { storage, roster, certificates, log, nowSeconds, onRevoked } = this.#o
    const serials = 'serial' in order ? [order.serial.toLowerCase()] : await this.#serialsOf(order.device)
    const at = nowSeconds()
    await storage.commit(serials.map((serial) => putRecord(Key.revoked(serial), { at } satisfies RevocationRecord)))
    certificates.revoke(serials)
    log.warn(
      { ...order, serials },
      serials.length > 0
        ? 'certificates revoked'
        : 'nothing was revoked: no certificate of this device was ever seen here',
    )
    const hit = [...roster.devices.values()].filter((d) => serials.includes(d.record.certificate?.serial ?? ''))
    onRevoked(new Set('device' in order ? [order.device] : hit.map((d) => d.address)))
  }

  async #serialsOf(device: Address): Promise<string[]> {
    const { storage, roster } = this.#o
    const serials = new Set<string>()
    for await (const [, record] of storage.records<CertificateRecord>(Key.certificates(device))) {
      serials.add(record.serial)
    }
    const present = roster.devices.get(device)?.record.certificate?.serial
    if (present !== undefined) serials.add(present)
    return [...serials]
  }

  /** Drops certificates and revocations whose time is long over. */
  async prune(): Promise<void> {
    const now = this.#o.nowSeconds()
    const operations = []
    for await (const [key, record] of this.#o.storage.records<CertificateRecord>('cert/')) {
      if (record.notAfter < now - 30 * 86_400) operations.push(del(key), del(Key.revoked(record.serial)))
    }
    if (operations.length > 0) await this.#o.storage.commit(operations)
  }
}

function parseOrder(text: string): RevocationOrder | undefined {
  try {
    const o = JSON.parse(text) as Record<string, unknown>
    if (typeof o['device'] === 'string') return { device: o['device'] as Address }
    if (typeof o['serial'] === 'string' && /^[0-9a-f]{1,40}$/i.test(o['serial'])) return { serial: o['serial'] }
  } catch {
    // not ours
  }
  return undefined
}

/**
 * The serial numbers in revocation lists of the given CAs, hex.
 * @param files where the lists are from, for what is said about them
 * @throws `pki/bad-crl` for a list that none of them signed
 */
export async function revokedSerials(
  crls: readonly string[],
  issuers: readonly string[],
  files: readonly string[] = [],
): Promise<string[]> {
  if (crls.length === 0) return []
  const x509 = await loadX509()
  const authorities = issuers.flatMap((pem) => parseCertificates(pem))
  const serials: string[] = []
  for (const [i, pem] of crls.entries()) {
    const file = files[i] === undefined ? '' : `${files[i]}: `
    let list: InstanceType<typeof x509.X509Crl>
    try {
      list = new x509.X509Crl(pem)
    } catch (cause) {
      throw new IotchainError('pki/bad-crl', `${file}that is not a certificate revocation list`, {
        cause,
        hint: 'openssl crl -in FILE -noout -text shows what a file holds',
      })
    }
    const genuine = await Promise.all(authorities.map((a) => verifies(list, a)))
    if (!genuine.some(Boolean)) {
      throw new IotchainError('pki/bad-crl', `${file}the revocation list is signed by none of the issuers`, {
        hint: 'list the CA under `issuers:`, or take the list out',
      })
    }
    serials.push(...list.entries.map((e) => e.serialNumber))
  }
  return serials
}

async function verifies(list: X509CrlLike, authority: X509Certificate): Promise<boolean> {
  try {
    return await list.verify({ publicKey: await webCryptoPublic(authority.publicKey) })
  } catch {
    return false
  }
}

interface X509CrlLike {
  verify(params: { publicKey: Awaited<ReturnType<typeof webCryptoPublic>> }): Promise<boolean>
}
