/** Small files that are either the old or the new one after a power cut, never half of each. */
import {
  closeSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'

export interface AtomicWriteOptions {
  /** Permission bits of the new file. */
  readonly mode?: number
  /** Refuse when the file is there already. */
  readonly exclusive?: boolean
}

/**
 * Writes beside the file, syncs, renames over it, syncs the folder: durable when it returns.
 * @throws `runtime/exists` (exclusive), `runtime/cannot-write`
 */
export function writeFileAtomic(path: string, content: string | Uint8Array, options: AtomicWriteOptions = {}): void {
  if (options.exclusive === true && existsAlready(path)) {
    throw new IotchainError('runtime/exists', `${path} is there already`, {
      hint: 'move it away first if you really want a new one',
    })
  }
  const temporary = join(dirname(path), `.${process.pid}.${(counter++).toString(36)}.tmp`)
  try {
    const file = openSync(temporary, 'wx', options.mode ?? 0o600)
    try {
      if (options.mode !== undefined) setMode(file, options.mode)
      const bytes = typeof content === 'string' ? Buffer.from(content) : content
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(temporary, path)
    syncFolder(dirname(path))
  } catch (cause) {
    removeQuietly(temporary)
    throw cannotWrite(path, cause)
  }
}

/** What was asked for, also under a strict umask (a systemd unit's): a configuration must be readable by the daemon. */
function setMode(file: number, mode: number): void {
  if ((fstatSync(file).mode & 0o777) === mode) return
  try {
    fchmodSync(file, mode)
  } catch (cause) {
    // The FAT of a boot partition has no modes.
    if ((cause as NodeJS.ErrnoException).code !== 'EPERM') throw cause
  }
}

let counter = 0

/** True also for what may not be looked at: who reads it then is told why. */
export function isThere(path: string): boolean {
  try {
    statSync(path)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code !== 'ENOENT' && code !== 'ENOTDIR'
  }
}

/** The content, or undefined when there is no such file. @throws `runtime/cannot-read` */
export function readFileIfExists(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cannotRead(path, cause)
  }
}

/** The content. @throws `runtime/cannot-read` with a sentence that names the file */
export function readFileOrExplain(path: string, what: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw cannotRead(path, cause, what)
  }
}

/** A rename or a new file survives a power cut only when its folder is synced too. */
export function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // It was never made: the fault that led here is the one to tell.
  }
}

function existsAlready(path: string): boolean {
  return readFileIfExists(path) !== undefined
}

function cannotRead(path: string, cause: unknown, what?: string): IotchainError {
  const named = what === undefined ? path : `the ${what} ${path}`
  const code = (cause as NodeJS.ErrnoException).code
  if (code === 'ENOENT') {
    return new IotchainError('runtime/cannot-read', `${named} is not there`, { cause, hint: 'check the path' })
  }
  const reason = code === 'EACCES' || code === 'EPERM' ? 'may not be read by this user' : 'cannot be read'
  return new IotchainError('runtime/cannot-read', `${named} ${reason}`, { cause, hint: 'check its owner and mode' })
}

function cannotWrite(path: string, cause: unknown): IotchainError {
  switch ((cause as NodeJS.ErrnoException).code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new IotchainError('runtime/disk-full', `${path} cannot be written: the disk is full`, {
        cause,
        hint: 'free some disk space',
      })
    case 'EROFS':
      return new IotchainError('runtime/cannot-write', `${path} cannot be written: the file system is read-only`, {
        cause,
        hint: 'give the state folder a partition that is mounted writable',
      })
    case 'ENOENT':
      return new IotchainError('runtime/cannot-write', `${path} cannot be written: its folder is not there`, { cause })
    default:
      return new IotchainError('runtime/cannot-write', `${path} cannot be written`, {
        cause,
        hint: 'check the owner and the mode of its folder',
      })
  }
}
