/** npm coap 1.5 as a foreign peer in this process: its client at our server, our client at its server. */
import {
  Agent,
  createServer,
  type IncomingMessage,
  type ObserveReadStream,
  type ObserveWriteStream,
  type Server,
} from 'coap'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { CoapClient } from '../../../transport/coap/client.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import { Router } from '../../../transport/coap/server.ts'
import { bindUdp, connectUdp } from '../../../transport/coap/udp.ts'

const BIG = Buffer.from(Uint8Array.from({ length: 10_000 }, (_, i) => i * 13))

describe('its client at our server', () => {
  let endpoint: CoapEndpoint
  let agent: Agent
  let value = 0
  let stored: Uint8Array = new Uint8Array(0)

  beforeAll(async () => {
    const router = new Router().add({ pattern: '/big', get: () => ({ code: Code.content, payload: BIG }) }).add({
      pattern: '/v',
      observable: true,
      get: () => ({ code: Code.content, payload: utf8(String(value)), etag: Uint8Array.of(value + 1) }),
      put: ({ payload }) => {
        stored = payload
        return { code: Code.changed }
      },
    })
    endpoint = new CoapEndpoint(await bindUdp({ host: '127.0.0.1' }), { router })
    agent = new Agent({ type: 'udp4' })
  })
  afterAll(async () => {
    agent.close()
    await endpoint.close()
  })

  function ask(
    pathname: string,
    more: object = {},
    body?: Buffer,
    setUp?: (request: ReturnType<Agent['request']>) => void,
  ) {
    return new Promise<IncomingMessage>((resolve, reject) => {
      const request = agent.request({ host: '127.0.0.1', port: endpoint.address.port, pathname, ...more })
      setUp?.(request)
      request.on('response', resolve)
      request.on('error', reject)
      request.end(body)
    })
  }

  test('GET, PUT and 4.04, CON and NON', async () => {
    value = 7
    expect((await ask('/v')).payload.toString()).toBe('7')
    expect((await ask('/v', { confirmable: false })).payload.toString()).toBe('7')
    expect((await ask('/v', { method: 'PUT' }, Buffer.from('new'))).code).toBe('2.04')
    expect(Buffer.from(stored).toString()).toBe('new')
    expect((await ask('/nothing')).code).toBe('4.04')
    const valid = await ask('/v', {}, undefined, (request) => request.setOption('ETag', Buffer.from([8])))
    expect(valid.code).toBe('2.03')
  })

  test('10 kB in blocks', async () => {
    const response = await ask('/big')
    expect(response.payload.equals(BIG)).toBe(true)
  })

  test('notifications, until it asks with Observe=1', async () => {
    value = 0
    const stream = (await ask('/v', { observe: true })) as ObserveReadStream
    const heard: string[] = []
    await new Promise<void>((resolve) => {
      stream.on('data', (chunk: Buffer) => {
        heard.push(chunk.toString())
        if (value === 20) {
          resolve()
          return
        }
        value++
        endpoint.notify('/v')
      })
    })
    expect(heard).toEqual(Array.from({ length: 21 }, (_, i) => String(i)))
    expect(endpoint.stats.observers).toBe(1)
    // its own way, stream.close(), closes the socket: neither RST nor Observe=1 can leave any more
    await ask('/v', { observe: 1, token: stream._packet.token })
    expect(endpoint.stats.observers).toBe(0)
  })
})

describe('our client at its server', () => {
  let server: Server
  let client: CoapClient
  const streams = new Set<ObserveWriteStream>()

  beforeAll(async () => {
    server = createServer({ type: 'udp4' }, (request, response) => {
      if (request.url === '/big') response.end(BIG)
      else if (request.url === '/echo') response.end(request.payload)
      else if (request.url === '/late') setTimeout(() => response.end('late'), 300)
      else if (request.url === '/v' && request.headers['Observe'] === 0) {
        const stream = response as unknown as ObserveWriteStream
        streams.add(stream)
        stream.on('finish', () => streams.delete(stream))
        // without a listener an error would end the process
        stream.on('error', () => streams.delete(stream))
        stream.write('first')
      } else response.end('plain')
    })
    const port = await new Promise<number>((resolve) => {
      server.listen(0, '127.0.0.1', () =>
        resolve((server._sock as unknown as { address(): { port: number } }).address().port),
      )
    })
    const transport = await connectUdp('127.0.0.1', port)
    client = new CoapClient(new CoapEndpoint(transport), await transport.peer('127.0.0.1', port))
  })
  afterAll(async () => {
    await client.close()
    for (const stream of streams) stream.end()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  })

  test('GET, POST and a separate response', async () => {
    expect((await client.get('/plain')).text).toBe('plain')
    expect((await client.get('/plain', { confirmable: false })).text).toBe('plain')
    expect((await client.post('/echo', utf8('hi'))).text).toBe('hi')
    expect((await client.get('/late')).text).toBe('late')
  })

  test('10 kB in blocks, both ways', async () => {
    expect(BIG.equals((await client.get('/big')).payload)).toBe(true)
    // it knows an upload by its token, and we keep one
    expect(BIG.equals((await client.put('/echo', BIG)).payload)).toBe(true)
  })

  test('notifications', async () => {
    const heard: string[] = []
    const observation = client.observe('/v', { onNotification: (n) => heard.push(n.text) })
    await observation.ready
    for (let i = 0; i < 20; i++) {
      for (const stream of streams) stream.write(String(i))
      const deadline = Date.now() + 10_000
      while (heard.length < i + 2 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2))
    }
    expect(heard).toEqual(['first', ...Array.from({ length: 20 }, (_, i) => String(i))])
    observation.close()
  })
})
