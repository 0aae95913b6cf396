/** Reading the kernel's small files, with errors that say what is wrong in words. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { IotchainError } from '../../protocol/errors.ts'

/** The text of an attribute, without its line end. @throws `sensor/vanished`, `sensor/unreadable` */
export async function readAttribute(path: string): Promise<string> {
  try {
    return (await readFile(path, 'utf8')).trim()
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO') {
      throw new IotchainError('sensor/vanished', `${path} is gone`, {
        cause,
        hint: 'check the wiring and the kernel driver (dmesg)',
      })
    }
    if (code === 'EACCES') {
      throw new IotchainError('sensor/unreadable', `${path} may not be read by this user`, { cause })
    }
    throw new IotchainError(
      'sensor/unreadable',
      `${path} cannot be read: ${code ?? 'error'} (the sensor does not answer)`,
      { cause },
    )
  }
}

/** An attribute that is a number. @throws `sensor/bad-value` and those of `readAttribute` */
export async function readNumber(path: string): Promise<number> {
  const text = await readAttribute(path)
  const value = Number(text)
  if (text === '' || !Number.isFinite(value)) {
    throw new IotchainError('sensor/bad-value', `${path} holds "${text.slice(0, 20)}", which is no number`)
  }
  return value
}

/** The number, or undefined where the file is not there. */
export async function readNumberIfThere(path: string): Promise<number | undefined> {
  try {
    return await readNumber(path)
  } catch (error) {
    if (error instanceof IotchainError && error.code === 'sensor/vanished') return undefined
    throw error
  }
}

/** Names in a folder, sorted; none where the folder is not there. */
export async function listFolder(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).sort()
  } catch {
    return []
  }
}

/** The first folder below `root` whose file `name` holds the chip's name; folders are numbered anew at each boot. */
export async function findByName(root: string, name: string): Promise<string | undefined> {
  for (const entry of await listFolder(root)) {
    const folder = join(root, entry)
    try {
      if ((await readAttribute(join(folder, 'name'))) === name) return folder
    } catch {
      // A device that is just going, or has no name.
    }
  }
  return undefined
}

/** Names that are there instead, for the error message. */
export async function namesBelow(root: string): Promise<string[]> {
  const names = await Promise.all(
    (await listFolder(root)).map((entry) => readAttribute(join(root, entry, 'name')).catch(() => undefined)),
  )
  return [...new Set(names.filter((n) => n !== undefined))]
}

/** Takes away the noise that scaling by powers of ten leaves: 25.080000000000002 → 25.08. */
export function tidy(value: number): number {
  return Number(value.toPrecision(12))
}
