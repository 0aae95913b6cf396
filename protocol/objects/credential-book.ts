/**
 * The credentials that somebody holds from one key server: added as octets, kept only if the signature checks, found
 * by subject. Neighbours overlap, so several stand for the same device at a time.
 */
import { equalBytes, toHex } from '../bytes.ts'
import type { CryptoSuite, VerifyKey } from '../crypto/suite.ts'
import { gname } from '../groups/gid.ts'
import { type Credential, type SidGrant, verifyCredential } from './credential.ts'

/** Credentials kept at most; the earliest to expire go first. */
const CAPACITY = 4096

export class CredentialBook {
  /** The key server's key: the only one whose credentials are taken. */
  readonly key: VerifyKey
  private readonly suite: CryptoSuite
  private readonly capacity: number
  private readonly entries = new Map<string, Credential>()
  private cached: readonly Credential[] | undefined

  constructor(suite: CryptoSuite, key: VerifyKey, capacity: number = CAPACITY) {
    this.suite = suite
    this.key = key
    this.capacity = capacity
  }

  /**
   * Takes a credential; one that is held already costs no verification.
   * @param now Unix seconds: given, an expired one is refused (leave it out for credentials of the archive)
   * @throws `credential/…`
   */
  add(bytes: Uint8Array, now?: number): Credential {
    const name = toHex(this.suite.sha256(bytes))
    const held = this.entries.get(name)
    if (held !== undefined) return held
    const credential = verifyCredential(this.suite, bytes, { key: this.key, now })
    this.entries.set(name, credential)
    this.cached = undefined
    if (this.entries.size > this.capacity) this.dropEarliest()
    return credential
  }

  /** All credentials held, of any subject, newest first; of two of the same second the one that came later. */
  get credentials(): readonly Credential[] {
    this.cached ??= [...this.entries.values()].reverse().sort((a, b) => b.iat - a.iat)
    return this.cached
  }

  /** Those of one subject, newest first. @param address 20 octets */
  of(address: Uint8Array): readonly Credential[] {
    return this.credentials.filter((c) => equalBytes(c.address, address))
  }

  /** The subject's Sender IDs in a group, from its newest credential that names the group; empty if there is none. */
  sids(address: Uint8Array, gid: Uint8Array): readonly SidGrant[] {
    const name = gname(gid)
    for (const credential of this.of(address)) {
      const grants = credential.groups.get(name)
      if (grants !== undefined) return grants
    }
    return []
  }

  /** Forgets what expired before `now`, Unix seconds. */
  prune(now: number): void {
    for (const [name, credential] of this.entries) if (credential.exp <= now) this.entries.delete(name)
    this.cached = undefined
  }

  private dropEarliest(): void {
    const [name] = [...this.entries].reduce((a, b) => (b[1].exp < a[1].exp ? b : a))
    this.entries.delete(name)
  }
}
