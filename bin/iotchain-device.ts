#!/usr/bin/env node
/** `iotchain-device`: reads sensors, seals their readings, serves them to everybody and uploads them to a proxy. */
import { createDevice } from '../device/daemon.ts'
import { runDaemon } from '../runtime/daemon.ts'
import { registerDeviceCommands } from './commands/device.ts'
import { version } from './terminal/version.ts'

await runDaemon({
  name: 'iotchain-device',
  description: 'reads sensors, seals their readings, serves them to everybody and uploads them to a proxy',
  version: version(),
  schema: async () => (await import('../device/settings.ts')).deviceSettings,
  create: createDevice,
  commands: registerDeviceCommands,
})
