/** First steps of a key server: its broadcast key, its DTLS key, and a certificate where the CA is at hand. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { readFileOrExplain, writeFileAtomic } from '../runtime/atomic-file.ts'
import { makeFolder } from '../runtime/folder.ts'
import { issueServerCertificate, openAuthority } from '../runtime/pki/authority.ts'
import { spkiSha256 } from '../runtime/pki/certificate.ts'
import { generateKeyPair, loadPrivateKey, savePrivateKey } from '../runtime/pki/keys.ts'
import { createBroadcastKey } from './identity.ts'

export interface InitFiles {
  readonly certificate: string
  readonly key: string
  /** Of `key`, where it has one or is to have one. */
  readonly passphrase?: string | undefined
  readonly broadcast: string
}

export interface InitCa {
  /** PEM files */
  readonly certificate: string
  readonly key: string
  readonly passphrase?: string | undefined
  /** DNS names and IP addresses of this key server */
  readonly names: readonly string[]
  readonly days?: number | undefined
}

export interface InitResult {
  readonly made: readonly string[]
  readonly kept: readonly string[]
  /** SHA-256 of the SPKI, for the registry */
  readonly spki: Uint8Array
}

/** Makes what is not there; repeats itself safely. @throws `runtime/…`, `pki/…` */
export async function initKeyServer(suite: CryptoSuite, files: InitFiles, ca?: InitCa): Promise<InitResult> {
  const made: string[] = []
  const kept: string[] = []
  const make = async (file: string, write: () => void | Promise<void>): Promise<void> => {
    if (existsSync(file)) {
      kept.push(file)
      return
    }
    makeFolder(dirname(file))
    await write()
    made.push(file)
  }
  await make(files.broadcast, () => createBroadcastKey(suite, files.broadcast))
  await make(files.key, () => savePrivateKey(files.key, generateKeyPair().privateKey, { passphrase: files.passphrase }))
  const { publicKey } = loadPrivateKey(files.key, files.passphrase)
  if (ca !== undefined) {
    await make(files.certificate, async () => {
      const { privateKey } = loadPrivateKey(ca.key, ca.passphrase)
      const certificate = readFileOrExplain(ca.certificate, 'CA certificate').toString('latin1')
      const authority = openAuthority({ certificate, key: privateKey })
      const issued = await issueServerCertificate(authority, { publicKey, names: ca.names, days: ca.days })
      writeFileAtomic(files.certificate, issued.chain, { mode: 0o644 })
    })
  } else if (existsSync(files.certificate)) kept.push(files.certificate)
  return { made, kept, spki: Uint8Array.from(spkiSha256(publicKey)) }
}
