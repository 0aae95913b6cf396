/** Telemetry of the computer itself, by systeminformation (11 MB: loaded when the first reading is due). */
import type { SettingsOf } from '../resource-settings.ts'
import type { Description, Driver, DriverEnvironment, Measurement } from './driver.ts'

type Field = SettingsOf<'host'>['fields'][number]
type Library = typeof import('systeminformation')

export function createDriver(settings: SettingsOf<'host'>, { log }: DriverEnvironment): Driver {
  let library: Library | undefined
  let told = false

  async function readField(si: Library, field: Field): Promise<Measurement[]> {
    switch (field) {
      case 'cpuTemperature': {
        const { main } = await si.cpuTemperature()
        return typeof main === 'number' && Number.isFinite(main) ? [ok('cpuTemperature', round(main, 2), 'Cel')] : []
      }
      case 'load': {
        const { currentLoad } = await si.currentLoad()
        return [ok('load', round(currentLoad, 2), '%')]
      }
      case 'memory': {
        const { total, available } = await si.mem()
        return [ok('memory', round((100 * (total - available)) / total, 2), '%')]
      }
      case 'disk': {
        const root = (await si.fsSize()).find((f) => f.mount === '/')
        return root === undefined ? [] : [ok('disk', round(root.use, 2), '%')]
      }
      case 'network': {
        const all = await si.networkStats()
        const sum = (pick: (s: (typeof all)[number]) => number): number => all.reduce((n, s) => n + (pick(s) || 0), 0)
        return [
          ok(
            'received',
            sum((s) => s.rx_bytes),
            'B',
          ),
          ok(
            'sent',
            sum((s) => s.tx_bytes),
            'B',
          ),
        ]
      }
      case 'uptime':
        return [ok('uptime', Math.floor(si.time().uptime), 's')]
    }
  }

  return {
    async start() {},
    async read() {
      library ??= await loadLibrary()
      const si = library
      const values = (await Promise.all(settings.fields.map((field) => readField(si, field)))).flat()
      if (values.length > 0) return values
      if (!told)
        log.warn(
          { path: settings.path, fields: settings.fields },
          'this host has none of the fields: its load is read instead',
        )
      told = true
      return readField(si, 'load')
    },
    async stop() {},
    describe(): Description {
      return { rt: 'iotchain.host', if: 'core.s', title: settings.title ?? 'host telemetry' }
    },
  }
}

async function loadLibrary(): Promise<Library> {
  const loaded = await import('systeminformation')
  return (loaded as { default?: Library }).default ?? loaded
}

function ok(name: string, v: number, u: string): Measurement {
  return { name, v, u, quality: 'ok' }
}

function round(value: number, decimals: number): number {
  const scale = 10 ** decimals
  return Math.round(value * scale) / scale
}
