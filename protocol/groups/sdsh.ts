import type { CryptoSuite } from '../crypto/suite.ts'
import { SdshManager } from './manager.ts'
import { SdshMember } from './member.ts'
import type { GroupKeyScheme } from './scheme.ts'

/**
 * SD-SH, version 1: subset-difference cover, join cohorts on a one-way chain, session keys in a time tree.
 * @example
 * const scheme = sdsh(suite)
 * const manager = scheme.manager({ state: newManagerState(gid), secrets: randomEpochSecrets(suite.randomBytes), signingKey })
 * manager.allocateEpoch({ nbf })
 * manager.activateEpoch()
 * const { personal, keys } = manager.join(clientMemberId(address), { mode: 'current', expiresAt, now })
 * const bytes = manager.next({ nbf, exp })
 * await store(manager.changes())
 * manager.committed()
 */
export function sdsh(suite: CryptoSuite): GroupKeyScheme {
  return {
    version: 1,
    manager: (options) => new SdshManager(suite, options),
    member: (options) => new SdshMember(suite, options),
  }
}
