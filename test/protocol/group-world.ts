/** A group on paper: a manager with random epoch secrets, and what tests need around it. */
import { utf8 } from '../../protocol/bytes.ts'
import type { CryptoSuite, SigningKey, VerifyKey } from '../../protocol/crypto/suite.ts'
import { type EpochSecrets, randomEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import { toGid } from '../../protocol/groups/gid.ts'
import { type ManagerState, newManagerState } from '../../protocol/groups/manager-state.ts'
import type { GroupPolicy } from '../../protocol/groups/policy.ts'
import type { GroupManager, GroupMember } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'

export const START = 1_800_000_000
export const id = (name: string): Uint8Array => utf8(name)

/** Octets that look random and are the same every time. */
export function counterBytes(suite: CryptoSuite): (length: number) => Uint8Array {
  let n = 0
  return (length) => suite.hkdfExpand(suite.sha256(utf8('seed')), utf8(`${n++}`), length)
}

export class GroupWorld {
  readonly suite: CryptoSuite
  readonly gid = toGid(utf8('group-01'))
  readonly signingKey: SigningKey
  readonly kdc: VerifyKey
  readonly kept = new Map<number, Uint8Array>()
  secrets: EpochSecrets
  manager: GroupManager
  /** nbf of the newest session. */
  nbf = START

  constructor(suite: CryptoSuite, policy: Partial<GroupPolicy> = {}, state?: ManagerState) {
    this.suite = suite
    this.signingKey = suite.ed25519.signing(suite.sha256(utf8('key server')))
    this.kdc = suite.ed25519.verifying(this.signingKey.publicKey)
    this.secrets = randomEpochSecrets(counterBytes(suite))
    const first = state ?? newManagerState(this.gid, policy)
    this.manager = sdsh(suite).manager({ state: first, secrets: this.secrets, signingKey: this.signingKey })
  }

  epoch(nbf = this.nbf + 900): void {
    this.manager.allocateEpoch({ nbf })
    this.manager.activateEpoch()
  }

  commit(): void {
    const changes = this.manager.changes()
    if (changes === undefined) return
    for (const { epoch, secret } of changes.newSecrets) this.kept.set(epoch, Uint8Array.from(secret))
    for (const epoch of changes.erasedSecrets) this.kept.delete(epoch)
    this.manager.committed()
  }

  /** The next session, 900 s after the last one unless told. */
  next(nbf = this.nbf + 900): Uint8Array {
    this.nbf = nbf
    const bytes = this.manager.next({ nbf, exp: nbf + 900 })
    this.commit()
    return bytes
  }

  member(name?: string): GroupMember {
    const member = sdsh(this.suite).member({ gid: this.gid, kdc: this.kdc })
    if (name !== undefined) member.addPersonal(this.manager.personal(id(name)))
    return member
  }
}
