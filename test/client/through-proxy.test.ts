import { afterEach, describe, expect, test } from 'vitest'
import { IotClient } from '../../client/client.ts'
import { Connections } from '../../client/connections.ts'
import type { ObjectPlace } from '../../client/fetch.ts'
import type { Membership } from '../../client/group.ts'
import type { Reading } from '../../client/open.ts'
import { ClientState } from '../../client/state.ts'
import { u32 } from '../../protocol/bytes.ts'
import { gname } from '../../protocol/groups/gid.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { decodeBatchReply, encodeBatch } from '../../protocol/messages/batch.ts'
import { encodeCreds } from '../../protocol/messages/group-info.ts'
import { proxySchema } from '../../proxy/config.ts'
import type { KeyServer } from '../../proxy/key-servers.ts'
import { ObjectProxy } from '../../proxy/proxy.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'
import type { Store } from '../../store/store.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { Router } from '../../transport/coap/router.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { dial } from '../../transport/dial.ts'
import { addressOfNumber, CHAIN, TestClock, TestDevice, type TestGroup, TestKeyServer } from './sealed-world.ts'

const CLIENT = addressOfNumber(1)
const cleanup: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const close of cleanup.splice(0).reverse()) await close()
})

/** The plain CoAP side of a key server: broadcasts and credentials. */
async function serveGroup(group: TestGroup) {
  const name = gname(group.gid)
  const router = new Router()
    .add({
      pattern: '/bc/:gid',
      observable: true,
      get: (r) =>
        r.params['gid'] === name
          ? {
              code: Code.content,
              payload: group.newest(),
              contentFormat: ContentFormat.coseSign1,
              etag: u32(group.session),
            }
          : { code: Code.notFound },
    })
    .add({
      pattern: '/bc/:gid/:session',
      get: (r) => {
        const payload = group.broadcasts.get(Number(r.params['session']))
        return payload === undefined ? { code: Code.notFound } : { code: Code.content, payload }
      },
    })
    .add({
      pattern: '/ace-group/:gid/creds',
      get: (r) =>
        r.params['gid'] === name
          ? {
              code: Code.content,
              payload: encodeCreds({
                num: group.session,
                creds: [group.credential()],
                peerIdentifiers: [group.device.sid],
              }),
            }
          : { code: Code.notFound },
    })
  const transport = await bindUdp({ host: '127.0.0.1', port: 0 })
  const endpoint = new CoapEndpoint(transport, { router })
  cleanup.push(() => endpoint.close())
  return { router, uri: `coap://127.0.0.1:${endpoint.address.port}`, advanced: () => router.notify(`/bc/${name}`) }
}

function keyServerAt(uri: string, world: TestKeyServer): KeyServer {
  let client: Promise<CoapClient> | undefined
  const plain = () => {
    client ??= dial(uri)
    return client
  }
  return {
    name: 'coaps://stand-in',
    kdcCred: async () => world.kdcCred,
    credentials: async (gid) => {
      const response = await (await plain()).get(['ace-group', gname(gid), 'creds'])
      const { decodeCreds } = await import('../../protocol/messages/group-info.ts')
      return response.ok ? decodeCreds(response.payload).creds : undefined
    },
    plain,
    close: async () => {
      await (await client)?.close()
    },
  }
}

