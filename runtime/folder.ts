/** Folders that a person names on a command line. */
import { mkdirSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'
import { isThere } from './atomic-file.ts'

/**
 * Makes a folder and those above it, as far as they are not there: for this user alone unless `mode` says otherwise.
 * @throws `runtime/cannot-write`
 */
export function makeFolder(path: string, mode = 0o700): void {
  try {
    make(resolve(path), mode)
  } catch (cause) {
    throw new IotchainError('runtime/cannot-write', `the folder ${path} cannot be made`, {
      cause,
      hint: 'check its path, and owner and mode of the folder above it',
    })
  }
}

/** One level after the other: Node's own recursion never ends where the system takes no folder (/proc). */
function make(path: string, mode: number): void {
  if (isThere(path)) return
  const above = dirname(path)
  if (above !== path) make(above, mode)
  try {
    mkdirSync(path, { mode })
  } catch (error) {
    // somebody else was faster
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}
