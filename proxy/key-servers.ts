/**
 * The key servers whose devices this proxy serves: their signing keys over DTLS, credentials and broadcasts over plain
 * CoAP. Which of them runs a group is found by asking, at a bounded rate; a stranger can name any group.
 */
import { readFileSync } from 'node:fs'
import { suite } from '#crypto'
import { fromHex } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { publicKeyOf } from '../protocol/cose/key.ts'
import type { VerifyKey } from '../protocol/crypto/suite.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { type Gid, gname } from '../protocol/groups/gid.ts'
import { decodeCreds, decodeKdcCred } from '../protocol/messages/group-info.ts'
import type { Logger } from '../runtime/log.ts'
import { parseCertificates } from '../runtime/pki/certificate.ts'
import { inFile } from '../runtime/pki/in-file.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import { prefixRange, type Store } from '../store/store.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code } from '../transport/coap/codes.ts'
import { COAP_PORT, formatCoapUri, parseCoapUri } from '../transport/coap/uri.ts'
import { dial } from '../transport/dial.ts'

export interface KeyServerSettings {
  readonly uri: string
  readonly plain?: string | undefined
  readonly spki?: string | undefined
  /** Absolute path. */
  readonly ca?: string | undefined
}

/** What the proxy asks of one key server; in tests, a stand-in. */
export interface KeyServer {
  readonly name: string
  /** Encoded COSE_Key that signs credentials and broadcasts. Undefined: it does not run this group. */
  kdcCred(gid: Gid): Promise<Uint8Array | undefined>
  /** The unexpired ones, or with `at` (unix seconds) those of the past that cover it. */
  credentials(gid: Gid, at?: number): Promise<readonly Uint8Array[] | undefined>
  /** The plain CoAP side, where broadcasts are. */
  plain(): Promise<CoapClient>
  close(): Promise<void>
}

const PATIENCE_MS = 15_000

/** @throws `config/invalid`, `coap/bad-uri`, `config/cannot-read`, `pki/bad-certificate` at once for settings that cannot work */
export function connectKeyServer(settings: KeyServerSettings): KeyServer {
  const secureUri = parseCoapUri(settings.uri)
  const plainUri = settings.plain ?? formatCoapUri({ scheme: 'coap', host: secureUri.host, port: COAP_PORT })
  parseCoapUri(plainUri)
  const expectSpki = settings.spki === undefined ? undefined : fromHex(settings.spki)
  const ca = settings.ca === undefined ? undefined : readCa(settings.ca)
  let plain: Promise<CoapClient> | undefined
  const connectPlain = (): Promise<CoapClient> => {
    const open: Promise<CoapClient> = plain ?? dial(plainUri)
    plain = open
    open.catch(() => {
      plain = undefined
    })
    return open
  }
  return {
    name: settings.uri,
    async kdcCred(gid) {
      const client = await dial(settings.uri, { secure: { expectSpki, ca } })
      try {
        const response = await client.get(['ace-group', gname(gid), 'kdc-cred'], { timeoutMs: PATIENCE_MS })
        return response.ok ? decodeKdcCred(response.payload) : undefined
      } finally {
        await client.close()
      }
    },
    async credentials(gid, at) {
      const client = await connectPlain()
      const query = at === undefined ? [] : [`at=${at}`]
      const response = await client.get(['ace-group', gname(gid), 'creds'], { query, timeoutMs: PATIENCE_MS })
      if (response.code === Code.notFound) return undefined
      if (!response.ok) throw new IotchainError('proxy/key-server', `${settings.uri} answered ${response.codeText}`)
      return decodeCreds(response.payload).creds
    },
    plain: connectPlain,
    async close() {
      await plain?.then((client) => client.close()).catch(() => undefined)
    },
  }
}

function readCa(file: string): string {
  let pem: string
  try {
    pem = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new IotchainError('config/cannot-read', `the CA file ${file} cannot be read`, {
      cause,
      hint: 'check keyservers[].ca',
    })
  }
  inFile(file, () => parseCertificates(pem))
  return pem
}

/** A group and the key server that runs it. */
export interface GroupHome {
  readonly gid: Gid
  readonly server: KeyServer
  readonly kdc: VerifyKey
}

interface HomeRecord {
  readonly server: string
  readonly kdcCred: Uint8Array
}

export interface KeyServersOptions {
  readonly servers: readonly KeyServer[]
  readonly store: Store
  readonly clock: Clock
  readonly log: Logger
  readonly unknownPerMinute: number
}

