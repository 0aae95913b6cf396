/** The certificates of one run, in a temporary folder, for programs that want files. All made by runtime/pki. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type Authority,
  createCa,
  issueDeviceCertificate,
  issueServerCertificate,
} from '../../runtime/pki/authority.ts'
import { generateKeyPair, privateKeyPem } from '../../runtime/pki/keys.ts'
import { createCsr } from '../../runtime/pki/request.ts'

export interface Identity {
  /** PEM. */
  readonly chain: string
  readonly key: string
  /** Files with the same: the leaf, its issuers (may be empty), both, the key; and key and chain in one. */
  readonly leafFile: string
  readonly issuersFile: string
  readonly chainFile: string
  readonly keyFile: string
  readonly credentialsFile: string
  /** The root to trust and the issuers, for a stack that builds the chain that it sends from what it trusts. */
  readonly storeFile: string
}

export interface DtlsPki {
  readonly folder: string
  /** PEM and file of what everybody trusts. */
  readonly root: string
  readonly rootFile: string
  readonly server: Identity
  readonly device: Identity
  readonly deviceAddress: string
  /** The same names and usages, from a CA that nobody trusts. */
  readonly rogueServer: Identity
  readonly rogueDevice: Identity
  readonly rogueRootFile: string
  remove(): void
}

const DEVICE = `0x${'d1'.repeat(20)}` as const

export async function makeDtlsPki(host: string): Promise<DtlsPki> {
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-interop-'))
  const ours = await createCa({ name: 'Interop' })
  const rogue = await createCa({ name: 'Rogue' })
  const file = (name: string, content: string): string => {
    const path = join(folder, name)
    writeFileSync(path, content, { mode: 0o600 })
    return path
  }
  const identity = (name: string, chain: string, key: string): Identity => {
    const end = chain.indexOf('-----END CERTIFICATE-----') + '-----END CERTIFICATE-----\n'.length
    return {
      chain,
      key,
      leafFile: file(`${name}.leaf.pem`, chain.slice(0, end)),
      issuersFile: file(`${name}.issuers.pem`, chain.slice(end)),
      chainFile: file(`${name}.chain.pem`, chain),
      keyFile: file(`${name}.key.pem`, key),
      credentialsFile: file(`${name}.cred.pem`, `${key}${chain}`),
      storeFile: file(`${name}.store.pem`, `${ours.root.certificate}\n${chain.slice(end)}`),
    }
  }
  const server = async (name: string, root: Authority): Promise<Identity> => {
    const { privateKey, publicKey } = generateKeyPair()
    const issued = await issueServerCertificate(root, { publicKey, names: [host, 'localhost'] })
    return identity(name, issued.chain, privateKeyPem(privateKey))
  }
  const device = async (name: string, issuing: Authority): Promise<Identity> => {
    const { privateKey } = generateKeyPair()
    const csr = await createCsr({ address: DEVICE, privateKey })
    const issued = await issueDeviceCertificate(issuing, csr.pem)
    return identity(name, issued.chain, privateKeyPem(privateKey))
  }
  return {
    folder,
    root: ours.root.certificate,
    rootFile: file('root.pem', ours.root.certificate),
    server: await server('server', ours.root),
    device: await device('device', ours.issuing),
    deviceAddress: DEVICE,
    rogueServer: await server('rogue-server', rogue.root),
    rogueDevice: await device('rogue-device', rogue.issuing),
    rogueRootFile: file('rogue-root.pem', rogue.root.certificate),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
