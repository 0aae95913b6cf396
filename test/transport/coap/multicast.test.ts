import { afterEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { CoapClient } from '../../../transport/coap/client.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../../transport/coap/endpoint.ts'
import { encodeMessage, MessageType } from '../../../transport/coap/message.ts'
import { textOption, uintOption } from '../../../transport/coap/option-set.ts'
import { OptionNumber } from '../../../transport/coap/options.ts'
import { PIPE_GROUP, PipeNetwork, PipePeer, seededRandom } from '../../../transport/coap/pipe.ts'
import { Router } from '../../../transport/coap/server.ts'
import { bindUdp } from '../../../transport/coap/udp.ts'
import { VirtualTimers } from '../../../transport/coap/virtual-timers.ts'

const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0)) await close()
})

function setup(servers: number) {
  const timers = new VirtualTimers()
  const network = new PipeNetwork({ latencyMs: 2, timers })
  const group = new PipePeer(PIPE_GROUP, 5683)
  const taken: string[] = []
  const endpoints = Array.from({ length: servers }, (_, i) => {
    const router = new Router()
      .add({ pattern: '/temp', get: () => ({ code: Code.content }), attributes: { rt: 'temperature' } })
      .add({ pattern: `/only${i}`, get: () => ({ code: Code.content }), attributes: { rt: `only${i}` } })
      .add({
        pattern: '/bc/:gid',
        multicast: true,
        post: ({ params, payload, multicast }) => {
          taken.push(`${i} ${params['gid']} ${payload.length} ${multicast}`)
          return { code: Code.changed }
        },
        get: () => ({ code: Code.content, payload: new Uint8Array(2000).fill(i) }),
      })
    const random = seededRandom(i + 1)
    const endpoint = new CoapEndpoint(network.attach(`192.0.2.${i + 1}`, 5683), { router, timers, random })
    closers.push(() => endpoint.close())
    return endpoint
  })
  const transport = network.attach('192.0.2.100', 50_000)
  const asker = new CoapEndpoint(transport, { timers })
  closers.push(() => asker.close())
  return { timers, network, group, endpoints, asker, transport, taken }
}

describe('a request to a group', () => {
  test('is answered by all that have something, each after a while of its own', async () => {
    const { timers, group, asker, endpoints } = setup(20)
    const times: number[] = []
    const all = asker.multicast(group, {
      path: '/.well-known/core?rt=temperature',
      onResponse: () => times.push(timers.monotonicMs()),
    })
    const responses = await timers.until(all)
    expect(new Set(responses.map((r) => r.peer.address)).size).toBe(20)
    expect(responses.every((r) => r.text === '</temp>;rt="temperature"')).toBe(true)
    expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(2000)
    expect(Math.max(...times)).toBeLessThan(5100)
    expect(endpoints.reduce((sum, e) => sum + e.stats.datagramsSent, 0)).toBe(20)
  })

  test('is not answered by those that have nothing, nor with an error', async () => {
    const { timers, group, asker, endpoints } = setup(5)
    const core = await timers.until(asker.multicast(group, { path: '/.well-known/core', query: ['rt=only3'] }))
    expect(core.map((r) => r.peer.address)).toEqual(['192.0.2.4'])
    expect(await timers.until(asker.multicast(group, { path: '/nowhere' }))).toEqual([])
    // a resource that does not say it takes part
    expect(await timers.until(asker.multicast(group, { path: '/temp' }))).toEqual([])
    expect(endpoints.reduce((sum, e) => sum + e.stats.datagramsSent, 0)).toBe(1)
  })

  test('may want no answer at all', async () => {
    const { timers, group, asker, endpoints, taken } = setup(3)
    const sent = asker.multicast(group, { method: 'POST', path: '/bc/ff', payload: new Uint8Array(300), windowMs: 0 })
    expect(await timers.until(sent)).toEqual([])
    await timers.advance(10_000)
    expect(taken).toEqual(['0 ff 300 true', '1 ff 300 true', '2 ff 300 true'])
    expect(endpoints.reduce((sum, e) => sum + e.stats.datagramsSent, 0)).toBe(0)
  })

  test('gets the later blocks of a response by unicast', async () => {
    const { timers, group, asker } = setup(3)
    const responses = await timers.until(asker.multicast(group, { path: '/bc/ff' }))
    expect(responses.map((r) => r.payload.length)).toEqual([2000, 2000, 2000])
  })

  test('must not be confirmable, and never draws RST', async () => {
    const { timers, group, endpoints, transport } = setup(3)
    const options = [textOption(OptionNumber.uriPath, 'bc'), textOption(OptionNumber.uriPath, 'x')]
    for (const [type, code] of [
      [MessageType.con, Code.get],
      [MessageType.con, 0],
      [MessageType.non, Code.content],
    ] as const) {
      transport.send(encodeMessage({ type, code, messageId: 1, options: code === 0 ? [] : options }), group)
    }
    const critical = [...options, uintOption(9, 1)]
    transport.send(encodeMessage({ type: MessageType.non, code: Code.get, messageId: 2, options: critical }), group)
    transport.send(Buffer.from('40010001ff', 'hex'), group)
    await timers.advance(10_000)
    expect(endpoints.reduce((sum, e) => sum + e.stats.datagramsSent, 0)).toBe(0)
  })
})

