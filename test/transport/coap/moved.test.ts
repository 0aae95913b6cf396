import type * as os from 'node:os'
import { afterEach, expect, test, vi } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import { Router } from '../../../transport/coap/router.ts'
import { bindUdp, connectUdp } from '../../../transport/coap/udp.ts'

/** A host that moves to another network: the source address of a connected socket is the host's no more. */
const addresses = vi.hoisted(() => ({ lost: [] as string[] }))
vi.mock('node:os', async (original) => {
  const real = await original<typeof os>()
  const networkInterfaces = (): ReturnType<typeof real.networkInterfaces> => {
    const found = Object.entries(real.networkInterfaces())
    const left = found.map(([name, all]) => [name, all?.filter((each) => !addresses.lost.includes(each.address))])
    return Object.fromEntries(left)
  }
  return { ...real, networkInterfaces }
})

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  addresses.lost = []
  vi.restoreAllMocks()
  for (const close of closers.splice(0).reverse()) await close()
})

test.each(['127.0.0.1', '::1'])('a client of %s goes on from another address of its host', async (host) => {
  const ports = new Set<number>()
  const get = ({ peer }: { peer: { port: number } }) => {
    ports.add(peer.port)
    return { code: Code.content, payload: utf8('hello') }
  }
  const server = new CoapEndpoint(await bindUdp({ host }), { router: new Router().add({ pattern: '/hello', get }) })
  const transport = await connectUdp(host, server.address.port)
  const client = new CoapEndpoint(transport)
  closers.push(
    () => server.close(),
    () => client.close(),
  )
  const ask = async () => (await client.request(await transport.peer('', 0), { path: '/hello' })).text
  const later = (ms: number) => {
    const now = performance.now() + ms
    vi.spyOn(performance, 'now').mockReturnValue(now)
  }
  expect(await ask()).toBe('hello')
  later(6000)
  expect(await ask()).toBe('hello')
  expect(ports.size).toBe(1)
  // answers come: there is nothing to look at
  addresses.lost = [host]
  later(1000)
  expect(await ask()).toBe('hello')
  expect(ports.size).toBe(1)
  later(6000)
  expect(await ask()).toBe('hello')
  expect(ports.size).toBe(2)
})