/** For how long a group that nobody claimed is not asked about again, and how many such are remembered. */
const UNCLAIMED_MS = 60_000
const MAX_UNCLAIMED = 10_000

export class KeyServers {
  readonly #options: KeyServersOptions
  readonly #homes = new Map<string, GroupHome>()
  readonly #asking = new Map<string, Promise<GroupHome | undefined>>()
  readonly #unclaimed = new Map<string, number>()
  #questions: number[] = []

  constructor(options: KeyServersOptions) {
    this.#options = options
  }

  /** Groups found before, so that a restart needs no key server. */
  async load(): Promise<void> {
    for await (const [key, value] of this.#options.store.range(prefixRange('home '))) {
      const record = decodeRecord<HomeRecord>(value)
      const server = this.#options.servers.find((s) => s.name === record.server)
      if (server !== undefined) this.#remember(fromHex(key.slice(5)) as Gid, server, record.kdcCred)
    }
  }

  /** The home of a group that has been found already. */
  known(gid: Gid): GroupHome | undefined {
    return this.#homes.get(gname(gid))
  }

  /**
   * The home of a group; asks the key servers when it is not known yet.
   * @returns undefined when none of them runs it
   * @throws `proxy/key-server` when none could be asked, `proxy/rate` when too many unknown groups were named
   */
  async find(gid: Gid): Promise<GroupHome | undefined> {
    const name = gname(gid)
    const known = this.#homes.get(name)
    if (known !== undefined) return known
    const nowMs = this.#options.clock.monotonicMs()
    const since = this.#unclaimed.get(name)
    if (since !== undefined && nowMs - since < UNCLAIMED_MS) return undefined
    let asking = this.#asking.get(name)
    if (asking === undefined) {
      this.#questions = this.#questions.filter((t) => nowMs - t < 60_000)
      if (this.#questions.length >= this.#options.unknownPerMinute) {
        throw new IotchainError('proxy/rate', 'too many groups that are not known here', { retryAfterSeconds: 60 })
      }
      this.#questions.push(nowMs)
      asking = this.#ask(gid, name).finally(() => this.#asking.delete(name))
      this.#asking.set(name, asking)
    }
    return asking
  }

  /** The key server may sign with another key since: asks it again. */
  async renew(gid: Gid): Promise<GroupHome | undefined> {
    const home = this.known(gid)
    if (home === undefined) return this.find(gid)
    const kdcCred = await home.server.kdcCred(gid).catch(() => undefined)
    return kdcCred === undefined ? home : this.#adopt(gid, home.server, kdcCred)
  }

  async close(): Promise<void> {
    await Promise.all(this.#options.servers.map((s) => s.close()))
  }

  async #ask(gid: Gid, name: string): Promise<GroupHome | undefined> {
    let failure: unknown
    for (const server of this.#options.servers) {
      try {
        const creds = await server.credentials(gid)
        if (creds === undefined) continue
        const kdcCred = await server.kdcCred(gid)
        if (kdcCred !== undefined) return await this.#adopt(gid, server, kdcCred)
      } catch (error) {
        if (!isIotchainError(error)) throw error
        failure = error
        this.#options.log.limited(
          `key server ${server.name}`,
          'warn',
          { err: error, server: server.name },
          'a key server could not be asked',
        )
      }
    }
    if (failure !== undefined) {
      throw new IotchainError('proxy/key-server', 'the key server of this group could not be asked', {
        cause: failure,
        retryAfterSeconds: 10,
      })
    }
    if (this.#unclaimed.size >= MAX_UNCLAIMED) this.#unclaimed.delete(this.#unclaimed.keys().next().value as string)
    this.#unclaimed.set(name, this.#options.clock.monotonicMs())
    return undefined
  }

  async #adopt(gid: Gid, server: KeyServer, kdcCred: Uint8Array): Promise<GroupHome> {
    const home = this.#remember(gid, server, kdcCred)
    const record: HomeRecord = { server: server.name, kdcCred }
    await this.#options.store.batch([{ type: 'put', key: `home ${gname(gid)}`, value: encodeRecord(record) }])
    return home
  }

  #remember(gid: Gid, server: KeyServer, kdcCred: Uint8Array): GroupHome {
    const home = { gid, server, kdc: suite.ed25519.verifying(publicKeyOf(kdcCred)) }
    this.#homes.set(gname(gid), home)
    return home
  }
}
