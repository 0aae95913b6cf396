/**
 * What a sensor or actuator is to the device: something that can be started, read, perhaps watched and written, and
 * stopped. Drivers know nothing of groups, keys or CoAP; they are loaded only when the configuration names them.
 */
import type { Logger } from '../../runtime/log.ts'

/** `stale`: an older value is repeated. `error`: there is no value that could be trusted. */
export type Quality = 'ok' | 'stale' | 'error'

/** One value as a driver reports it, in SI units by their SenML names (RFC 8428 §12.1). */
export interface Measurement {
  /** Name within a resource of several values (`cpuTemperature`); undefined for its only value. */
  readonly name?: string | undefined
  /** Undefined exactly when quality is `error`. */
  readonly v: number | boolean | string | undefined
  /** SenML unit: Cel, %RH, Pa, V, … */
  readonly u?: string | undefined
  readonly quality: Quality
}

/** A measurement with its time. */
export interface Sample extends Measurement {
  /** Seconds since 1970, fractions allowed; meaningless while `timeQuality` is `boot`. */
  readonly t: number
  /** `boot`: the clock was not yet right; the monotonic time places the sample later. */
  readonly timeQuality: 'synchronised' | 'boot'
  /** Monotonic clock of this run, milliseconds. */
  readonly monotonicMs: number
}

export interface Description {
  /** Resource type (rt=) for /.well-known/core. */
  readonly rt: string
  /** Interface (if=): `core.s` sensor, `core.a` actuator (RFC 9176's neighbours, draft-ietf-core-interfaces). */
  readonly if: string
  /** Unit of the value, where there is one value. */
  readonly unit?: string | undefined
  /** For people: title=. */
  readonly title?: string | undefined
  /** The values are made up; every reading says so in its base name. */
  readonly simulated?: boolean | undefined
}

export interface Driver {
  /** Claims lines and files. A failure is repeated with back-off by the sampler; it never ends the daemon. */
  start(): Promise<void>
  /** Reads all values now. Rejects (any error) when the sensor fails as a whole. */
  read(): Promise<readonly Measurement[]>
  /** Reports changes by itself. Returns what ends it. */
  watch?(onChange: (measurements: readonly Measurement[]) => void): () => void
  /** Actuators: sets the value; resolves when the line has it. */
  write?(value: boolean | number): Promise<void>
  /** Actuators go to their safe state. Called once, also after a failed start. */
  stop(): Promise<void>
  describe(): Description
}

/** What drivers are given beside their settings. */
export interface DriverEnvironment {
  /** `/sys`, or a fixture. */
  readonly sysfsRoot: string
  /** A folder for counters that must survive a restart. */
  readonly stateDirectory: string
  readonly log: Logger
  readonly monotonicMs: () => number
  /** GPIO controller: `auto` or a label; see `gpio-chip.ts`. */
  readonly gpio: { readonly chip: string; readonly allowInternal: boolean }
}