async function setUp(options: { store?: Store; http?: boolean } = {}) {
  const clock = new TestClock(Math.floor(Date.now() / 1000))
  const keyServer = new TestKeyServer(clock)
  const device = new TestDevice(7)
  const group = keyServer.group(device)
  const served = await serveGroup(group)
  const config = proxySchema.parse({
    keyservers: [{ uri: 'coaps://stand-in', spki: '00'.repeat(32) }],
    coap: { host: '127.0.0.1', port: 0 },
    http: { listen: options.http === true ? '127.0.0.1:0' : 'off' },
  })
  const store = options.store ?? openMemoryStore()
  const proxy = await ObjectProxy.load(config, {
    log: silentLogger,
    clock,
    store,
    keyServers: [keyServerAt(served.uri, keyServer)],
  })
  await proxy.start()
  cleanup.push(() => proxy.stop())
  const proxyUri = `coap://127.0.0.1:${proxy.coapPort}`
  const uploader = await dial(proxyUri)
  cleanup.push(() => uploader.close())
  const connections = new Connections()
  const state = new ClientState(openMemoryStore())
  const client = new IotClient({ chain: CHAIN, clock, state, connections })
  cleanup.push(() => client.close())
  const place: ObjectPlace = {
    connection: await connections.to(proxyUri),
    via: 'proxy',
    device: device.address,
    path: ['s', 'temp'],
  }
  const put = (bytes: Uint8Array, path = '/s/temp') =>
    uploader.put(`/d/${device.address}${path}`, bytes, { contentFormat: ContentFormat.coseSign1 })
  return { clock, keyServer, device, group, served, proxy, proxyUri, uploader, client, state, place, put }
}

/** Joins without DTLS: the key server's answer is handed over. */
async function joined(w: Awaited<ReturnType<typeof setUp>>, address: Address = CLIENT): Promise<Membership> {
  const { client, group, device } = w
  return client.joinOn(
    {
      join: async () => ({ ...group.join(address), controlGroupUri: `${w.served.uri}/bc/${gname(group.gid)}` }),
    } as never,
    {
      signer: { address, signStruct: async () => new Uint8Array(65) },
      keyServer: { uri: 'coaps://stand-in', spki: new Uint8Array(32) },
      device: device.address,
      bit: 0,
    },
  )
}

