/** Paths as they stand in configuration files. */
import { statSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'

/**
 * A path from a configuration file: absolute, relative to the file's folder, or `credential:NAME` for a systemd
 * credential (LoadCredential= puts it into $CREDENTIALS_DIRECTORY). A person who calls a command has no credentials; then
 * the originals count, where the packages' units take them from: `device/NAME` beside `device.yaml`.
 */
export function resolvePath(configFile: string, path: string): string {
  if (path.startsWith('credential:')) {
    const originals = configFile.replace(/\.ya?ml$/, '')
    const folder = process.env['CREDENTIALS_DIRECTORY'] ?? (isFolder(originals) ? originals : undefined)
    if (folder === undefined) {
      throw new IotchainError('config/no-credentials', `${path}: this process was given no systemd credentials`, {
        hint: 'start the daemon by its systemd unit with LoadCredential=, or name a file',
      })
    }
    return join(resolve(folder), path.slice('credential:'.length))
  }
  return isAbsolute(path) ? path : resolve(dirname(configFile), path)
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
