#!/usr/bin/env node
import { keyServerSchema } from '../keyserver/config.ts'
import { runDaemon } from '../runtime/daemon.ts'
/** `iotchain-keyserver`: admits devices and clients by what the chain says, and makes the group keys. */
import { registerKeyServerCommands } from './commands/keyserver.ts'
import { version } from './terminal/version.ts'

await runDaemon({
  name: 'iotchain-keyserver',
  description: 'admits devices and clients by what the chain says, and makes the group keys',
  version: version(),
  schema: async () => keyServerSchema,
  create: async (config, context) => (await import('../keyserver/daemon.ts')).createKeyServerDaemon(config, context),
  commands: registerKeyServerCommands,
})
