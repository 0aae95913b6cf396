import fc from 'fast-check'
import { describe, expect, onTestFinished, test } from 'vitest'
import { suite } from '#crypto'
import { packRecords } from '../../device/pack-records.ts'
import type { GroupMember } from '../../protocol/groups/scheme.ts'
import { addressBytes } from '../../protocol/messages/address.ts'
import { decodeBatch, encodeBatchReply } from '../../protocol/messages/batch.ts'
import { CredentialBook } from '../../protocol/objects/credential-book.ts'
import { ObjectOpener } from '../../protocol/objects/open.ts'
import { decodePack, encodePack, type Pack } from '../../protocol/objects/pack.ts'
import { parseSigned } from '../../protocol/objects/parse.ts'
import { resolveSenml, type SenmlRecord } from '../../protocol/objects/senml.ts'
import { verifySigned } from '../../protocol/objects/verify.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { decodeLinks } from '../../transport/coap/link-format.ts'
import { Router } from '../../transport/coap/server.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { fastClock, makeRig, type Rig } from './device-rig.ts'

function openPack(
  rig: Rig,
  bytes: Uint8Array,
  member: GroupMember,
): { pack: Pack; session: number; iat: number; seq: number } {
  const device = addressBytes(rig.address)
  const path = ['s', 'demo', '@pack']
  const book = new CredentialBook(suite, suite.ed25519.verifying(rig.keyServer.kdc.publicKey))
  book.add(rig.keyServer.credential())
  const { header, parsed } = verifySigned(bytes, { device, path, credentials: book.credentials })
  const opener = new ObjectOpener(suite, ({ session }) => member.key(session))
  const pack = decodePack(opener.open(parsed, device, path))
  return { pack, session: header.session, iat: header.iat, seq: header.seq }
}

describe('packs', () => {
  test('the readings of a session come as one object when it is over, and can be listed and fetched', async () => {
    const rig = await makeRig()
    const member = rig.keyServer.client(1)
    member.receive(rig.keyServer.publish(1))
    await rig.device.start()
    const client = await rig.client()
    await expect.poll(async () => (await client.get('/s/demo')).codeText, { timeout: 15_000 }).toBe('2.05')
    const seen = new Set<number>()
    await expect
      .poll(async () => seen.add(parseSigned((await client.get('/s/demo')).payload).header.seq).size, {
        timeout: 10_000,
        interval: 30,
      })
      .toBeGreaterThan(3)
    const first = member.session
    const newcomer = rig.keyServer.client(1, 0x44)
    const next = rig.keyServer.publish(1)
    member.receive(next)
    newcomer.receive(next)
    const links = async () => decodeLinks((await client.get('/s/demo?from=0')).text)
    await expect.poll(async () => (await links()).length, { timeout: 10_000 }).toBeGreaterThan(0)
    const [link] = await links()
    expect(link?.href).toMatch(/^\/s\/demo\/@pack\/\d+$/)
    const reply = await client.get(link?.href as string)
    expect(reply.contentFormat).toBe(ContentFormat.coseSign1)
    const { pack, session, iat, seq } = openPack(rig, reply.payload, member)
    expect(session).toBe(first)
    expect(link?.href).toBe(`/s/demo/@pack/${seq}`)
    const records = resolveSenml(pack.records, iat)
    expect(records.length).toBeGreaterThan(3)
    expect(new Set(records.map((r) => r.name))).toEqual(new Set(['simulated:demo']))
    for (const s of seen) if (s <= pack.toSeq) expect(s).toBeGreaterThanOrEqual(pack.fromSeq)
    // The running session at the time of its join is a newcomer's too; what was before is not.
    expect(newcomer.key(first - 1)).toBeUndefined()
    expect((await client.get('/s/demo/@pack/1')).codeText).toBe('4.04')
    expect((await client.get('/s/demo?from=x')).codeText).toBe('4.00')
    expect(decodeLinks((await client.get(`/s/demo?to=${Math.floor(fastClock.nowMs() / 1000) - 3600}`)).text)).toEqual(
      [],
    )
    // Packs never count as latest.
    expect(parseSigned((await client.get('/s/demo')).payload).header.contentFormat).toBe(ContentFormat.senmlCbor)
  })

  test('at 64 readings a pack is full; packs and backlog go to the proxy in batches; history survives a restart', async () => {
    const batches: { path: readonly string[]; object: Uint8Array }[][] = []
    const latest: Uint8Array[] = []
    const router = new Router()
      .add({
        pattern: '/d/:device/@batch',
        post: (request) => {
          const items = decodeBatch(request.payload)
          batches.push(items)
          return {
            code: Code.changed,
            payload: encodeBatchReply(items.map(() => Code.created)),
            contentFormat: ContentFormat.cbor,
          }
        },
      })
      .add({
        pattern: '/d/:device/*path',
        put: (request) => {
          latest.push(request.payload)
          return { code: Code.created }
        },
      })
    const transport = await bindUdp({ host: '127.0.0.1' })
    const endpoint = new CoapEndpoint(transport, { router })
    onTestFinished(() => endpoint.close())
    const rig = await makeRig({
      device: { listen: 'coap://127.0.0.1:0', proxy: `coap://127.0.0.1:${transport.address.port}` },
      resources: [{ path: '/s/demo', driver: 'simulated', group: 1, every: '100ms' }],
    })
    const member = rig.keyServer.client(1)
    member.receive(rig.keyServer.publish(1))
    await rig.device.start()
    await expect.poll(() => batches.flat().length, { timeout: 20_000 }).toBeGreaterThan(0)
    const item = batches.flat()[0]
    expect(item?.path).toEqual(['s', 'demo', '@pack'])
    const { pack } = openPack(rig, item?.object as Uint8Array, member)
    expect(pack.records).toHaveLength(64)
    expect(latest.map((b) => parseSigned(b).header.contentFormat)).not.toContain(60)
    await rig.restart()
    const client = await rig.client()
    const links = decodeLinks((await client.get('/s/demo?from=0')).text)
    expect(links.length).toBeGreaterThanOrEqual(1)
    expect((await client.get(links[0]?.href as string)).payload).toEqual(Buffer.from(item?.object as Uint8Array))
  })
})

