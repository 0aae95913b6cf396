import { afterEach, beforeAll, expect, test } from 'vitest'
import { fromUtf8, utf8 } from '../../../protocol/bytes.ts'
import { deviceAddressOf, spkiSha256 } from '../../../runtime/pki/certificate.ts'
import type { CoapClient } from '../../../transport/coap/client.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import { Router } from '../../../transport/coap/router.ts'
import type { Peer } from '../../../transport/coap/transport.ts'
import { bindUdp } from '../../../transport/coap/udp.ts'
import { type DialOptions, dial } from '../../../transport/dial.ts'
import { dtlsServerTransport } from '../../../transport/dtls/coap-transport.ts'
import type { ListenOptions } from '../../../transport/dtls/types.ts'
import { ADDRESS, createWorld, type World } from './authority.ts'

/** CoAP over DTLS, by URI. */
let world: World
const open: { close(): unknown }[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function serve(options: Partial<ListenOptions> = {}) {
  const { cert, key } = world.server
  const transport = await dtlsServerTransport({
    port: 0,
    host: '127.0.0.1',
    cert,
    key,
    ca: world.ca,
    clientAuth: 'optional',
    ...options,
  })
  const peers: Peer[] = []
  let count = 0
  const router = new Router()
    .add({
      pattern: '/who',
      get: ({ peer }) => {
        peers.push(peer)
        const certificate = peer.secure?.certificate
        const name = certificate === undefined ? 'anonymous' : (deviceAddressOf(certificate) ?? 'nameless')
        return { code: Code.content, payload: utf8(peer.secure?.authorized ? name : `${name} unauthorized`) }
      },
    })
    .add({ pattern: '/big', get: () => ({ code: Code.content, payload: new Uint8Array(10_000).fill(7) }) })
    .add({ pattern: '/count', observable: true, get: () => ({ code: Code.content, payload: utf8(`${count}`) }) })
    .add({ pattern: '/echo', post: ({ payload }) => ({ code: Code.content, payload }) })
  const endpoint = new CoapEndpoint(transport, { router })
  open.push(endpoint)
  const advance = (): void => {
    count++
    endpoint.notify('/count')
  }
  return { transport, endpoint, peers, advance, uri: `coaps://127.0.0.1:${transport.address.port}` }
}

async function client(uri: string, options: DialOptions = {}): Promise<CoapClient> {
  const made = await dial(uri, options)
  open.push(made)
  return made
}

test('a device and a stranger at the same port', async () => {
  const server = await serve()
  const { cert, key } = world.device
  const device = await client(server.uri, { secure: { ca: world.ca, cert, key } })
  const stranger = await client(server.uri, { secure: { expectSpki: spkiSha256(world.server.cert) } })
  expect(fromUtf8((await device.get('/who')).payload)).toBe(ADDRESS)
  expect(fromUtf8((await stranger.get('/who')).payload)).toBe('anonymous unauthorized')
  const [a, b] = server.peers
  expect(a!.key).not.toBe(b!.key)
  expect(a!.secure!.channelBinding()).toEqual(device.peer.secure!.channelBinding())
  expect(b!.secure!.channelBinding()).toEqual(stranger.peer.secure!.channelBinding())
  expect(device.peer.secure!.authorized).toBe(true)
})

test('blocks, bodies and notifications', async () => {
  const server = await serve()
  const anybody = await client(server.uri, { secure: { ca: world.ca } })
  expect((await anybody.get('/big')).payload).toEqual(Buffer.alloc(10_000, 7))
  const body = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251))
  expect((await anybody.post('/echo', body)).payload).toEqual(body)
  const seen: string[] = []
  const observation = anybody.observe('/count', {
    onNotification: ({ payload }) => {
      seen.push(fromUtf8(payload))
    },
    onEnd: () => undefined,
  })
  await expect.poll(() => seen).toEqual(['0'])
  server.advance()
  await expect.poll(() => seen.at(-1)).toBe('1')
  observation.close()
})

test('the end of an association ends what waits on it', async () => {
  const server = await serve()
  const anybody = await client(server.uri, { secure: { ca: world.ca } })
  await anybody.get('/who')
  let ended: Error | undefined | 'open' = 'open'
  anybody.observe('/count', {
    onNotification: () => undefined,
    onEnd: (error) => {
      ended = error
    },
  })
  await anybody.get('/who')
  for (const association of server.transport.endpoint.associations()) association.close()
  await expect.poll(() => ended).not.toBe('open')
  await expect(anybody.get('/who')).rejects.toMatchObject({
    code: expect.stringMatching(/^coap\/(unreachable|closed)$/),
  })
})

test('refusals reach the caller of dial', async () => {
  const server = await serve()
  const wrong = { secure: { expectSpki: spkiSha256(world.device.cert) } }
  await expect(dial(server.uri, wrong)).rejects.toMatchObject({ code: 'dtls/refused' })
  await expect(dial(server.uri)).rejects.toMatchObject({ code: 'dtls/no-trust' })
  await expect(dial('coap://127.0.0.1', wrong)).rejects.toMatchObject({ code: 'coap/bad-uri' })
  await expect(dial('http://127.0.0.1')).rejects.toMatchObject({ code: 'coap/bad-uri' })
})

test('plain CoAP by URI', async () => {
  const transport = await bindUdp({ host: '127.0.0.1', port: 0 })
  const router = new Router().add({
    pattern: '/who',
    get: ({ peer }) => ({ code: Code.content, payload: utf8(peer.secure === undefined ? 'plain' : 'secure') }),
  })
  open.push(new CoapEndpoint(transport, { router }))
  const plain = await client(`coap://127.0.0.1:${transport.address.port}`)
  expect(fromUtf8((await plain.get('/who')).payload)).toBe('plain')
})
