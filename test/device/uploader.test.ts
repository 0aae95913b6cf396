import { expect, onTestFinished, test } from 'vitest'
import type { SealedObject } from '../../device/sealed-object.ts'
import { SealedStore } from '../../device/sealed-store.ts'
import { Uploader } from '../../device/uploader.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { decodeBatch, encodeBatchReply } from '../../protocol/messages/batch.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { problemReply } from '../../transport/coap/problem-details.ts'
import { Router } from '../../transport/coap/router.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { dial } from '../../transport/dial.ts'

const NOW = 1_800_000_000
const FUTURE = 60

function object(seq: number, iat: number): SealedObject {
  // the double reads the time of sealing from the first octets
  const signed = new Uint8Array(100)
  new DataView(signed.buffer).setUint32(0, iat)
  return { path: '/s/x', seq, sid: Uint8Array.of(1), session: 1, iat, signed, encrypt0: new Uint8Array(40) }
}

test.each([
  ['5.03', Code.serviceUnavailable],
  ['4.00, as proxies answered before', Code.badRequest],
])('a proxy whose clock is behind gets everything in the end (%s)', async (_, code) => {
  let proxyNow = NOW - 3600
  const taken: number[] = []
  const take = (signed: Uint8Array): boolean => {
    const iat = new DataView(signed.buffer, signed.byteOffset).getUint32(0)
    if (iat > proxyNow + FUTURE) return false
    taken.push(iat)
    return true
  }
  let refusals = 0
  const router = new Router()
    .add({
      pattern: '/d/:device/@batch',
      post: (request) => {
        const codes = decodeBatch(request.payload).map((o) => (take(o.object) ? Code.changed : Code.serviceUnavailable))
        return { code: Code.changed, payload: encodeBatchReply(codes), contentFormat: ContentFormat.cbor }
      },
    })
    .add({
      pattern: '/d/:device/*path',
      put: (request) => {
        if (take(request.payload)) return { code: Code.changed }
        refusals++
        return problemReply(code, { title: 'object/future' }, 1)
      },
    })
  const transport = await bindUdp({ host: '127.0.0.1', port: 0 })
  const endpoint = new CoapEndpoint(transport, { router })
  onTestFinished(() => endpoint.close())
  const objects = await SealedStore.open({
    store: openMemoryStore(),
    log: silentLogger,
    strict: false,
    queueCapacity: 100,
  })
  onTestFinished(() => objects.close())
  // two of the time when the proxy's clock stood where it stands now, two of now
  const times = [NOW - 4000, NOW - 3700, NOW - 10, NOW]
  for (const [i, iat] of times.entries()) await objects.add(object(i + 1, iat), { latest: true })
  const uploader = new Uploader({
    address: `0x${'07'.repeat(20)}` as Address,
    objects,
    log: silentLogger,
    dial: () => dial(`coap://127.0.0.1:${transport.address.port}`),
    nowSeconds: () => NOW,
    retry: { initial: 50, max: 200 },
  })
  uploader.start()
  onTestFinished(() => uploader.stop())
  // what is older is not held up
  await expect.poll(() => taken).toEqual(times.slice(0, 2))
  await expect.poll(() => refusals, { timeout: 10_000 }).toBeGreaterThan(3)
  expect(uploader.refused).toBe(0)
  expect(uploader.lastError).toMatchObject({ code: 'device/refused' })
  proxyNow = NOW
  await expect.poll(() => taken, { timeout: 10_000 }).toEqual(times)
  await expect.poll(() => objects.queued).toBe(0)
  expect(uploader.uploaded).toBe(4)
})
