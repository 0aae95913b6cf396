import { afterEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../protocol/bytes.ts'
import { Forwarder } from '../../proxy/forward.ts'
import { systemClock } from '../../runtime/clock.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { Code } from '../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { textOption, uintOption } from '../../transport/coap/option-set.ts'
import { OptionNumber } from '../../transport/coap/options.ts'
import { Router } from '../../transport/coap/router.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { dial } from '../../transport/dial.ts'

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const close of cleanup.splice(0).reverse()) await close()
})

async function serve(router: Router): Promise<number> {
  const endpoint = new CoapEndpoint(await bindUdp({ host: '127.0.0.1', port: 0 }), { router })
  cleanup.push(() => endpoint.close())
  return endpoint.address.port
}

async function scene(allow: (port: number) => string[]) {
  const hops: (number | undefined)[] = []
  const origin = await serve(
    new Router().add({
      pattern: '/s/:name',
      get: (r) => {
        hops.push(r.options.getUint(OptionNumber.hopLimit))
        const payload = utf8(`${r.params['name']} ${r.query.join('&')}`)
        return { code: Code.content, payload, contentFormat: 0, etag: Uint8Array.of(1), maxAge: 7 }
      },
      put: (r) => ({ code: r.payload.length > 3000 ? Code.changed : Code.badRequest }),
    }),
  )
  const forwarder = new Forwarder({ allow: allow(origin), clock: systemClock })
  cleanup.push(() => forwarder.stop())
  const proxy = await serve(new Router({ forward: forwarder.handle }))
  const client: CoapClient = await dial(`coap://127.0.0.1:${proxy}`)
  cleanup.push(() => client.close())
  const through = (uri: string, more: { number: number; value: Uint8Array }[] = []) =>
    client.get('/', { options: [textOption(OptionNumber.proxyUri, uri), ...more] })
  return { origin, client, through, hops }
}

describe('forward proxying', () => {
  test('passes a request on to an allowed host, and the answer back', async () => {
    const { origin, through, client, hops } = await scene((port) => [`127.0.0.1:${port}`])
    const reply = await through(`coap://127.0.0.1:${origin}/s/temp?a=1`)
    expect([reply.codeText, reply.text, reply.maxAge, reply.contentFormat]).toEqual(['2.05', 'temp a=1', 7, 0])
    expect(hops).toEqual([15])
    const byScheme = await client.get('/s/other', {
      host: '127.0.0.1',
      options: [textOption(OptionNumber.proxyScheme, 'coap'), uintOption(OptionNumber.uriPort, origin)],
    })
    expect(byScheme.text.trim()).toBe('other')
    const put = await client.put('/', new Uint8Array(4000), {
      options: [textOption(OptionNumber.proxyUri, `coap://127.0.0.1:${origin}/s/x`)],
    })
    expect(put.codeText).toBe('2.04')
    expect((await through(`coap://127.0.0.1:${origin}/none`)).codeText).toBe('4.04')
  })

  test('no other host, port or scheme; nothing when the hops are used up', async () => {
    const { origin, through } = await scene((port) => [`127.0.0.1:${port}`])
    expect((await through('coap://127.0.0.1:1/s/temp')).codeText).toBe('5.05')
    expect((await through(`coap://localhost:${origin}/s/temp`)).codeText).toBe('5.05')
    expect((await through(`coaps://127.0.0.1:${origin}/s/temp`)).codeText).toBe('5.05')
    expect((await through('http://127.0.0.1/')).codeText).toBe('5.05')
    expect((await through('coap://[nonsense]/')).codeText).toBe('4.00')
    const one = [uintOption(OptionNumber.hopLimit, 1)]
    expect((await through(`coap://127.0.0.1:${origin}/s/temp`, one)).codeText).toBe('5.08')
  })

  test('a host that is not there: 5.02 or 5.04', async () => {
    const { through } = await scene(() => ['127.0.0.1'])
    expect((await through('coap://127.0.0.1:1/s/temp')).code >> 5).toBe(5)
  })

  test('the list is checked at the start', () => {
    expect(() => new Forwarder({ allow: ['not a host'], clock: systemClock })).toThrow(
      expect.objectContaining({ code: 'config/invalid' }),
    )
  })
})
