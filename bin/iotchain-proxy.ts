#!/usr/bin/env node
/** `iotchain-proxy`: stores and serves sealed objects that it can verify and cannot read. */
import { proxySchema } from '../proxy/config.ts'
import { createProxyDaemon } from '../proxy/daemon.ts'
import { runDaemon } from '../runtime/daemon.ts'
import { version } from './terminal/version.ts'

await runDaemon({
  name: 'iotchain-proxy',
  description: 'stores and serves sealed objects of devices: verifies each, can read none',
  version: version(),
  schema: async () => proxySchema,
  create: createProxyDaemon,
})