describe('records of a pack', () => {
  const reading = fc.record({
    name: fc.constantFrom('temperature', 'temp', 'load', 'simulated:temp'),
    v: fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean(), fc.string({ maxLength: 5 })),
    u: fc.option(fc.constantFrom('Cel', '%'), { nil: undefined }),
    t: fc.integer({ min: 1_700_000_000, max: 1_900_000_000 }),
  })

  test('say the same as the readings did', () => {
    fc.assert(
      fc.property(fc.array(reading, { minLength: 1, maxLength: 20 }), (all) => {
        const single = all.map(({ name, v, u, t }): SenmlRecord[] => {
          const value = typeof v === 'number' ? { v } : typeof v === 'boolean' ? { vb: v } : { vs: v }
          return [{ n: name, ...(u === undefined ? {} : { u }), ...value, t }]
        })
        const packed = resolveSenml(packRecords(single, 0), 0)
        const plain = (records: ReturnType<typeof resolveSenml>) =>
          records.map(({ name, unit, value, time }) => ({ name, unit, value, time }))
        expect(plain(packed)).toEqual(plain(single.flatMap((r) => resolveSenml(r, 0))))
      }),
      { numRuns: 200, seed: 1 },
    )
  })

  test('64 readings take at most 20 octets each', () => {
    const readings = Array.from({ length: 64 }, (_, i): SenmlRecord[] => [
      { n: 'temperature', u: 'Cel', v: 21.5 + i / 100, t: 1_760_000_000 + 60 * i },
    ])
    const records = packRecords(readings, 0)
    const bytes = encodePack({ fromSeq: 1, toSeq: 64, from: 1_760_000_000, to: 1_760_003_780, records })
    expect((bytes.length + 150) / 64).toBeLessThanOrEqual(20)
  })
})
