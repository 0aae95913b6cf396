/** Any program as a sensor: started for each reading, without a shell, with a time limit. */
import { execFile } from 'node:child_process'
import { IotchainError } from '../../protocol/errors.ts'
import type { SettingsOf } from '../resource-settings.ts'
import type { Driver } from './driver.ts'
import { parseJsonLine } from './json-line.ts'

const MAX_OUTPUT = 64 * 1024

export function createDriver(settings: SettingsOf<'exec'>): Driver {
  const [program, ...args] = settings.command as [string, ...string[]]
  const abort = new AbortController()
  return {
    async start() {},
    async read() {
      return parseJsonLine(await run(program, args, settings.timeout, abort.signal), settings.unit)
    },
    async stop() {
      abort.abort()
    },
    describe: () => ({ rt: 'iotchain.exec', if: 'core.s', unit: settings.unit, title: settings.title }),
  }
}

function run(program: string, args: readonly string[], timeout: number, signal: AbortSignal): Promise<string> {
  const options = { timeout, signal, maxBuffer: MAX_OUTPUT, killSignal: 'SIGKILL', windowsHide: true } as const
  return new Promise((resolve, reject) => {
    execFile(program, args, options, (error, stdout) => {
      if (error === null) resolve(stdout)
      else reject(explain(program, error))
    })
  })
}

function explain(program: string, error: Error & { code?: unknown; killed?: boolean }): IotchainError {
  if (error.code === 'ENOENT')
    return new IotchainError('sensor/exec', `the program ${program} is not there`, { cause: error })
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') {
    return new IotchainError('sensor/exec', `${program} prints more than ${MAX_OUTPUT} octets`, { cause: error })
  }
  if (error.killed === true)
    return new IotchainError('sensor/timeout', `${program} took too long and was ended`, { cause: error })
  return new IotchainError('sensor/exec', `${program} ended with ${String(error.code)}`, { cause: error })
}
