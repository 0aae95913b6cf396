/**
 * Orders that an administrator's command leaves in the state folder of a daemon, which runs as another user: what the
 * command makes there must be the daemon's, or it could not read it.
 */
import { lchownSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Runs `work` as the owner of the folder, when root calls, and from inside of it: systemd keeps the state of its dynamic
 * users behind a folder that only root may enter, and as that user a link which a broken daemon left there leads
 * nowhere else.
 * @param work must be synchronous; gets the folder as it is to be named meanwhile
 */
export function inStateFolder<T>(state: string, work: (folder: string) => T): T {
  const owner = statSync(state, { throwIfNoEntry: false })
  const { geteuid, seteuid, setegid } = process
  if (owner === undefined || owner.uid === 0 || geteuid?.() !== 0 || seteuid === undefined || setegid === undefined) {
    return work(state)
  }
  const before = process.cwd()
  const group = process.getegid?.() ?? 0
  process.chdir(state)
  try {
    setegid(owner.gid)
    seteuid(owner.uid)
    return work('.')
  } finally {
    seteuid(0)
    setegid(group)
    process.chdir(before)
  }
}

/** After root has worked on a stopped daemon's store: every file is the daemon's again. Links are not followed. */
export function giveBack(state: string): void {
  const owner = statSync(state, { throwIfNoEntry: false })
  if (owner === undefined || owner.uid === 0 || process.geteuid?.() !== 0) return
  for (const name of readdirSync(state, { recursive: true, encoding: 'utf8' }))
    lchownSync(join(state, name), owner.uid, owner.gid)
}
