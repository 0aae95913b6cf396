/** Errors about what a file holds, with the name of the file. */
import { IotchainError, isIotchainError } from '../../protocol/errors.ts'

/** Does `work` with what was read from `path`; an error of ours then begins with that path. */
export function inFile<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw namedAfter(path, error)
  }
}

/** The same error, its message beginning with `path`; what is none of ours is left as it is. */
export function namedAfter(path: string, error: unknown): unknown {
  if (!isIotchainError(error)) return error
  const { code, message, hint } = error
  return new IotchainError(code, `${path}: ${message}`, { cause: error, hint })
}
