import { afterAll, beforeAll, expect, test } from 'vitest'
import { toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Gid, gname } from '../../protocol/groups/gid.ts'
import { decodeBatchReply, encodeBatch } from '../../protocol/messages/batch.ts'
import { proxySchema } from '../../proxy/config.ts'
import type { KeyServer } from '../../proxy/key-servers.ts'
import { ObjectProxy } from '../../proxy/proxy.ts'
import { silentLogger } from '../../runtime/log.ts'
import { createMetrics } from '../../runtime/metrics.ts'
import { openMemoryStore } from '../../store/memory.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import type { RequestInit } from '../../transport/coap/messages.ts'
import { dial } from '../../transport/dial.ts'
import { TestClock, TestDevice, type TestGroup, TestKeyServer } from '../client/sealed-world.ts'

const SIGNED = { contentFormat: ContentFormat.coseSign1 } as const

let proxy: ObjectProxy
let client: CoapClient
let clock: TestClock
let keyServer: TestKeyServer
let device: TestDevice
let group: TestGroup

beforeAll(async () => {
  clock = new TestClock()
  keyServer = new TestKeyServer(clock)
  device = new TestDevice(7)
  group = keyServer.group(device)
  const standIn: KeyServer = {
    name: 'coaps://stand-in',
    kdcCred: async () => keyServer.kdcCred,
    credentials: async (gid: Gid) => (gname(gid) === gname(group.gid) ? [group.credential()] : undefined),
    plain: async () => {
      throw new IotchainError('coap/timeout', 'away')
    },
    close: async () => {},
  }
  const config = proxySchema.parse({
    state: 'unused',
    keyservers: [{ uri: 'coaps://stand-in', spki: '00'.repeat(32) }],
    coap: { host: '127.0.0.1', port: 0 },
    accept: { objectBytes: 1000, resourcesPerDevice: 4, putsPerSecond: 1, putBurst: 12 },
  })
  const parts = { log: silentLogger, metrics: createMetrics(), clock, store: openMemoryStore(), keyServers: [standIn] }
  proxy = await ObjectProxy.load(config, parts)
  await proxy.start()
  client = await dial(`coap://127.0.0.1:${proxy.coapPort}`)
})

afterAll(async () => {
  await client.close()
  await proxy.stop()
})

const at = (path: string): string => `/d/${device.address}/${path}`
const put = async (path: string, bytes: Uint8Array, init: Partial<RequestInit> = SIGNED): Promise<string> =>
  (await client.put(at(path), bytes, init)).codeText

test('PUT answers with the code of each case', async () => {
  const [first, second, third] = [group.seal().signed, group.seal().signed, group.seal().signed]
  expect(await put('s/temp', first)).toBe('2.01')
  expect(await put('s/temp', third)).toBe('2.04')
  // equal octets
  expect(await put('s/temp', third)).toBe('2.04')
  // lower in the order
  expect(await put('s/temp', second)).toBe('4.09')
  expect(await put('s/temp', Uint8Array.of(1, 2, 3))).toBe('4.00')
  const bent = Uint8Array.from(group.seal().signed)
  bent[bent.length - 1]! ^= 1
  expect(await put('s/temp', bent)).toBe('4.01')
  // sealed for another path
  expect(await put('s/other', group.seal().signed)).toBe('4.01')
  expect(await put('s/temp', new Uint8Array(1001))).toBe('4.13')
  expect(await put('s/temp', group.seal().signed, { contentFormat: ContentFormat.coseMac0 })).toBe('4.15')
  expect(await put('s/@reserved', group.seal().signed)).toBe('4.00')
  // by a clock that is ahead of the proxy's, or a proxy's that is behind
  const early = await client.put(at('s/temp'), group.seal({ iat: clock.seconds + 100 }).signed, SIGNED)
  expect([early.codeText, early.maxAge, early.problem?.title]).toEqual(['5.03', 40, 'object/future'])
  // a group that no key server has
  expect(await put('s/temp', keyServer.group(device, 3).seal().signed)).toBe('4.03')
  expect((await client.delete(at('s/temp'))).codeText).toBe('4.05')
})

