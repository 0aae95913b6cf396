import { rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { suite } from '#crypto'
import { createDevice } from '../../device/daemon.ts'
import { deviceSettings } from '../../device/settings.ts'
import { equalBytes, toHex } from '../../protocol/bytes.ts'
import { gname } from '../../protocol/groups/gid.ts'
import { addressBytes } from '../../protocol/messages/address.ts'
import { etagOf } from '../../protocol/objects/etag.ts'
import { deriveIntegrityKey } from '../../protocol/objects/keys.ts'
import { ObjectOpener } from '../../protocol/objects/open.ts'
import { parseSigned } from '../../protocol/objects/parse.ts'
import { decodeSenml } from '../../protocol/objects/senml.ts'
import { verifyMacObject } from '../../protocol/objects/verify.ts'
import type { CoapClient, CoapResponse } from '../../transport/coap/client.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { problemReply } from '../../transport/coap/problem-details.ts'
import { type CoapReply, Router } from '../../transport/coap/server.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { context, fastClock, makeRig, type Rig, SIMULATED, strangerKey } from './device-rig.ts'

/** Asks until there is something. */
async function fetchReading(client: CoapClient, path = '/s/demo', accept?: number): Promise<CoapResponse> {
  let response: CoapResponse | undefined
  const fetch = async (): Promise<string> => {
    response = await client.get(path, accept === undefined ? {} : { accept })
    return response.codeText
  }
  await expect.poll(fetch, { timeout: 15_000, interval: 50 }).toBe('2.05')
  return response as unknown as CoapResponse
}

async function started(more: Record<string, unknown> = {}): Promise<Rig> {
  const rig = await makeRig(more)
  rig.keyServer.publish(1)
  await rig.device.start()
  return rig
}

describe('a device in its group', () => {
  test('a reading is served to everybody and opened by members alone', async () => {
    const rig = await makeRig()
    const early = rig.keyServer.client(1)
    rig.keyServer.publish(1)
    early.receive(rig.keyServer.group(1).broadcast as Uint8Array)
    await rig.device.start()
    const client = await rig.client()
    const reply = await fetchReading(client)
    expect(reply.contentFormat).toBe(ContentFormat.coseSign1)
    expect(reply.etag).toEqual(Buffer.from(etagOf(suite, reply.payload)))
    expect(reply.maxAge).toBe(1)
    const { records, verified } = rig.open(reply.payload, '/s/demo', early)
    expect(records).toEqual([{ bn: 'simulated:', n: 'demo', u: 'Cel', v: expect.any(Number), t: expect.any(Number) }])
    expect(Math.abs(verified.header.iat - fastClock.nowMs() / 1000)).toBeLessThan(10)
    const stranger = { key: () => undefined } as unknown as typeof early
    expect(() => rig.open(reply.payload, '/s/demo', stranger)).toThrow()
    expect(() => rig.open(reply.payload, '/s/other', early)).toThrow(
      expect.objectContaining({ code: 'object/bad-signature' }),
    )
  })

  test('on request under the integrity key: the same octets inside', async () => {
    const rig = await makeRig({ resources: [{ ...SIMULATED, every: '10s' }] })
    const member = rig.keyServer.client(1)
    rig.keyServer.publish(1)
    member.receive(rig.keyServer.group(1).broadcast as Uint8Array)
    await rig.device.start()
    const client = await rig.client()
    const signed = await fetchReading(client)
    const mac = await fetchReading(client, '/s/demo', ContentFormat.coseMac0)
    expect(mac.contentFormat).toBe(ContentFormat.coseMac0)
    const { header } = rig.open(signed.payload, '/s/demo', member).verified
    const device = addressBytes(rig.address)
    const path = ['s', 'demo']
    const K = member.key(header.session) as Uint8Array
    const scope = {
      gid: header.gid,
      session: header.session,
      device,
      sid: header.sid,
      path,
      algorithm: header.algorithm,
    }
    const integrityKey = suite.hmac(deriveIntegrityKey(suite, K, scope))
    const parsed = verifyMacObject(mac.payload, { device, path, integrityKey })
    const opener = new ObjectOpener(suite, () => K)
    expect(decodeSenml(opener.open(parsed, device, path))).toHaveLength(1)
    expect((await client.get('/s/demo', { accept: ContentFormat.json })).codeText).toBe('4.06')
    expect((await client.get('/s/demo', { etag: signed.etag as Uint8Array })).codeText).toBe('2.03')
  })

  test('observers get each reading, in the order of its numbers', async () => {
    const rig = await makeRig()
    const member = rig.keyServer.client(1)
    member.receive(rig.keyServer.publish(1))
    await rig.device.start()
    const client = await rig.client()
    await fetchReading(client)
    const seqs: number[] = []
    const observation = client.observe('/s/demo', {
      onNotification: (r) => seqs.push(rig.open(r.payload, '/s/demo', member).verified.header.seq),
    })
    await expect.poll(() => seqs.length, { timeout: 10_000 }).toBeGreaterThan(5)
    observation.close()
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b))
    expect(new Set(seqs).size).toBe(seqs.length)
  })

  test('a member that starts before its clock is set seals once it is', async () => {
    const rig = await started({ time: { trust: 'auto' } })
    await fetchReading(await rig.client())
    rig.clock.right = false
    rig.clock.shiftMs = -56 * 365 * 86_400_000
    const since = rig.lines.length
    await rig.restart()
    const client = await rig.client()
    const numbers = new Set<number>()
    client.observe('/s/demo', {
      onNotification: (r) => void (r.ok && numbers.add(parseSigned(r.payload).header.seq)),
    })
    await expect
      .poll(() => rig.lines.slice(since).map((line) => line['msg']))
      .toContainEqual(expect.stringContaining('clock is not known to be right'))
    await delay(500)
    // what was sealed before the restart, at most
    expect(numbers.size).toBeLessThan(2)
    rig.clock.shiftMs = 0
    rig.clock.right = true
    await expect.poll(() => numbers.size, { timeout: 15_000 }).toBeGreaterThan(2)
  })

  test('discovery, credential and broadcasts are for everybody', async () => {
    const rig = await started()
    const client = await rig.client()
    await fetchReading(client)
    const core = await client.get('/.well-known/core')
    expect(core.text).toContain('</s/demo>')
    expect(core.text).toContain('rt="iotchain.simulated"')
    expect(core.text).toContain('ct="18 17"')
    const id = await client.get('/id')
    expect(id.contentFormat).toBe(ContentFormat.cwt)
    const { gid } = rig.keyServer.group(1)
    const bc = await client.get(`/bc/${gname(gid)}`)
    expect(bc.codeText).toBe('4.04')
    const next = rig.keyServer.publish(1)
    await expect
      .poll(async () => toHex((await client.get(`/bc/${gname(gid)}`)).payload), { timeout: 10_000 })
      .toBe(toHex(next))
    expect((await client.get('/bc/0000000000000000')).codeText).toBe('4.04')
  })

  test('a broadcast may come from a neighbour, a false one changes nothing', async () => {
    const rig = await makeRig()
    rig.keyServer.publish(1, 60)
    await rig.device.start()
    const client = await rig.client()
    await fetchReading(client)
    rig.keyServer.silent = true
    const name = gname(rig.keyServer.group(1).gid)
    const good = rig.keyServer.publish(1, 3600)
    const bad = good.slice()
    bad[bad.length - 1] = (bad[bad.length - 1] as number) ^ 1
    expect((await client.post(`/bc/${name}`, bad)).codeText).toBe('4.00')
    expect((await client.post(`/bc/${name}`, new Uint8Array(100))).codeText).toBe('4.00')
    expect((await client.post(`/bc/${name}`, good)).codeText).toBe('2.04')
    expect(toHex((await client.get(`/bc/${name}`)).payload)).toBe(toHex(good))
  })
})

