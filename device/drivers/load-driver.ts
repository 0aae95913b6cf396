/** Drivers by name, each imported only when a resource asks for it. */
import type { ResourceSettings } from '../resource-settings.ts'
import type { Driver, DriverEnvironment } from './driver.ts'

export async function loadDriver(settings: ResourceSettings, environment: DriverEnvironment): Promise<Driver> {
  switch (settings.driver) {
    case 'host':
      return (await import('./host.ts')).createDriver(settings, environment)
    case 'simulated':
      return (await import('./simulated.ts')).createDriver(settings)
    case 'simulated-out':
      return (await import('./simulated-out.ts')).createDriver(settings)
    case 'gpio-digital':
      return (await import('./gpio-digital.ts')).createDriver(settings, environment)
    case 'gpio-pulse':
      return (await import('./gpio-pulse.ts')).createDriver(settings, environment)
    case 'gpio-out':
      return (await import('./gpio-out.ts')).createDriver(settings, environment)
    case 'w1':
      return (await import('./w1.ts')).createDriver(settings, environment)
    case 'iio':
      return (await import('./iio.ts')).createDriver(settings, environment)
    case 'hwmon':
      return (await import('./hwmon.ts')).createDriver(settings, environment)
    case 'exec':
      return (await import('./exec.ts')).createDriver(settings)
    case 'file':
      return (await import('./file.ts')).createDriver(settings)
  }
}
