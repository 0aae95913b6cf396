/** A deterministic series: a slow swing with noise, the same for the same seed on every host. */
import type { SettingsOf } from '../resource-settings.ts'
import type { Description, Driver, Measurement } from './driver.ts'

export function createDriver(settings: SettingsOf<'simulated'>): Driver {
  let n = 0
  return {
    async start() {
      n = 0
    },
    async read(): Promise<readonly Measurement[]> {
      return [{ v: simulatedValue(settings, n++), u: settings.unit, quality: 'ok' }]
    },
    async stop() {},
    describe(): Description {
      return {
        rt: 'iotchain.simulated',
        if: 'core.s',
        unit: settings.unit,
        title: settings.title ?? 'simulated values',
        simulated: true,
      }
    },
  }
}

/** Value n of the series: reproducible in tests and in the demo. */
export function simulatedValue(
  settings: Pick<SettingsOf<'simulated'>, 'seed' | 'min' | 'max' | 'decimals' | 'periodSamples'>,
  n: number,
): number {
  const { seed, min, max, decimals, periodSamples } = settings
  const phase = (2 * Math.PI * ((n + hash(seed, 0) * periodSamples) % periodSamples)) / periodSamples
  const swing = 0.5 + 0.4 * Math.sin(phase) + 0.2 * (hash(seed, n + 1) - 0.5)
  const scale = 10 ** decimals
  return Math.round((min + (max - min) * swing) * scale) / scale
}

/** A number in [0, 1) from (seed, n): mulberry32's mixing. */
function hash(seed: number, n: number): number {
  let x = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(n + 1, 0x85ebca6b)) >>> 0
  x = Math.imul(x ^ (x >>> 15), x | 1)
  x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
  return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
}
