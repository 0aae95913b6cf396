import { expect, onTestFinished, test } from 'vitest'
import { BroadcastWatcher, type BroadcastWatcherOptions } from '../../device/broadcasts.ts'
import { silentLogger } from '../../runtime/log.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { Code } from '../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { Router } from '../../transport/coap/router.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { dial } from '../../transport/dial.ts'

test.each([
  ['with a running session', { session: 1, nbf: 0, exp: 2_000_000_000 }],
  ['without a session', undefined],
])('a key server that refuses the observation is not asked again and again at once, %s', async (_, current) => {
  let asked = 0
  const router = new Router().add({
    pattern: '/bc/:gid',
    observable: true,
    get: () => {
      asked++
      return { code: Code.notFound }
    },
  })
  const endpoint = new CoapEndpoint(await bindUdp({ host: '127.0.0.1', port: 0 }), { router })
  onTestFinished(() => endpoint.close())
  const origin = `coap://127.0.0.1:${endpoint.address.port}`
  const clients: CoapClient[] = []
  const options = {
    group: {
      gname: '0011223344556677',
      controlGroupUri: `${origin}/bc/0011223344556677`,
      current: () => current,
      newestSession: 1,
    },
    log: silentLogger,
    client: async (uri: string) => {
      const client = await dial(uri)
      clients.push(client)
      return client
    },
    forget: () => {},
    mirrors: [],
    nowSeconds: () => 1_900_000_000,
    retry: { initial: 1000, max: 10_000 },
  } as unknown as BroadcastWatcherOptions
  const watcher = new BroadcastWatcher(options)
  watcher.start()
  await new Promise((resolve) => setTimeout(resolve, 800))
  await watcher.stop()
  await Promise.all(clients.map((c) => c.close()))
  expect(asked).toBeLessThanOrEqual(4)
})
