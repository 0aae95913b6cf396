/** The daemon around the proxy: opens the store first, and closes it last. */
import type { Daemon, DaemonContext } from '../runtime/daemon.ts'
import { openLevelStore } from '../store/level.ts'
import type { Store } from '../store/store.ts'
import type { ProxyConfig } from './config.ts'
import { connectKeyServer } from './key-servers.ts'
import { parseListen } from './listen.ts'
import { ObjectProxy } from './proxy.ts'

export function createProxyDaemon(config: ProxyConfig, context: DaemonContext): Daemon<ProxyConfig> {
  if (config.http.listen !== 'off') parseListen(config.http.listen)
  const keyServers = config.keyservers.map((k) =>
    connectKeyServer({ ...k, ca: k.ca === undefined ? undefined : context.resolve(k.ca) }),
  )
  let store: Store | undefined
  let proxy: ObjectProxy | undefined
  return {
    async start() {
      store = await openLevelStore(context.resolve(config.state), { cacheBytes: 8 * 1024 * 1024 })
      const { log, metrics, clock } = context
      proxy = await ObjectProxy.load(config, { log, metrics, clock, store, keyServers })
      await proxy.start()
    },
    async stop() {
      await proxy?.stop()
      await store?.close()
    },
    async health() {
      await store?.get('health')
    },
  }
}
