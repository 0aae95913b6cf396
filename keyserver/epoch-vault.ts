/**
 * Where EM(e) lies: sealed in the store, each under a key of its own in a file of its own. Unlinking the file at
 * retention makes every copy in the store's old tables useless (best effort: backups defeat it).
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { concat, utf8 } from '../protocol/bytes.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { IotchainError } from '../protocol/errors.ts'
import { readFileIfExists, syncFolder, writeFileAtomic } from '../runtime/atomic-file.ts'
import type { StoreOperation } from '../store/store.ts'
import { Key, type Storage } from './storage.ts'

const KEY_OCTETS = 32
const NONCE = new Uint8Array(12)

export class EpochVault {
  readonly #suite: CryptoSuite
  readonly #folder: string
  readonly #written = new Map<string, Uint8Array>()

  /** @param folder made, mode 0700, when it is not there */
  constructor(suite: CryptoSuite, folder: string) {
    this.#suite = suite
    this.#folder = folder
  }

  open(): void {
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    } catch (cause) {
      throw new IotchainError('runtime/cannot-write', `the folder ${this.#folder} cannot be made`, { cause })
    }
  }

  /** Writes the key file, durably, and returns the sealed secret as an operation of the batch that follows. */
  seal(name: string, epoch: number, secret: Uint8Array): StoreOperation {
    const file = this.#file(name, epoch)
    // After a failed batch the same secret is sealed again, under the key that the batch may have reached the disk with.
    let key: Uint8Array | undefined = this.#written.get(file)
    if (key === undefined) {
      key = this.#suite.randomBytes(KEY_OCTETS)
      writeFileAtomic(file, key, { mode: 0o600 })
      this.#written.set(file, key)
    }
    const sealed = this.#suite.aead(24, key).seal(NONCE, label(name, epoch), secret)
    return { type: 'put', key: Key.secret(name, epoch), value: sealed }
  }

  /** The secrets of a group that can still be opened, ascending by epoch. */
  async load(storage: Storage, name: string): Promise<[number, Uint8Array][]> {
    const prefix = `em/${name}/`
    const secrets: [number, Uint8Array][] = []
    for await (const [storeKey, sealed] of storage.store.range({ gte: prefix, lt: `em/${name}0` })) {
      const epoch = Number.parseInt(storeKey.slice(prefix.length), 16)
      const key = readFileIfExists(this.#file(name, epoch))
      if (key === undefined) continue
      secrets.push([epoch, this.#suite.aead(24, key).open(NONCE, label(name, epoch), sealed)])
    }
    return secrets
  }

  /** The batch of `seal` is durable: its key is needed in memory no longer. */
  sealed(name: string, epoch: number): void {
    this.#written.delete(this.#file(name, epoch))
  }

  /** Overwrites and unlinks the key file; after the batch that took the sealed secret out of the store. */
  erase(name: string, epoch: number): void {
    this.#unlink(this.#file(name, epoch))
  }

  /** Removes key files that no record needs: left by a crash between file and batch. */
  sweep(known: ReadonlySet<string>): void {
    for (const file of readdirSync(this.#folder)) {
      const match = /^([0-9a-f]{16})-([0-9a-f]{8})\.key$/.exec(file)
      if (match !== null && !known.has(`${match[1]}/${Number.parseInt(match[2] as string, 16)}`)) {
        this.#unlink(join(this.#folder, file))
      }
    }
    syncFolder(this.#folder)
  }

  #unlink(file: string): void {
    this.#written.delete(file)
    try {
      if (readFileIfExists(file) !== undefined) writeFileSync(file, this.#suite.randomBytes(KEY_OCTETS), { flag: 'r+' })
      rmSync(file, { force: true })
    } catch {
      // a disk that refuses now: `sweep` finds the file at the next start
    }
  }

  #file(name: string, epoch: number): string {
    return join(this.#folder, `${name}-${epoch.toString(16).padStart(8, '0')}.key`)
  }
}

function label(name: string, epoch: number): Uint8Array {
  return concat(utf8('iotc1 em '), utf8(`${name} ${epoch}`))
}