test('no response to a group is an error, whatever the request asks for', async () => {
  const { timers, endpoints, transport, group } = setup(1)
  const core = ['.well-known', 'core'].map((each) => textOption(OptionNumber.uriPath, each))
  const bc = [textOption(OptionNumber.uriPath, 'bc'), textOption(OptionNumber.uriPath, 'x')]
  // a block that is not there; the reserved block size; no allowance left for a reply that is larger than the request
  const shapes = [
    [...core, uintOption(OptionNumber.block2, 0xffff6)],
    [...core, uintOption(OptionNumber.block2, 7)],
    ...new Array(100).fill(bc),
  ]
  for (const [messageId, options] of shapes.entries()) {
    transport.send(encodeMessage({ type: MessageType.non, code: Code.get, messageId, options }), group)
  }
  const codes: number[] = []
  transport.onmessage = (datagram) => codes.push((datagram[1] as number) >> 5)
  await timers.advance(10_000)
  expect(new Set(codes)).toEqual(new Set([2]))
  expect(endpoints[0]?.stats.dropped.amplification).toBeGreaterThan(50)
})

test('two servers do not share a port, whether or not they listen to groups', async () => {
  const multicast = { groups: [] }
  const first = await bindUdp({ host: '::', port: 0, multicast })
  closers.push(() => first.close())
  await expect(bindUdp({ host: '::', port: first.address.port, multicast })).rejects.toMatchObject({
    code: 'coap/port-busy',
  })
})

test('over UDP on this host, an IPv4 group reaches the group and is answered from the port of the server', async (context) => {
  const router = new Router().add({ pattern: '/x', attributes: { rt: 'x' }, get: () => ({ code: Code.content }) })
  const probe = await bindUdp({ host: '127.0.0.1' })
  const { port } = probe.address
  await probe.close()
  const failures: string[] = []
  const transport = await bindUdp({
    host: '0.0.0.0',
    multicast: { groups: ['224.0.1.187'], interfaces: ['lo'], port, onFailure: (e) => failures.push(e.message) },
  })
  const server = new CoapEndpoint(transport, { router, limits: { leisureMs: 50 } })
  closers.push(() => server.close())
  if (failures.length > 0) {
    context.skip(`skipped: no multicast on loopback here (${failures[0]})`)
    return
  }
  expect(transport.groups).toEqual(['224.0.1.187%lo'])
  const own = await bindUdp({ host: '0.0.0.0', multicastInterface: '127.0.0.1' })
  const asker = new CoapEndpoint(own)
  closers.push(() => asker.close())
  // the group has a port of its own: everybody is asked at the standard one, wherever they serve
  const group = await own.peer('224.0.1.187', port)
  const responses = await asker.multicast(group, { path: '/.well-known/core', windowMs: 400 })
  if (responses.length === 0) context.skip('skipped: the host does not deliver multicast on loopback')
  expect(responses.map((r) => [r.text, r.peer.port])).toEqual([['</x>;rt="x"', server.address.port]])
  expect(server.stats.requestsServed).toBe(1)
  const client = new CoapClient(asker, await own.peer('127.0.0.1', server.address.port))
  expect((await client.get('/x', { confirmable: false })).codeText).toBe('2.05')
  expect((await client.put('/x', utf8(''), { confirmable: true })).codeText).toBe('4.05')
})
