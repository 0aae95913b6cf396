/** One GPIO line behind five methods, so that another backend than onoff (sysfs) can step in. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { IotchainError } from '../../protocol/errors.ts'
import type { DriverEnvironment } from './driver.ts'
import { findLine } from './gpio-chip.ts'

export interface GpioLine {
  /** Claims the line, also one that a crashed process left exported. @throws `sensor/…` in words */
  open(): Promise<void>
  /** The electrical level: true is high. */
  read(): boolean
  write(high: boolean): void
  /** Calls at each edge, both ways. @returns what ends it; undefined when the line has no interrupts */
  watch(onEdge: (high: boolean) => void): (() => void) | undefined
  /** Gives the line back. */
  close(): void
}

export interface LineOptions {
  readonly bcm: number
  readonly direction: 'in' | 'out'
  /** Outputs: the level from the first moment on. */
  readonly initialHigh?: boolean | undefined
}

/** Makes a line; tests give another factory. */
export type LineFactory = (options: LineOptions, environment: DriverEnvironment) => GpioLine

/** The part of onoff that is used here. */
interface OnoffGpio {
  readSync(): 0 | 1
  writeSync(value: 0 | 1): void
  watch(callback: (error: Error | null | undefined, value: 0 | 1) => void): void
  unwatchAll(): void
  unexport(): void
}
type OnoffClass = new (number: number, direction: string, edge?: string) => OnoffGpio

export const onoffLine: LineFactory = ({ bcm, direction, initialHigh }, environment) => {
  let gpio: OnoffGpio | undefined
  let name = `BCM ${bcm}`
  let interrupts = false

  function required(): OnoffGpio {
    if (gpio === undefined) throw new IotchainError('sensor/gpio', `${name} is not open`)
    return gpio
  }

  return {
    async open() {
      const { chip, number } = await findLine(bcm, environment)
      name = `BCM ${bcm} = sysfs ${number} on ${chip.label}`
      const Gpio = await loadOnoff()
      try {
        gpio = direction === 'out' ? new Gpio(number, initialHigh === true ? 'high' : 'low') : openInput(Gpio, number)
        interrupts = direction === 'in' && existsSync(join('/sys/class/gpio', `gpio${number}`, 'edge'))
      } catch (cause) {
        throw inWords(name, cause)
      }
    },
    read() {
      try {
        return required().readSync() === 1
      } catch (cause) {
        throw inWords(name, cause)
      }
    },
    write(high) {
      try {
        required().writeSync(high ? 1 : 0)
      } catch (cause) {
        throw inWords(name, cause)
      }
    },
    watch(onEdge) {
      if (!interrupts) return undefined
      required().watch((error, value) => {
        if (error === null || error === undefined) onEdge(value === 1)
      })
      return () => gpio?.unwatchAll()
    },
    close() {
      gpio?.unexport()
      gpio = undefined
    },
  }
}

/** A line without an `edge` file has no interrupts; onoff insists on it. */
function openInput(Gpio: OnoffClass, number: number): OnoffGpio {
  try {
    return new Gpio(number, 'in', 'both')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).path?.endsWith('/edge') !== true) throw error
    return new Gpio(number, 'in')
  }
}

async function loadOnoff(): Promise<OnoffClass> {
  try {
    const loaded = (await import('onoff')) as unknown as { Gpio: OnoffClass; default?: { Gpio: OnoffClass } }
    return loaded.Gpio ?? loaded.default?.Gpio
  } catch (cause) {
    throw new IotchainError('sensor/no-gpio', 'the optional package onoff cannot be loaded: no GPIO here', {
      cause,
      hint: 'npm rebuild epoll with the Node that runs the daemon, or use driver simulated',
    })
  }
}

function inWords(name: string, cause: unknown): IotchainError {
  if (cause instanceof IotchainError) return cause
  const { code, syscall, path } = cause as NodeJS.ErrnoException
  if (code === 'EBUSY') {
    return new IotchainError('sensor/busy', `${name} is in use by a kernel driver or another program`, {
      cause,
      hint: 'another overlay in config.txt claims the line; choose another line or drop the overlay',
    })
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new IotchainError('sensor/not-permitted', `this user may not use ${name}`, {
      cause,
      hint: 'add the user to group gpio',
    })
  }
  if (code === 'EINVAL' && path?.endsWith('/export') !== false) {
    return new IotchainError('sensor/no-such-line', `${name} does not exist`, { cause })
  }
  return new IotchainError('sensor/gpio', `${name}: ${code ?? 'error'} in ${syscall ?? 'access'}`, { cause })
}
