/**
 * After a backup was put back (protocol.md "Recovery"): the store may be older than what was published and handed out
 * since, so every counter jumps to where it cannot have been, all key trees are new, and everybody joins again.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { CryptoSuite, VerifyKey } from '../protocol/crypto/suite.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { openBroadcast } from '../protocol/groups/broadcast.ts'
import { gname } from '../protocol/groups/gid.ts'
import { recoverState } from '../protocol/groups/recovery.ts'
import type { StoreOperation } from '../store/store.ts'
import { del, Key, putRecord, type Storage, type StoredGroup } from './storage.ts'

/** Where the newest broadcasts may still be found: proxies, other key servers' caches. */
export interface Mirror {
  readonly name: string
  /** The newest broadcast of a group; undefined: not there. */
  newest(group: string): Promise<Uint8Array | undefined>
}

export interface RecoverOptions {
  readonly suite: CryptoSuite
  readonly storage: Storage
  /** the state folder: epoch keys and codes */
  readonly folder: string
  /** our own broadcast key: only what it signed counts */
  readonly verifyKey: VerifyKey
  readonly mirrors: readonly Mirror[]
  /** serials of the present revocation lists, hex */
  readonly revoked: readonly string[]
  readonly now: number
  /** of today's configuration */
  readonly minSessionSeconds: number
  readonly onWarning: (text: string) => void
}

export interface RecoveredGroup {
  readonly group: string
  readonly storedSession: number
  /** highest session seen on a mirror, 0 if none */
  readonly seenSession: number
  /** the first session that will be made */
  readonly first: number
  /** memberships that ended */
  readonly members: number
}

/** @throws `group/bad-time` (clock behind the backup), `store/…` */
export async function recover(o: RecoverOptions): Promise<RecoveredGroup[]> {
  const report: RecoveredGroup[] = []
  for await (const stored of o.storage.groups()) report.push(await recoverGroup(o, stored))
  const operations: StoreOperation[] = []
  // Rights are read from the chain again, by the join of each client.
  for await (const [key] of o.storage.records('client/')) operations.push(del(key))
  for (const serial of o.revoked) operations.push(putRecord(Key.revoked(serial.toLowerCase()), { at: o.now }))
  await o.storage.commit(operations)
  // A code that was used after the backup was made would be good again.
  empty(join(o.folder, 'codes'))
  return report
}

async function recoverGroup(o: RecoverOptions, stored: StoredGroup): Promise<RecoveredGroup> {
  const { name, state } = stored
  const seen = await highestSeen(o, name)
  const { state: fresh, erasedSecrets } = recoverState(state, {
    now: o.now,
    minSessionSeconds: o.minSessionSeconds,
    highestSession: seen.session,
    highestEpoch: seen.epoch,
  })
  const operations: StoreOperation[] = [putRecord(Key.head(name), fresh.head)]
  for (const m of state.memberships) operations.push(del(Key.member(name, m.number)))
  for (const s of state.sessions) operations.push(del(Key.session(name, s.session)))
  for (const epoch of erasedSecrets) operations.push(del(Key.secret(name, epoch)))
  await o.storage.commit(operations)
  const folder = join(o.folder, 'epochs')
  for (const epoch of erasedSecrets) {
    rmSync(join(folder, `${name}-${epoch.toString(16).padStart(8, '0')}.key`), { force: true })
  }
  return {
    group: name,
    storedSession: state.head.session,
    seenSession: seen.session,
    first: fresh.head.session + 1,
    members: state.memberships.filter((m) => m.out === undefined).length,
  }
}

/** The highest session and epoch in genuine broadcasts on the mirrors. */
async function highestSeen(o: RecoverOptions, group: string): Promise<{ session: number; epoch: number }> {
  let session = 0
  let epoch = 0
  for (const mirror of o.mirrors) {
    try {
      const bytes = await mirror.newest(group)
      if (bytes === undefined) continue
      const broadcast = openBroadcast(o.suite, bytes, { kdc: o.verifyKey })
      if (gname(broadcast.gid) !== group) {
        throw new IotchainError('group/bad-gid', 'it is the broadcast of another group')
      }
      session = Math.max(session, broadcast.session)
      epoch = Math.max(epoch, broadcast.epoch)
    } catch (error) {
      if (!isIotchainError(error)) throw error
      o.onWarning(`${mirror.name}: nothing of group ${group} could be used: ${error.message}`)
    }
  }
  return { session, epoch }
}

function empty(folder: string): void {
  if (!existsSync(folder)) return
  for (const file of readdirSync(folder)) rmSync(join(folder, file), { force: true })
}

/** The operator says what became of certificates since the backup. @throws `config/invalid` */
export function requireRevocationAnswer(crls: readonly string[], none: boolean): void {
  if (crls.length > 0 || none) return
  throw new IotchainError('config/invalid', 'certificates that were revoked since the backup would be good again', {
    hint: 'give the present revocation list with --crl FILE, or say --none-revoked if there was none',
  })
}
