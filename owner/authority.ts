/** The owner's certification authority: who may join a key server as a device, and which key server is genuine. */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { readFileOrExplain, writeFileAtomic } from '../runtime/atomic-file.ts'
import { makeFolder } from '../runtime/folder.ts'
import {
  type Authority,
  createCa,
  type Issued,
  issueDeviceCertificate,
  issueServerCertificate,
  openAuthority,
} from '../runtime/pki/authority.ts'
import { spkiSha256 } from '../runtime/pki/certificate.ts'
import { generateKeyPair, loadPrivateKey, savePrivateKey } from '../runtime/pki/keys.ts'
import { createCrl, type Revocation } from '../runtime/pki/revocation.ts'
import type { OwnerFolder } from './folder.ts'

export interface CaFiles {
  /** PEM file that every peer trusts */
  readonly root: string
  /** PEM file of the CA that signs devices */
  readonly issuing: string
  /** PEM file with the newest revocation list */
  readonly crl: string
}

export function caFiles(folder: OwnerFolder): CaFiles {
  return {
    root: join(folder.caFolder, 'root.crt'),
    issuing: join(folder.caFolder, 'devices.crt'),
    crl: join(folder.caFolder, 'devices.crl'),
  }
}

/** Makes root and issuing CA, their keys encrypted under the password. Only for a folder without an owner's key. */
export async function createOwnerCa(folder: OwnerFolder, password: string, name: string): Promise<CaFiles> {
  const files = caFiles(folder)
  makeFolder(folder.caFolder)
  const { root, issuing } = await createCa({ name })
  savePrivateKey(keyOf(files.root), root.key, { passphrase: password, overwrite: true })
  savePrivateKey(keyOf(files.issuing), issuing.key, { passphrase: password, overwrite: true })
  writeFileAtomic(files.root, root.certificate, { mode: 0o644 })
  writeFileAtomic(files.issuing, issuing.certificate, { mode: 0o644 })
  await writeCrl(folder, issuing, [])
  return files
}

/** Signs a device's request. @throws `pki/…` */
export async function issueForDevice(
  folder: OwnerFolder,
  password: string,
  csr: string | Uint8Array,
  options: { address?: Address | undefined; days?: number | undefined } = {},
): Promise<Issued & { address: Address }> {
  const issued = await issueDeviceCertificate(open(folder, 'issuing', password), csr, options)
  record(folder, { kind: 'device', name: issued.address, serial: issued.serial })
  return issued
}

export interface ServerCertificate {
  readonly certificateFile: string
  readonly keyFile: string
  /** SHA-256 of the SubjectPublicKeyInfo, hex: what devices and registry pin */
  readonly spki: string
}

/**
 * A certificate for a key server. The key in `keyFile` is kept if it is there already (a renewal keeps its SPKI), else
 * made, unencrypted, for a daemon that starts by itself.
 */
export async function issueForServer(
  folder: OwnerFolder,
  password: string,
  names: readonly string[],
  out: string,
  days?: number,
): Promise<ServerCertificate> {
  makeFolder(out, 'folder', 0o777)
  const keyFile = join(out, 'server.key')
  const certificateFile = join(out, 'server.crt')
  const root = open(folder, 'root', password)
  const pair = existsSync(keyFile) ? loadPrivateKey(keyFile) : generateKeyPair()
  const issued = await issueServerCertificate(root, { publicKey: pair.publicKey, names, days })
  if (!existsSync(keyFile)) savePrivateKey(keyFile, pair.privateKey)
  writeFileAtomic(certificateFile, issued.chain, { mode: 0o644 })
  record(folder, { kind: 'server', name: names.join(','), serial: issued.serial })
  return { certificateFile, keyFile, spki: toHex(spkiSha256(pair.publicKey)) }
}

/** Takes device certificates back: all of an address that are not yet. @returns their serials @throws `owner/no-certificate` */
export async function revokeDevice(folder: OwnerFolder, password: string, address: Address): Promise<string[]> {
  const lines = records(folder)
  const gone = new Set(lines.filter((l) => l.kind === 'revoked').map((l) => l.serial))
  const serials = lines
    .filter((l) => l.kind === 'device' && l.name === address && !gone.has(l.serial))
    .map((l) => l.serial)
  if (serials.length === 0) {
    throw new IotchainError('owner/no-certificate', `no certificate in force was issued for ${address}`, {
      hint: 'List them with `iotchain owner ca list`.',
    })
  }
  const authority = open(folder, 'issuing', password)
  for (const serial of serials) record(folder, { kind: 'revoked', name: address, serial })
  await renewCrl(folder, authority)
  return serials
}

/** Writes a fresh revocation list (it is out of date after a week). */
export async function refreshCrl(folder: OwnerFolder, password: string): Promise<string> {
  await renewCrl(folder, open(folder, 'issuing', password))
  return caFiles(folder).crl
}

export interface CaRecord {
  readonly at: string
  readonly kind: 'device' | 'server' | 'revoked'
  readonly name: string
  readonly serial: string
}

/** What the authority has signed and taken back. */
export function records(folder: OwnerFolder): CaRecord[] {
  const file = recordFile(folder)
  if (!existsSync(file)) return []
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        return line === '' ? [] : [JSON.parse(line) as CaRecord]
      } catch {
        return []
      }
    })
}

/** The root with its key, to sign what every part of the deployment trusts. */
export function openOwnerRoot(folder: OwnerFolder, password: string): Authority {
  return open(folder, 'root', password)
}

async function renewCrl(folder: OwnerFolder, authority: Authority): Promise<void> {
  const revoked = records(folder)
    .filter((l) => l.kind === 'revoked')
    .map((l): Revocation => ({ serial: l.serial, atMs: Date.parse(l.at), reason: 'privilegeWithdrawn' }))
  await writeCrl(folder, authority, revoked)
}

async function writeCrl(folder: OwnerFolder, authority: Authority, revoked: readonly Revocation[]): Promise<void> {
  // the number has to grow with each list: the time does, also across a restored backup
  const text = await createCrl(authority, { revoked, number: Math.floor(Date.now() / 1000), days: 7 })
  writeFileAtomic(caFiles(folder).crl, text, { mode: 0o644 })
}

function open(folder: OwnerFolder, which: 'root' | 'issuing', password: string): Authority {
  const certificate = caFiles(folder)[which]
  if (!existsSync(certificate)) {
    throw new IotchainError('owner/no-ca', `there is no certification authority in ${folder.caFolder}`, {
      hint: 'Run `iotchain owner init` first.',
    })
  }
  const { privateKey } = loadPrivateKey(keyOf(certificate), password)
  return openAuthority({ certificate: readFileOrExplain(certificate, 'certificate').toString(), key: privateKey })
}

function record(folder: OwnerFolder, line: Omit<CaRecord, 'at'>): void {
  appendFileSync(recordFile(folder), `${JSON.stringify({ at: new Date().toISOString(), ...line })}\n`, { mode: 0o600 })
}

const keyOf = (certificateFile: string): string => certificateFile.replace(/\.crt$/, '.key')
const recordFile = (folder: OwnerFolder): string => join(folder.caFolder, 'records.jsonl')