describe('through the proxy', () => {
  test('a member reads and opens; the same object is repeated, a later one is new', async () => {
    const w = await setUp()
    await joined(w)
    expect((await w.put(w.group.seal({ value: 20 }).signed)).codeText).toBe('2.01')
    expect((await w.client.read(w.place)).records[0]?.value).toBe(20)
    expect((await w.client.read(w.place)).repeated).toBe(true)
    expect((await w.put(w.group.seal({ value: 21 }).signed)).codeText).toBe('2.04')
    expect((await w.client.read(w.place)).records[0]?.value).toBe(21)
  })

  test('a member watches; sessions pass, and their broadcasts come by themselves', async () => {
    const w = await setUp()
    await joined(w)
    await w.put(w.group.seal({ value: 1 }).signed)
    const readings: Reading[] = []
    const refused: Error[] = []
    const watch = w.client.watch(w.place, { onReading: (r) => readings.push(r), onRefused: (e) => refused.push(e) })
    await watch.ready
    await expect.poll(() => readings.length).toBe(1)
    for (const value of [2, 3]) {
      w.group.advance()
      w.served.advanced()
      expect((await w.put(w.group.seal({ value }).signed)).codeText).toBe('2.04')
      await expect.poll(() => readings.length).toBe(value)
    }
    expect(readings.map((r) => [r.records[0]?.value, r.header.session])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
    ])
    expect(refused).toEqual([])
    watch.close()
  })

  test('a stranger verifies the very same octets and has no access', async () => {
    const w = await setUp()
    await w.put(w.group.seal().signed)
    const { GroupView } = await import('../../client/group.ts')
    const view = new GroupView({
      gid: w.group.gid,
      device: w.device.address,
      bit: 0,
      kdcCred: w.keyServer.kdcCred,
      clock: w.clock,
    })
    view.addCredentials([w.group.credential()])
    const { ReadingOpener } = await import('../../client/open.ts')
    const opener = new ReadingOpener({ clock: w.clock, seen: w.state, groupOf: () => view })
    const { payload } = await w.uploader.get(`/d/${w.device.address}/s/temp`)
    const asked = { device: w.device.address, path: ['s', 'temp'], form: 'signed' as const }
    await expect(opener.open(payload, asked)).rejects.toMatchObject({ code: 'object/no-access' })
  })

  test('codes of refused uploads', async () => {
    const w = await setUp()
    const old = w.group.seal().signed
    await w.put(w.group.seal().signed)
    const forged = w.group.seal().signed
    forged[forged.length - 1]! ^= 1
    expect((await w.put(old)).codeText).toBe('4.09')
    expect((await w.put(forged)).codeText).toBe('4.01')
    expect((await w.put(new Uint8Array(50))).codeText).toBe('4.00')
    expect((await w.put(new Uint8Array(20_000))).codeText).toBe('4.13')
    expect((await w.put(w.group.seal().signed, '/s/@odd')).codeText).toBe('4.00')
    const mac = await w.uploader.put(`/d/${w.device.address}/s/temp`, w.group.seal().mac, { contentFormat: 17 })
    expect(mac.codeText).toBe('4.15')
    const stranger = await w.uploader.put(`/d/0x${'99'.repeat(20)}/s/temp`, w.group.seal().signed, {
      contentFormat: 18,
    })
    expect(stranger.codeText).toBe('4.03')
    expect((await w.put(w.group.seal().signed)).codeText).toBe('2.04')
  })

  test('ETag → 2.03; Accept 17 → 4.06; nothing stored → 4.04', async () => {
    const w = await setUp()
    await w.put(w.group.seal().signed)
    const path = `/d/${w.device.address}/s/temp`
    const first = await w.uploader.get(path)
    expect(first.contentFormat).toBe(18)
    expect((await w.uploader.get(path, { etag: first.etag })).codeText).toBe('2.03')
    expect((await w.uploader.get(path, { accept: 17 })).codeText).toBe('4.06')
    expect((await w.uploader.get(`/d/${w.device.address}/s/none`)).codeText).toBe('4.04')
  })

  test('broadcasts are mirrored, observed, and served while the key server is away', async () => {
    const w = await setUp()
    const path = `/bc/${gname(w.group.gid)}`
    expect(Buffer.from((await w.uploader.get(path)).payload)).toEqual(Buffer.from(w.group.newest()))
    const seen: number[] = []
    const observation = w.uploader.observe(path, {
      onNotification: (r) => seen.push(new DataView(r.payload.buffer, r.payload.byteOffset).byteLength),
    })
    await observation.ready
    w.group.advance()
    w.served.advanced()
    await expect.poll(async () => Buffer.from((await w.uploader.get(path)).payload).equals(w.group.newest())).toBe(true)
    await expect.poll(() => seen.length).toBeGreaterThanOrEqual(2)
    const first = await w.uploader.get(`${path}/1`)
    expect(Buffer.from(first.payload)).toEqual(Buffer.from(w.group.broadcasts.get(1)!))
    expect((await w.uploader.get(`${path}/77`)).codeText).toBe('4.04')
    expect((await w.uploader.get('/bc/0000000000000000')).codeText).toBe('4.04')
    observation.close()
  })

  test('a batch of backlog and packs; the history lists it and gives it back', async () => {
    const w = await setUp()
    const iat = w.clock.seconds - 600
    const past = w.group.seal({ iat, seq: 3 }).signed
    const pack = w.group.seal({ path: ['s', 'temp', '@pack'], iat: iat + 1, seq: 4, contentFormat: 60 }).signed
    const forged = w.group.seal({ iat, seq: 9 }).signed
    forged[forged.length - 1]! ^= 1
    const payload = encodeBatch([
      { path: ['s', 'temp'], object: past },
      { path: ['s', 'temp', '@pack'], object: pack },
      { path: ['s', 'temp'], object: forged },
    ])
    const reply = await w.uploader.post(`/d/${w.device.address}/@batch`, payload, { contentFormat: ContentFormat.cbor })
    expect(reply.codeText).toBe('2.04')
    expect(decodeBatchReply(reply.payload)).toEqual([Code.created, Code.created, Code.unauthorized])
    const history = await w.uploader.get(`/d/${w.device.address}/s/temp?from=${iat - 1}&to=${iat + 10}`)
    expect(history.text).toContain(`</d/${w.device.address}/s/temp/@past/07.3>`)
    expect(history.text).toContain(`</d/${w.device.address}/s/temp/@pack/4>`)
    const again = await w.uploader.get(`/d/${w.device.address}/s/temp/@pack/4`)
    expect(Buffer.from(again.payload)).toEqual(Buffer.from(pack))
    expect(again.maxAge).toBe(86_400)
    expect((await w.uploader.get(`/d/${w.device.address}/s/temp?from=x`)).codeText).toBe('4.00')
  })

  test('what there is: links of devices, and the resource directory', async () => {
    const w = await setUp()
    await w.put(w.group.seal().signed)
    const core = (await w.uploader.get('/.well-known/core')).text
    expect(core).toContain(`</d/${w.device.address}/s/temp>`)
    expect(core).toContain('rt="core.rd"')
    expect((await w.uploader.get(`/d/${w.device.address}`)).text).toContain('/s/temp>')
    const links = new TextEncoder().encode('</s/temp>;rt="temperature";ct=18')
    const registered = await w.uploader.post('/rd?ep=kitchen&lt=60', links, { contentFormat: ContentFormat.linkFormat })
    expect(registered.codeText).toBe('2.01')
    const location = registered.locationPath
    expect(location[0]).toBe('rd')
    expect((await w.uploader.get('/rd-lookup/res?rt=temperature')).text).toMatch(
      /^<coap:\/\/127\.0\.0\.1:\d+\/s\/temp>/,
    )
    expect((await w.uploader.get('/rd-lookup/ep?ep=kitchen')).text).toContain('ep="kitchen"')
    expect((await w.uploader.get('/rd-lookup/ep?ep=cellar')).text).toBe('')
    expect((await w.uploader.delete(location)).codeText).toBe('2.02')
    expect((await w.uploader.get('/rd-lookup/res')).text).toBe('')
    expect((await w.uploader.post('/rd', links, { contentFormat: 40 })).codeText).toBe('4.00')
  })

  test('over HTTP: the same octets, and a stream of events', async () => {
    const w = await setUp({ http: true })
    const bytes = w.group.seal().signed
    await w.put(bytes)
    const url = `http://127.0.0.1:${w.proxy.httpPort}/d/${w.device.address}/s/temp`
    expect(Buffer.from(await (await fetch(url)).arrayBuffer())).toEqual(Buffer.from(bytes))
    const stream = await fetch(url, { headers: { accept: 'text/event-stream' } })
    const reader = stream.body!.getReader()
    let text = ''
    const until = async (what: string) => {
      while (!text.includes(what)) text += Buffer.from((await reader.read()).value ?? []).toString()
    }
    await until(Buffer.from(bytes).toString('base64url'))
    const next = w.group.seal().signed
    await w.put(next)
    await until(Buffer.from(next).toString('base64url'))
    await reader.cancel()
    const status = async (path: string) => (await fetch(`http://127.0.0.1:${w.proxy.httpPort}${path}`)).status
    expect(await status(`/d/${w.device.address}/s/none`)).toBe(404)
    expect(await status(`/d/${w.device.address}/s/@odd`)).toBe(400)
    expect(await status(`/d/0x12/s/temp`)).toBe(400)
    expect(await status(`/d/${w.device.address}/s/temp?from=x`)).toBe(400)
    const bc = await fetch(`http://127.0.0.1:${w.proxy.httpPort}/bc/${gname(w.group.gid)}`)
    expect(Buffer.from(await bc.arrayBuffer())).toEqual(Buffer.from(w.group.newest()))
  })
})
