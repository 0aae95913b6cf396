/** The end of a command: one sentence instead of a stack trace, and a clean stop on SIGTERM and SIGINT. */
import { IotchainError, isIotchainError } from '../protocol/errors.ts'

/**
 * What a person is told about an error: message and hint. Errors of the system are translated, anything unexpected
 * is named as a fault of the program.
 */
export function explain(error: unknown): { message: string; hint?: string; code: string } {
  const known = isIotchainError(error) ? error : translate(error)
  return { message: known.message, code: known.code, ...(known.hint === undefined ? {} : { hint: known.hint }) }
}

/** Runs a command to its end: prints the sentence of an error and its code to standard error and sets exit code 1. */
export async function runCommand(name: string, command: () => Promise<void>): Promise<void> {
  try {
    await command()
  } catch (error) {
    const { message, hint, code } = explain(error)
    process.stderr.write(`${name}: ${message} [${code}]\n${hint === undefined ? '' : `  ${hint}\n`}`)
    if (process.env['IOTCHAIN_DEBUG'] !== undefined) console.error(error)
    process.exitCode = 1
  }
}

/**
 * Resolves at the first SIGTERM or SIGINT. A second one ends the process at once.
 * @param onReload called at SIGHUP
 */
export function untilSignal(onReload?: () => void): { readonly signal: Promise<string>; dispose(): void } {
  const remove: (() => void)[] = []
  const on = (signal: NodeJS.Signals, listener: () => void): void => {
    process.on(signal, listener)
    remove.push(() => process.off(signal, listener))
  }
  let stopping = false
  const signal = new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) {
      on(name, () => {
        if (stopping) process.exit(130)
        stopping = true
        resolve(name)
      })
    }
  })
  on('SIGHUP', () => onReload?.())
  return { signal, dispose: () => remove.forEach((r) => void r()) }
}

/** `work`, but at most `ms`; resolves false when it took longer. */
export async function atMost(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  try {
    return await Promise.race([work.then(() => true as const), late])
  } finally {
    clearTimeout(timer)
  }
}

function translate(error: unknown): IotchainError {
  const { code, syscall, path, port, address } = (error ?? {}) as NodeJS.ErrnoException & {
    port?: number
    address?: string
  }
  const where = path ?? (port === undefined ? (address ?? '') : `port ${port}`)
  switch (code) {
    case 'EADDRINUSE':
      return new IotchainError('runtime/port-busy', `${where || 'the port'} is in use by another process`, {
        cause: error,
        hint: 'stop the other process or configure another port',
      })
    case 'EACCES':
    case 'EPERM':
      return new IotchainError(
        'runtime/not-permitted',
        `${syscall ?? 'access'} ${where} is not permitted`.replace('  ', ' '),
        {
          cause: error,
          hint: 'check owner and mode, or use a port above 1023',
        },
      )
    case 'ENOENT':
      return new IotchainError('runtime/cannot-read', `${where} is not there`, { cause: error, hint: 'check the path' })
    case 'ENOSPC':
      return new IotchainError('runtime/disk-full', 'the disk is full', { cause: error, hint: 'free some disk space' })
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new IotchainError('runtime/bad-address', `the address ${address ?? where} is not known on this host`, {
        cause: error,
        hint: 'check the host name and the network',
      })
    default: {
      const message = error instanceof Error ? error.message : String(error)
      return new IotchainError('runtime/fault', `unexpected fault: ${message.split('\n')[0]}`, {
        cause: error,
        hint: 'set IOTCHAIN_DEBUG=1 to see where; please report it',
      })
    }
  }
}