test('GET has ETag and Max-Age, 2.03 for who has it, and an observer hears of each object', async () => {
  const heard: string[] = []
  const observation = client.observe(at('s/temp'), { onNotification: (r) => heard.push(toHex(r.payload)) })
  await observation.ready
  const newest = group.seal().signed
  expect(await put('s/temp', newest)).toBe('2.04')
  const got = await client.get(at('s/temp'))
  expect([got.codeText, toHex(got.payload), got.contentFormat]).toEqual(['2.05', toHex(newest), 18])
  expect(got.maxAge).toBeGreaterThan(0)
  expect((await client.get(at('s/temp'), { etag: got.etag })).codeText).toBe('2.03')
  expect((await client.get(at('s/nothing'))).codeText).toBe('4.04')
  await expect.poll(() => heard.at(-1)).toBe(toHex(newest))
  observation.close()
})

test('a batch says for each item what became of it', async () => {
  const pack = group.seal({ path: ['s', 'temp', '@pack'], seq: 500, contentFormat: 60 }).signed
  const batch = encodeBatch([
    { path: ['s', 'temp', '@pack', '500'], object: pack },
    { path: ['s', 'temp'], object: Uint8Array.of(0) },
    { path: ['s', 'temp'], object: group.seal({ iat: clock.seconds + 100 }).signed },
  ])
  const reply = await client.post(at('@batch'), batch, { contentFormat: ContentFormat.cbor })
  expect(reply.codeText).toBe('2.04')
  expect(decodeBatchReply(reply.payload).map((c) => `${c >> 5}.${String(c & 31).padStart(2, '0')}`)).toEqual([
    '2.04',
    '4.00',
    '5.03',
  ])
  const other = await client.post(at('@batch'), batch)
  expect([other.codeText, other.problem?.detail]).toEqual(['4.15', 'sent in content-format 60 it is taken'])
  expect((await client.get(at('s/temp/@pack/500'))).codeText).toBe('2.05')
})

test('history is a list of links, and broadcasts need their key server at first', async () => {
  const history = await client.get(at('s/temp'), { query: ['from=0', 'to=99999999999'] })
  expect([history.codeText, history.contentFormat]).toEqual(['2.05', ContentFormat.linkFormat])
  expect(history.text).toContain('/@pack/500')
  expect((await client.get(at('s/temp'), { query: ['from=x'] })).codeText).toBe('4.00')
  const broadcast = await client.get(`/bc/${gname(group.gid)}`)
  expect([broadcast.codeText, broadcast.maxAge]).toEqual(['5.03', 10])
  expect((await client.get('/bc/zz')).codeText).toBe('4.04')
})

test('too fast: 4.29 and when to come again', async () => {
  for (let i = 0; ; i++) {
    const reply = await client.put(at('s/temp'), group.seal().signed, SIGNED)
    if (reply.codeText === '2.04' && i < 20) continue
    expect([reply.codeText, reply.maxAge]).toEqual(['4.29', 1])
    break
  }
})

test('the directory: registration, update, look-up, removal', async () => {
  const links = { contentFormat: ContentFormat.linkFormat, query: ['ep=node', 'lt=600'] }
  const made = await client.post('/rd', new TextEncoder().encode('</s/x>;rt="x"'), links)
  expect(made.codeText).toBe('2.01')
  const path = `/${made.locationPath.join('/')}`
  expect((await client.get('/rd-lookup/ep')).text).toContain('ep="node"')
  expect((await client.get('/rd-lookup/res', { query: ['rt=x'] })).text).toContain('/s/x')
  expect((await client.post(path)).codeText).toBe('2.04')
  expect((await client.delete(path)).codeText).toBe('2.02')
  expect((await client.delete(path)).codeText).toBe('4.04')
  expect((await client.post('/rd', new Uint8Array(0), { query: ['ep=node'] })).codeText).toBe('4.15')
})