describe('what may go wrong', () => {
  test('without a session readings wait, and are sealed in the first one', async () => {
    const rig = await makeRig()
    const member = rig.keyServer.client(1)
    await rig.device.start()
    const client = await rig.client()
    await expect.poll(() => rig.keyServer.joins, { timeout: 5000 }).toBe(1)
    const early = await client.get('/s/demo')
    expect(early.codeText).toBe('5.03')
    expect(early.problem?.detail).toContain('waits for a session key')
    member.receive(rig.keyServer.publish(1))
    const reply = await fetchReading(client)
    expect(rig.open(reply.payload, '/s/demo', member).verified.header.session).toBe(1)
  })

  test('a dead key server: the device serves on with the session it has, and joins when it can', async () => {
    const rig = await makeRig()
    await rig.keyServer.stop()
    await rig.device.start()
    const client = await rig.client()
    expect((await client.get('/s/demo')).codeText).toBe('5.03')
    await rig.keyServer.start()
    rig.keyServer.publish(1)
    await fetchReading(client)
    await rig.keyServer.stop()
    const first = await client.get('/s/demo')
    await expect.poll(async () => equalBytes((await client.get('/s/demo')).payload, first.payload)).toBe(false)
    await rig.device.health?.()
  })

  test('a refusal is logged with its reason and tried again', async () => {
    const rig = await makeRig()
    rig.keyServer.publish(1)
    rig.keyServer.refuse = problemReply(
      Code.serviceUnavailable,
      { title: 'keyserver/unregistered', detail: 'not registered yet' },
      1,
    )
    await rig.device.start()
    await expect.poll(() => JSON.stringify(rig.lines), { timeout: 5000 }).toContain('not registered yet')
    rig.keyServer.refuse = undefined
    await fetchReading(await rig.client())
  })

  test('a restart goes on under the same Sender ID, with higher numbers, before the key server is reached', async () => {
    const rig = await started()
    const member = rig.keyServer.client(1)
    member.receive(rig.keyServer.publish(1))
    const before = rig.open((await fetchReading(await rig.client())).payload, '/s/demo', {
      key: (s) => member.key(s),
    } as typeof member)
    await rig.device.stop()
    await rig.keyServer.stop()
    await rig.restart()
    const client = await rig.client()
    expect((await client.get('/s/demo')).codeText).toBe('2.05')
    expect((await client.get('/id')).codeText).toBe('2.05')
    await expect
      .poll(async () => rig.open((await client.get('/s/demo')).payload, '/s/demo', member).verified.header.seq, {
        timeout: 10_000,
      })
      .toBeGreaterThan(before.verified.header.seq + 200)
    const after = rig.open((await client.get('/s/demo')).payload, '/s/demo', member).verified.header
    expect(toHex(after.sid)).toBe(toHex(before.verified.header.sid))
    expect(rig.keyServer.newSids).toBe(0)
  })

  test('lost numbers: a new Sender ID before anything is sealed', async () => {
    const rig = await makeRig()
    const member = rig.keyServer.client(1)
    member.receive(rig.keyServer.publish(1))
    await rig.device.start()
    const sidOf = async (): Promise<string> =>
      toHex(rig.open((await fetchReading(await rig.client())).payload, '/s/demo', member).verified.header.sid)
    const first = await sidOf()
    await rig.device.stop()
    rmSync(join(rig.folder, 'state/sequence'))
    await rig.restart()
    await expect.poll(sidOf, { timeout: 10_000 }).not.toBe(first)
    expect(rig.keyServer.newSids).toBe(1)
    await rig.device.stop()
    writeFileSync(join(rig.folder, 'state/sequence'), 'garbage')
    await rig.restart()
    await expect.poll(() => rig.keyServer.newSids, { timeout: 10_000 }).toBe(2)
    const id = await (await rig.client()).get('/id')
    expect(id.codeText).toBe('2.05')
  })

  test('a state folder of another machine is refused', async () => {
    const rig = await started()
    await fetchReading(await rig.client())
    await rig.device.stop()
    const settings = deviceSettings.parse({
      device: { listen: 'coap://127.0.0.1:0' },
      keyserver: `coaps://127.0.0.1:${rig.keyServer.port}`,
      chain: { id: 20180415, registry: `0x${'11'.repeat(20)}` },
      time: { trust: 'always' },
      resources: [SIMULATED],
    })
    const clone = await createDevice(settings, context(rig.folder), {
      machine: 'clone',
      dialKeyServer: rig.keyServer.dial,
    })
    await expect(clone.start()).rejects.toMatchObject({ code: 'device/cloned' })
    await clone.stop()
  })

  test('a device that a broadcast leaves out asks to join again', async () => {
    const rig = await started()
    const client = await rig.client()
    await fetchReading(client)
    const { manager } = rig.keyServer.group(1)
    for (const { id } of [...manager.members()]) manager.leave(id)
    rig.keyServer.publish(1)
    await expect.poll(() => rig.keyServer.joins, { timeout: 10_000 }).toBe(2)
  })

  test('a key server that was restored and knows neither membership nor Sender ID is joined anew', async () => {
    const rig = await started()
    const client = await rig.client()
    await fetchReading(client)
    const { manager, sids } = rig.keyServer.group(1)
    for (const { id } of [...manager.members()]) manager.leave(id)
    sids.length = 0
    manager.issueSid()
    manager.allocateEpoch({ nbf: rig.keyServer.now() })
    manager.activateEpoch()
    rig.keyServer.publish(1)
    await expect.poll(() => rig.keyServer.joins, { timeout: 10_000 }).toBe(2)
    rig.keyServer.publish(1)
    const sid = async (): Promise<Uint8Array> => parseSigned((await fetchReading(client)).payload).header.sid
    await expect.poll(sid, { timeout: 10_000 }).toEqual(sids.at(-1)?.sid)
  }, 40_000)

  test('garbage datagrams and a busy port', async () => {
    const rig = await started()
    const port = rig.device.address?.port as number
    const { createSocket } = await import('node:dgram')
    const socket = createSocket('udp4')
    onTestFinished(() => new Promise<void>((resolve) => socket.close(() => resolve())))
    for (let i = 0; i < 300; i++) {
      const junk = Buffer.from(suite.randomBytes((i * 7) % 90))
      await new Promise((resolve) => socket.send(junk, port, '127.0.0.1', resolve))
    }
    await fetchReading(await rig.client())
    const settings = deviceSettings.parse({
      device: { listen: `coap://127.0.0.1:${port}` },
      keyserver: 'coaps://127.0.0.1:1',
      chain: { id: 1, registry: `0x${'11'.repeat(20)}` },
      state: 'other',
      resources: [SIMULATED],
    })
    const second = await createDevice(settings, context(rig.folder), { machine: 'rig' })
    await expect(second.start()).rejects.toThrow(/in use/)
    await second.stop()
  })

  test('files that do not belong together are told apart', async () => {
    const rig = await makeRig()
    writeFileSync(join(rig.folder, 'device.key'), strangerKey())
    await expect(rig.restart()).rejects.toMatchObject({
      code: 'device/bad-identity',
      message: expect.stringContaining('device.key is not the key of device.crt'),
    })
    rmSync(join(rig.folder, 'device.crt'))
    await expect(rig.restart()).rejects.toMatchObject({ code: 'device/not-enrolled' })
  })

  test('the state folder is for the owner alone, and no key material reaches the log', async () => {
    const rig = await started()
    await fetchReading(await rig.client())
    for (const file of ['state/sequence', 'account.key', 'device.key', 'signing.key']) {
      expect(statSync(join(rig.folder, file)).mode & 0o077, file).toBe(0)
    }
    expect(statSync(join(rig.folder, 'state/db')).mode & 0o077).toBe(0)
    const text = JSON.stringify(rig.lines)
    const { manager, gid } = rig.keyServer.group(1)
    const device = [...manager.members()][0]
    for (const { K } of manager.keys((device as { id: Uint8Array }).id)) expect(text).not.toContain(toHex(K))
    expect(text).toContain(gname(gid))
  })
})

