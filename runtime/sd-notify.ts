/**
 * sd_notify(3): tells systemd READY, RELOADING, STOPPING and STATUS, and feeds its watchdog. Node has no Unix
 * datagrams; the optional addon `unix-dgram` is loaded only when systemd asked to be told ($NOTIFY_SOCKET).
 */
import type { Logger } from './log.ts'

export interface Notifier {
  /** Sends e.g. `READY=1` or `STATUS=…`; silent when systemd does not listen. */
  notify(...lines: string[]): void
  /** Interval at which WATCHDOG=1 is due (a third of WATCHDOG_USEC), or undefined without a watchdog. */
  readonly watchdogMs: number | undefined
}

interface DgramSocket {
  send(message: Buffer, offset: number, length: number, path: string, callback: (error?: Error) => void): void
  close(): void
  on(event: 'error', listener: (error: Error) => void): void
}
interface UnixDgram {
  createSocket(type: 'unix_dgram'): DgramSocket
}

/** Never throws: where the addon cannot be loaded the daemon runs on, with one warning. */
export async function createNotifier(log: Logger, environment: NodeJS.ProcessEnv = process.env): Promise<Notifier> {
  const path = environment['NOTIFY_SOCKET']
  if (path === undefined || path === '') return { notify() {}, watchdogMs: undefined }
  const watchdogMs = watchdogInterval(environment)
  let addon: UnixDgram
  try {
    if (path.startsWith('@')) throw new Error('abstract sockets are not supported')
    // @ts-expect-error: the package has no types and is optional
    const loaded: unknown = await import('unix-dgram')
    addon = ((loaded as { default?: unknown }).default ?? loaded) as UnixDgram
  } catch (error) {
    log.warn({ err: error }, 'systemd listens on NOTIFY_SOCKET, but the addon unix-dgram cannot be loaded: install it')
    return { notify() {}, watchdogMs: undefined }
  }
  return {
    watchdogMs,
    notify(...lines) {
      try {
        const message = Buffer.from(lines.join('\n'))
        const socket = addon.createSocket('unix_dgram')
        socket.on('error', () => undefined)
        socket.send(message, 0, message.length, path, (error) => {
          if (error !== undefined) log.limited('sd-notify', 'warn', { err: error }, 'systemd could not be notified')
          socket.close()
        })
      } catch (error) {
        log.limited('sd-notify', 'warn', { err: error }, 'systemd could not be notified')
      }
    },
  }
}

/** WATCHDOG_USEC counts only for the process that WATCHDOG_PID names. */
export function watchdogInterval(environment: NodeJS.ProcessEnv, pid = process.pid): number | undefined {
  const micros = Number(environment['WATCHDOG_USEC'])
  const forPid = environment['WATCHDOG_PID']
  if (!Number.isFinite(micros) || micros <= 0) return undefined
  if (forPid !== undefined && Number(forPid) !== pid) return undefined
  return Math.max(100, Math.floor(micros / 3000))
}
