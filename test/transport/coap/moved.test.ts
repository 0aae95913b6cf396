import type * as os from 'node:os'
import { afterEach, expect, test, vi } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import { Router } from '../../../transport/coap/router.ts'
import { bindUdp, connectUdp } from '../../../transport/coap/udp.ts'

/** Either end of a connected socket moves to another network. */
const addresses = vi.hoisted(() => ({ lost: [] as string[], server: '127.0.0.1' }))
vi.mock('node:dns/promises', () => ({ lookup: async () => ({ address: addresses.server, family: 4 }) }))
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
  addresses.server = '127.0.0.1'
  vi.restoreAllMocks()
  skippedMs = 0
  for (const close of closers.splice(0).reverse()) await close()
})

/** A server, and how a client asks one of that port. */
async function serve(host: string, port = 0) {
  const ports = new Set<number>()
  const get = ({ peer }: { peer: { port: number } }) => {
    ports.add(peer.port)
    return { code: Code.content, payload: utf8(host) }
  }
  const router = new Router().add({ pattern: '/where', get })
  const endpoint = new CoapEndpoint(await bindUdp({ host, port }), { router })
  closers.push(() => endpoint.close())
  return { ports, endpoint, port: endpoint.address.port }
}

async function clientOf(host: string, port: number): Promise<() => Promise<string>> {
  const transport = await connectUdp(host, port)
  const client = new CoapEndpoint(transport, { limits: { ackTimeoutMs: 50 } })
  closers.push(() => client.close())
  return async () => (await client.request(await transport.peer('', 0), { path: '/where' })).text
}

const realNow = performance.now.bind(performance)
let skippedMs = 0
function later(ms: number): void {
  skippedMs += ms
  vi.spyOn(performance, 'now').mockImplementation(() => realNow() + skippedMs)
}

test.each(['127.0.0.1', '::1'])('a client of %s goes on from another address of its host', async (host) => {
  const server = await serve(host)
  const ask = await clientOf(host, server.port)
  expect(await ask()).toBe(host)
  addresses.lost = [host]
  // answers come: there is nothing to look at
  later(6000)
  expect(await ask()).toBe(host)
  expect(server.ports.size).toBe(1)
  await server.endpoint.close()
  await expect(ask()).rejects.toMatchObject({ code: 'coap/unreachable' })
  const again = await serve(host, server.port)
  later(6000)
  expect(await ask()).toBe(host)
  expect(again.ports.has([...server.ports][0] as number)).toBe(false)
})

test.skipIf(process.platform !== 'linux')('a client of a name follows it to another address', async () => {
  const server = await serve('127.0.0.1')
  await serve('127.0.0.2', server.port)
  const ask = await clientOf('moves.test', server.port)
  addresses.server = '127.0.0.2'
  later(6000)
  expect(await ask()).toBe('127.0.0.1')
  await server.endpoint.close()
  await expect(ask()).rejects.toMatchObject({ code: 'coap/unreachable' })
  later(6000)
  // the look takes a turn of the event loop
  await ask().catch(() => undefined)
  expect(await ask()).toBe('127.0.0.2')
})