describe('upload', () => {
  interface Proxy {
    readonly router: Router
    readonly puts: { path: string; backlog: boolean; payload: Uint8Array }[]
    reply: CoapReply
    port: number
    up(): Promise<void>
    down(): Promise<void>
  }

  function makeProxy(): Proxy {
    const router = new Router()
    let endpoint: CoapEndpoint | undefined
    const proxy: Proxy = {
      router,
      puts: [],
      reply: { code: Code.created },
      port: 0,
      async up() {
        const transport = await bindUdp({ host: '127.0.0.1', port: proxy.port })
        proxy.port = transport.address.port
        endpoint = new CoapEndpoint(transport, { router })
      },
      async down() {
        await endpoint?.close()
        endpoint = undefined
      },
    }
    router.add({
      pattern: '/d/:device/*path',
      put: (request) => {
        // Packs are the business of packs.test.ts.
        if (proxy.reply.code < 128 && !request.pathText.includes('@')) {
          proxy.puts.push({
            path: request.pathText,
            backlog: request.query.includes('backlog'),
            payload: request.payload,
          })
        }
        return proxy.reply
      },
    })
    onTestFinished(() => proxy.down())
    return proxy
  }

  async function uploading(): Promise<{ rig: Rig; proxy: Proxy; member: ReturnType<Rig['keyServer']['client']> }> {
    const proxy = makeProxy()
    await proxy.up()
    const rig = await makeRig({ device: { listen: 'coap://127.0.0.1:0', proxy: `coap://127.0.0.1:${proxy.port}` } })
    const member = rig.keyServer.client(1)
    member.receive(rig.keyServer.publish(1))
    await rig.device.start()
    return { rig, proxy, member }
  }

  test('each object reaches the proxy once, in order', async () => {
    const { rig, proxy, member } = await uploading()
    await expect.poll(() => proxy.puts.length, { timeout: 15_000 }).toBeGreaterThan(8)
    const seqs = proxy.puts.map((p) => rig.open(p.payload, '/s/demo', member).verified.header.seq)
    expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b))
    expect(proxy.puts[0]?.path).toBe(`/d/${rig.address}/s/demo`)
  })

  test('what is sealed while the proxy is away, or the device is restarted, comes later, complete and in order', async () => {
    const { rig, proxy, member } = await uploading()
    await expect.poll(() => proxy.puts.length, { timeout: 15_000 }).toBeGreaterThan(2)
    await proxy.down()
    const client = await rig.client()
    const seqNow = async (): Promise<number> =>
      rig.open((await fetchReading(client)).payload, '/s/demo', member).verified.header.seq
    const during = await seqNow()
    await expect.poll(seqNow, { timeout: 5000 }).toBeGreaterThan(during + 5)
    await rig.restart()
    proxy.puts.length = 0
    await proxy.up()
    await expect.poll(() => proxy.puts.length, { timeout: 20_000 }).toBeGreaterThan(12)
    const seqs = proxy.puts.map((p) => rig.open(p.payload, '/s/demo', member).verified.header.seq)
    expect(seqs).toEqual(expect.arrayContaining([during + 1, during + 2, during + 3, during + 4, during + 5]))
    const backlog = proxy.puts
      .filter((p) => p.backlog)
      .map((p) => rig.open(p.payload, '/s/demo', member).verified.header.seq)
    expect(backlog).toEqual([...backlog].sort((a, b) => a - b))
  }, 40_000)

  test('an object that the proxy will never take is counted and passed over; one that is late goes into the history', async () => {
    const { rig, proxy } = await uploading()
    await expect.poll(() => proxy.puts.length, { timeout: 15_000 }).toBeGreaterThan(1)
    proxy.reply = problemReply(Code.badRequest, { detail: 'malformed' })
    await expect.poll(() => JSON.stringify(rig.lines), { timeout: 10_000 }).toContain('the proxy refuses an object')
    proxy.reply = { code: Code.conflict }
    await new Promise((resolve) => setTimeout(resolve, 300))
    proxy.puts.length = 0
    proxy.reply = { code: Code.changed }
    await expect.poll(() => proxy.puts.length, { timeout: 10_000 }).toBeGreaterThan(2)
  })
})
