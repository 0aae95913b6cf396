/** The device's figures for Prometheus, asked at each scrape. */
import type { Metrics } from '../runtime/metrics.ts'
import type { Commands } from './commands.ts'
import type { DeviceTime } from './device-time.ts'
import type { SealedStore } from './sealed-store.ts'
import type { Sealing } from './sealing.ts'
import type { Uploader } from './uploader.ts'

export interface GaugeSources {
  readonly sealing: Sealing
  readonly objects: SealedStore
  readonly uploader: Uploader | undefined
  readonly commands: Commands
  readonly time: DeviceTime
  readonly daysLeft: () => number
}

export function registerGauges(metrics: Metrics, sources: GaugeSources): void {
  const { sealing, objects, uploader, commands, time, daysLeft } = sources
  const gauge = (name: string, help: string, read: () => number): void => {
    metrics.gauge(`iotchain_device_${name}`, help, read)
  }
  gauge('waiting_readings', 'Readings that wait for a session key.', () => sealing.waiting)
  gauge('dropped_readings', 'Readings that fell out of the ring.', () => sealing.dropped)
  gauge('queued_objects', 'Sealed objects that wait for the proxy.', () => objects.queued)
  gauge('dropped_objects', 'Sealed objects that fell out of the ring.', () => objects.dropped)
  gauge('store_failing', '1 while the last write to the store has failed.', () =>
    objects.lastError === undefined ? 0 : 1,
  )
  gauge('uploaded_objects', 'Objects that the proxy took.', () => uploader?.uploaded ?? 0)
  gauge('refused_objects', 'Objects that the proxy will never take.', () => uploader?.refused ?? 0)
  gauge('commands_taken', 'Commands that moved an actuator.', () => commands.taken)
  gauge('commands_refused', 'Commands that were refused.', () => commands.refused)
  gauge('certificate_days', 'Days until the certificate ends.', daysLeft)
  gauge('clock', 'Source of the time: 0 none, 1 host, 2 key server.', () =>
    ['none', 'host', 'server'].indexOf(time.source),
  )
}
