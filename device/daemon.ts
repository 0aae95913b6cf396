/** The device daemon as `runDaemon` knows it: created from a configuration, started, checked, reloaded, stopped. */
import { join } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'
import type { Daemon, DaemonContext } from '../runtime/daemon.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { adviceFor } from './advice.ts'
import type { Driver } from './drivers/driver.ts'
import { loadDriver } from './drivers/load-driver.ts'
import { type DeviceIdentity, daysLeft, loadIdentity } from './identity.ts'
import { driverEnvironment, Parts } from './parts.ts'
import { RENEWED_FILE } from './renewal.ts'
import type { DeviceSettings } from './settings.ts'

/** What a test or the demo may replace. */
export interface DeviceOptions {
  /** Stands for the machine in the sequence file; see `machineId()`. */
  readonly machine?: string | undefined
  /** Whether the host's clock can be believed; see `hostClockIsRight()`. */
  readonly hostClockIsRight?: ((nowSeconds: number) => Promise<boolean>) | undefined
  readonly dialKeyServer?: ((uri: string, identity: DeviceIdentity) => Promise<CoapClient>) | undefined
}

export interface DeviceDaemon extends Daemon<DeviceSettings> {
  /** Where the device serves, once it runs. */
  readonly address: { readonly address: string; readonly port: number } | undefined
}

/**
 * Reads and checks keys and certificate, loads every driver; opens no socket and no store.
 * @throws `device/not-enrolled` (not for `check`), `device/bad-identity`, and what drivers find wrong in their settings
 */
export async function createDevice(
  settings: DeviceSettings,
  context: DaemonContext,
  options: DeviceOptions = {},
): Promise<DeviceDaemon> {
  const renewed = join(context.resolve(settings.state), RENEWED_FILE)
  const identity = loadIdentity(settings.identity, context.resolve, renewed)
  const missing = 'missing' in identity ? identity.missing.join(', ') : undefined
  if (missing !== undefined && !context.checkOnly) throw notEnrolled(missing)
  const drivers = new Map<string, Driver>()
  const environment = driverEnvironment(settings, context)
  for (const resource of settings.resources) drivers.set(resource.path, await loadDriver(resource, environment))
  let current = settings
  let parts: Parts | undefined
  let starting: Promise<void> | undefined

  return {
    get address() {
      return parts?.address
    },
    async start() {
      if ('missing' in identity) throw notEnrolled(missing as string)
      const left = daysLeft(identity, context.clock.nowMs() / 1000)
      if (left < 14) context.log.warn({ daysLeft: left }, 'the certificate ends soon')
      parts = new Parts({ ...options, settings, context, identity, drivers })
      starting = parts.start()
      await starting
    },
    async stop() {
      await parts?.stop()
      parts = undefined
    },
    health() {
      parts?.health()
    },
    async reload(next) {
      const { resources: _, log: __, ...rest } = next
      const { resources: ___, log: ____, ...before } = current
      if (JSON.stringify(rest) !== JSON.stringify(before)) {
        context.log.warn('settings other than resources and log changed: they count after a restart')
      }
      // The start goes by the configuration of before.
      await starting
      await parts?.apply(next)
      current = next
    },
    advice() {
      const lines = adviceFor(settings)
      return missing === undefined
        ? lines
        : [...lines, `not enrolled yet: ${missing} missing; begin with iotchain-device init`]
    },
  }
}

function notEnrolled(missing: string): IotchainError {
  return new IotchainError('device/not-enrolled', `this device is not enrolled: ${missing} missing`, {
    hint: 'iotchain-device init makes the keys and a request; the key server’s CA makes the certificate from it',
  })
}
