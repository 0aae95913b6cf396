import { createSocket } from 'node:dgram'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { CoapClient } from '../../../transport/coap/client.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import { Router } from '../../../transport/coap/server.ts'
import { bindUdp, connectUdp, type UdpTransport } from '../../../transport/coap/udp.ts'

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function serve(host: string): Promise<{ transport: UdpTransport; endpoint: CoapEndpoint }> {
  const router = new Router().add({
    pattern: '/hello',
    get: () => ({ code: Code.content, payload: utf8('hello') }),
    put: ({ payload }) => ({ code: Code.changed, payload }),
  })
  const transport = await bindUdp({ host })
  const endpoint = new CoapEndpoint(transport, { router })
  closers.push(() => endpoint.close())
  return { transport, endpoint }
}

async function dial(port: number, host: string): Promise<CoapClient> {
  const transport = await connectUdp(host, port)
  const client = new CoapClient(new CoapEndpoint(transport), await transport.peer(host, port))
  closers.push(() => client.close())
  return client
}

describe.each([
  ['the native module, where it is built', undefined],
  ["Node's dgram", '/no/such/binding'],
])('CoAP over UDP by %s', (_name, binding) => {
  beforeEach(() => {
    if (binding !== undefined) vi.stubEnv('IOTCHAIN_DTLS_BINDING', binding)
  })
  afterEach(() => void vi.unstubAllEnvs())

  test.each([
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['::', '127.0.0.1'],
  ])('a server at %s answers a client that dials %s', async (bound, dialled) => {
    const { transport } = await serve(bound)
    const client = await dial(transport.address.port, dialled)
    expect((await client.get('/hello')).text).toBe('hello')
    const body = new Uint8Array(5000).fill(7)
    expect(new Uint8Array((await client.put('/hello', body)).payload)).toEqual(body)
  })

  test('a client that is not connected to one server reaches it too', async () => {
    const { transport } = await serve('127.0.0.1')
    const own = await bindUdp({ host: '127.0.0.1' })
    const endpoint = new CoapEndpoint(own)
    closers.push(() => endpoint.close())
    const peer = await own.peer('localhost', transport.address.port)
    expect((await endpoint.request(peer, { path: '/hello' })).text).toBe('hello')
    expect(await endpoint.ping(peer)).toBeGreaterThan(0)
  })

  test('a port where nothing listens is told apart from silence', async () => {
    const probe = createSocket('udp4')
    const port = await new Promise<number>((resolve) => {
      probe.bind(0, '127.0.0.1', () => resolve(probe.address().port))
    })
    await new Promise<void>((resolve) => probe.close(() => resolve()))
    const client = await dial(port, '127.0.0.1')
    const fast = new CoapEndpoint(await connectUdp('127.0.0.1', port), { limits: { ackTimeoutMs: 20 } })
    closers.push(() => fast.close())
    await expect(fast.request(client.peer, { path: '/x' })).rejects.toMatchObject({ code: 'coap/unreachable' })
  })

  test('what cannot be sent is lost, and nothing else happens', async () => {
    const { transport, endpoint } = await serve('127.0.0.1')
    const datagram = Buffer.from([0x40, 0, 0, 1])
    for (const [address, port] of [
      ['127.0.0.1', 0],
      ['127.0.0.1', 70_000],
      ['127.0.0.1', -1],
      ['::1', 5683],
      ['240.0.0.1', 5683],
      ['nonsense', 5683],
    ] as const) {
      transport.send(datagram, { key: `${address}|${port}`, address, port })
    }
    transport.send(new Uint8Array(70_000), { key: 'x', address: '127.0.0.1', port: 5683 })
    const client = await dial(endpoint.address.port, '127.0.0.1')
    expect((await client.get('/hello')).text).toBe('hello')
    await endpoint.close()
    transport.send(datagram, client.peer)
    await transport.close()
  })

  test('a busy port is named', async () => {
    const { transport } = await serve('127.0.0.1')
    const again = bindUdp({ host: '127.0.0.1', port: transport.address.port })
    await expect(again).rejects.toMatchObject({ code: 'coap/port-busy' })
    await expect(bindUdp({ host: '203.0.113.9' })).rejects.toMatchObject({ code: 'coap/bad-address' })
  })

  test('the receive buffer takes a burst', async () => {
    const { endpoint, transport } = await serve('127.0.0.1')
    const socket = createSocket('udp4')
    closers.push(() => new Promise((resolve) => socket.close(() => resolve())))
    let answers = 0
    await new Promise<void>((resolve) => {
      socket.on('message', () => {
        answers++
        if (answers === 256) resolve()
      })
      socket.bind(0, '127.0.0.1', () => {
        socket.setRecvBufferSize(1024 * 1024)
        const get = Buffer.from([0x51, 1, 0, 0, 9, 0xb5, 0x68, 0x65, 0x6c, 0x6c, 0x6f])
        for (let i = 0; i < 256; i++) {
          get.writeUInt16BE(i, 2)
          socket.send(Buffer.from(get), transport.address.port, '127.0.0.1')
        }
      })
    })
    expect(endpoint.stats.requestsServed).toBe(256)
  })
})
