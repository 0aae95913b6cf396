import { afterEach, describe, expect, test } from 'vitest'
import { utf8 } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { Changes } from '../../proxy/changes.ts'
import { HttpGateway, type Lookup, type Representation } from '../../proxy/http.ts'
import { ERROR_CODES } from '../../proxy/routes.ts'
import { silentLogger } from '../../runtime/log.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'

const gateways: HttpGateway[] = []
afterEach(async () => {
  await Promise.all(gateways.splice(0).map((g) => g.stop()))
})

async function gateway(lookup: Lookup, options: { origins?: string[]; maxStreams?: number } = {}) {
  const changes = new Changes()
  const http = new HttpGateway({
    host: '127.0.0.1',
    port: 0,
    origins: options.origins ?? ['*'],
    maxStreams: options.maxStreams ?? 4,
    lookup,
    changes,
    log: silentLogger,
    errorCodes: ERROR_CODES,
  })
  await http.start()
  gateways.push(http)
  return { http, changes, url: (path: string) => `http://127.0.0.1:${http.port}${path}` }
}

const object = (text: string): Representation => ({
  bytes: utf8(text),
  contentFormat: ContentFormat.coseSign1,
  etag: utf8(text.padEnd(8).slice(0, 8)),
  maxAge: 30,
})

describe('the HTTP gateway', () => {
  test('GET: octets, media type, ETag, Cache-Control, CORS; 304 and HEAD', async () => {
    const { url } = await gateway((path) => (path.join('/') === 'd/0x1/s/température' ? object('sealed') : undefined))
    const response = await fetch(url('/d/0x1/s/temp%C3%A9rature'))
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/cose;cose-type="cose-sign1"')
    expect(response.headers.get('cache-control')).toBe('public, max-age=5')
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(response.headers.get('access-control-expose-headers')).toBe('ETag')
    expect(await response.text()).toBe('sealed')
    const etag = response.headers.get('etag') as string
    const again = await fetch(url('/d/0x1/s/temp%C3%A9rature'), { headers: { 'if-none-match': `"x", ${etag}` } })
    expect(again.status).toBe(304)
    const head = await fetch(url('/d/0x1/s/temp%C3%A9rature'), { method: 'HEAD' })
    expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '6', ''])
  })

  test('what is not there, what cannot be read, and what is not for reading', async () => {
    const { url } = await gateway(() => undefined)
    expect((await fetch(url('/d/none'))).status).toBe(404)
    expect((await fetch(url('/d/%zz'))).status).toBe(400)
    expect((await fetch(url(`/${'x'.repeat(5000)}`))).status).toBe(400)
    const put = await fetch(url('/d/none'), { method: 'PUT', body: 'x' })
    expect([put.status, put.headers.get('allow')]).toEqual([405, 'GET, HEAD, OPTIONS'])
    const preflight = await fetch(url('/d/none'), { method: 'OPTIONS' })
    expect([preflight.status, preflight.headers.get('access-control-allow-methods')]).toEqual([204, 'GET, HEAD'])
  })

  test('an error tells its status; one of ours that nobody foresaw tells nothing', async () => {
    let error: Error = new IotchainError('proxy/key-server', 'away', { retryAfterSeconds: 10 })
    const { url } = await gateway(() => {
      throw error
    })
    const away = await fetch(url('/d/x'))
    expect([away.status, away.headers.get('retry-after')]).toEqual([503, '10'])
    error = new TypeError('secret detail')
    const broken = await fetch(url('/d/x'))
    expect([broken.status, await broken.text()]).toEqual([500, '{"status":500,"title":"the proxy failed"}'])
  })

  test('origins other than the configured ones may not read', async () => {
    const { url } = await gateway(() => object('x'), { origins: ['https://good.example'] })
    const allowed = async (origin: string) =>
      (await fetch(url('/d/x'), { headers: { origin } })).headers.get('access-control-allow-origin')
    expect(await allowed('https://good.example')).toBe('https://good.example')
    expect(await allowed('https://evil.example')).toBeNull()
  })

  test('an event stream tells the present state and each change once', async () => {
    let text = 'one'
    const { url, changes } = await gateway(() => object(text))
    const response = await fetch(url('/d/0x1/s/temp'), { headers: { accept: 'text/event-stream' } })
    expect(response.headers.get('content-type')).toBe('text/event-stream')
    const events = dataOf(response)
    expect((await events.next()).value).toBe('one')
    changes.publish('/d/0x1/s/temp')
    text = 'two'
    changes.publish('/d/0x1/s/other')
    changes.publish('/d/0x1/s/temp')
    expect((await events.next()).value).toBe('two')
    await events.return(undefined)
  })

  test('a stream that comes back with the last ETag gets no repetition; too many streams get 503', async () => {
    const { url, changes, http } = await gateway(() => object('same'), { maxStreams: 1 })
    const first = await fetch(url('/d/x'), { headers: { accept: 'text/event-stream' } })
    const events = dataOf(first)
    expect((await events.next()).value).toBe('same')
    const second = await fetch(url('/d/x'), { headers: { accept: 'text/event-stream' } })
    expect([second.status, second.headers.get('retry-after')]).toEqual([503, '30'])
    await events.return(undefined)
    await expect.poll(() => http.streams).toBe(0)
    changes.publish('/d/x')
  })
})

async function* dataOf(response: Response): AsyncGenerator<string, void> {
  let text = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk)
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1]
      text = text.slice(end + 2)
      if (data !== undefined) yield Buffer.from(data, 'base64url').toString()
    }
  }
}
