/** The settings of a resource: what all have in common, and what each driver adds. */
import { durationMs } from '../runtime/duration.ts'
import * as z from '../runtime/zod.ts'

const segment = /^\/[sa](\/[A-Za-z0-9._~-]{1,64}){1,4}$/

const common = {
  path: z
    .string()
    .regex(segment, 'must be /s/name (sensor) or /a/name (actuator); names have letters, digits, ".", "_", "~", "-"')
    .describe('CoAP path: /s/… for sensors, /a/… for actuators.'),
  group: z.number().int().min(0).max(31).describe('Who may read: the bit of the claims in a client’s token, 0 to 31.'),
  every: durationMs({ min: '100ms', max: '7d' })
    .optional()
    .describe('Sampling period; 60s where neither this nor "on" is given.'),
  on: z
    .literal('change')
    .optional()
    .describe('Report changes when they happen (with "every" besides: at the latest after that).'),
  title: z.string().max(80).optional().describe('A name for people, shown in /.well-known/core.'),
}

const bcm = z.number().int().min(0).max(57).describe('GPIO by its BCM number (not the pin on the header).')
const unit = z.string().min(1).max(16).optional().describe('SenML unit of the value, e.g. Cel, %RH, kWh.')

export const resourceSettings = z.discriminatedUnion('driver', [
  z
    .strictObject({
      driver: z.literal('host'),
      ...common,
      fields: z
        .array(z.enum(['cpuTemperature', 'load', 'memory', 'disk', 'network', 'uptime']))
        .min(1)
        .default(['cpuTemperature', 'load', 'memory'])
        .describe(
          'What to read. A field that the host does not have is left out; cpuTemperature alone falls back to load.',
        ),
    })
    .describe('Telemetry of the computer itself.'),
  z
    .strictObject({
      driver: z.literal('simulated'),
      ...common,
      seed: z.number().int().min(0).default(1).describe('Same seed, same series.'),
      min: z.number().default(15).describe('Lowest value.'),
      max: z.number().default(25).describe('Highest value.'),
      decimals: z.number().int().min(0).max(6).default(2).describe('Digits after the point.'),
      unit,
      periodSamples: z.number().int().min(2).default(60).describe('Samples of one full swing.'),
    })
    .describe('A made-up, repeatable series; every reading says that it is simulated.'),
  z
    .strictObject({
      driver: z.literal('simulated-out'),
      ...common,
      commandGroup: z
        .number()
        .int()
        .min(0)
        .max(31)
        .optional()
        .describe('Who may command: the bit of the claims. None: nobody.'),
      safe: z.enum(['on', 'off']).default('off').describe('State at start and stop.'),
    })
    .describe('An actuator in memory, for tries and tests.'),
  z
    .strictObject({
      driver: z.literal('gpio-digital'),
      ...common,
      bcm,
      activeLow: z.boolean().default(false).describe('The line is low when the thing is on.'),
      debounceMs: z
        .number()
        .int()
        .min(0)
        .max(10_000)
        .default(0)
        .describe('A level counts when it has stood for so long.'),
    })
    .describe('A level: door contact, motion detector, button.'),
  z
    .strictObject({
      driver: z.literal('gpio-pulse'),
      ...common,
      bcm,
      pulsesPerUnit: z
        .number()
        .positive()
        .default(1)
        .describe('Pulses that make one unit (an S0 meter: 1000 per kWh).'),
      unit,
      edge: z.enum(['rising', 'falling']).default('rising').describe('The edge that counts.'),
      minPulseMs: z.number().int().min(0).max(10_000).default(0).describe('Edges closer together than this are noise.'),
    })
    .describe('A counter that never goes back, kept on disk, and its rate.'),
  z
    .strictObject({
      driver: z.literal('gpio-out'),
      ...common,
      bcm,
      activeLow: z.boolean().default(false).describe('The line is low when the thing is on.'),
      commandGroup: z
        .number()
        .int()
        .min(0)
        .max(31)
        .optional()
        .describe('Who may command: the bit of the claims. None: nobody.'),
      safe: z.enum(['on', 'off']).default('off').describe('State at start and stop.'),
    })
    .describe('An actuator on a line: relay, valve, lamp.'),
  z
    .strictObject({
      driver: z.literal('w1'),
      ...common,
      id: z
        .string()
        .regex(/^[0-9a-f]{2}-[0-9a-f]{12}$/, 'must look like 28-0316a2795fff')
        .optional()
        .describe('1-Wire address; without it the only sensor on the bus.'),
    })
    .describe('A DS18B20 or its like on the 1-Wire bus.'),
  z
    .strictObject({
      driver: z.literal('iio'),
      ...common,
      name: z.string().min(1).describe('The kernel’s name of the chip: bme280, bmp280, dht11, mcp3008, …'),
      channel: z
        .string()
        .regex(/^[a-z0-9]+$/i)
        .describe('Channel: temp, pressure, humidityrelative, voltage0, …'),
      unit,
      scale: z.number().default(1).describe('The value is multiplied by this, for dividers and shunts.'),
    })
    .describe('A sensor with an industrial I/O kernel driver.'),
  z
    .strictObject({
      driver: z.literal('hwmon'),
      ...common,
      name: z.string().min(1).describe('The kernel’s name of the chip: sht3x, lm75, ina219, rpi_volt, …'),
      channel: z
        .string()
        .regex(/^[a-z]+[0-9]+$/)
        .describe('Channel: temp1, humidity1, in1, curr1, power1, …'),
      unit,
      scale: z.number().default(1).describe('The value is multiplied by this.'),
    })
    .describe('A sensor with a hardware-monitoring kernel driver.'),
  z
    .strictObject({
      driver: z.literal('exec'),
      ...common,
      command: z.array(z.string()).min(1).describe('Program and arguments, without a shell. It prints one JSON line.'),
      timeout: durationMs({ min: '100ms', max: '1h' }).prefault('10s').describe('It is ended when it takes longer.'),
      unit,
    })
    .describe('Any program: a JSON number, or {"v":…,"u":…}, or {"name":{"v":…,"u":…},…}.'),
  z
    .strictObject({
      driver: z.literal('file'),
      ...common,
      file: z.string().describe('A file with one JSON line (or a number), written by another program.'),
      maxAge: durationMs({ min: '1s' }).optional().describe('An older file counts as stale.'),
      unit,
    })
    .describe('A file that another program keeps up to date.'),
])

export type ResourceSettings = z.output<typeof resourceSettings>
export type DriverName = ResourceSettings['driver']
export type SettingsOf<D extends DriverName> = Extract<ResourceSettings, { driver: D }>
