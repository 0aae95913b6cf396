/** Folders that a person names on a command line, or in a configuration. */
import { mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'
import { isThere } from './atomic-file.ts'

/**
 * Makes a folder and those above it, as far as they are not there: for this user alone unless `mode` says otherwise.
 * @param what what it is, for the error
 * @throws `runtime/cannot-write`
 */
export function makeFolder(path: string, what = 'folder', mode = 0o700): void {
  try {
    make(resolve(path), mode)
    if (!statSync(path).isDirectory()) throw new Error('something else has this name')
  } catch (cause) {
    throw new IotchainError('runtime/cannot-write', `the ${what} ${path} cannot be made`, {
      cause,
      hint: 'check the path, and owner and mode of the folder above it',
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
