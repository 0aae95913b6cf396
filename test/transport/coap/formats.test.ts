import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { utf8 } from '../../../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../../../protocol/errors.ts'
import { Code } from '../../../transport/coap/codes.ts'
import { coapCodeOf, errorReply } from '../../../transport/coap/error-codes.ts'
import { decodeLinks, encodeLinks, filterLinks } from '../../../transport/coap/link-format.ts'
import { decodeProblem, encodeProblem } from '../../../transport/coap/problem-details.ts'
import { type Link, Router } from '../../../transport/coap/server.ts'
import { isLoopback, parsePrefixes, prefixOf } from '../../../transport/coap/source-prefix.ts'
import { formatCoapUri, formatPath, parseCoapUri, parsePath } from '../../../transport/coap/uri.ts'

function onlyOurs(run: () => unknown): void {
  try {
    run()
  } catch (error) {
    if (!isIotchainError(error)) throw error
  }
}

describe('URIs (RFC 7252 §6)', () => {
  test.each([
    ['coap://example.com:5683/~sensors/temp.xml', ['coap', 'example.com', 5683, ['~sensors', 'temp.xml'], []]],
    ['coap://EXAMPLE.com/%7Esensors/temp.xml', ['coap', 'example.com', 5683, ['~sensors', 'temp.xml'], []]],
    [
      'coaps://[2001:db8::1]:61616//%2F//?%2F%2F&?%26',
      ['coaps', '2001:db8::1', 61_616, ['', '/', '', ''], ['//', '?&']],
    ],
    ['coap://198.51.100.1:61616', ['coap', '198.51.100.1', 61_616, [], []]],
    ['coaps://host', ['coaps', 'host', 5684, [], []]],
    ['coap://[fe80::1%25eth0]/x', ['coap', 'fe80::1%eth0', 5683, ['x'], []]],
    ['COAP://h/?a', ['coap', 'h', 5683, [], ['a']]],
  ])('%s', (text, expected) => {
    const uri = parseCoapUri(text)
    expect([uri.scheme, uri.host, uri.port, uri.path, uri.query]).toEqual(expected)
    expect(parseCoapUri(formatCoapUri(uri))).toEqual(uri)
  })

  test.each([
    'http://x/',
    'coap:/x',
    'coap://',
    'coap://h:0/',
    'coap://h:70000/',
    'coap://h/#a',
    'coap://[::1',
    'coap://[nonsense]/',
    'coap://h/%zz',
    'coap://h/%ff',
    `coap://h/${'a'.repeat(256)}`,
    'coap://user@h/',
  ])('%s is refused with a hint', (text) => {
    expect(() => parseCoapUri(text)).toThrow(
      expect.objectContaining({ code: 'coap/bad-uri', hint: expect.any(String) }),
    )
  })

  test.each([
    ['coap://h:155684', 'the port must be 1 to 65535'],
    ['coaps+tcp://h', 'not over TCP'],
    ['h:5683', 'does not begin with coap://'],
  ])('%s: says what is wrong', (text, why) => {
    expect(() => parseCoapUri(text)).toThrow(why)
  })

  test('paths go to text and back', () => {
    const unit = fc.constantFrom('a', 'Z', '/', '%', '?', '&', '#', ':', ' ', '.', '\0', 'ä', '€', '𝄞')
    fc.assert(
      fc.property(fc.array(fc.string({ unit, maxLength: 8 }), { maxLength: 5 }), (segments) => {
        // one empty segment is the root
        fc.pre(!(segments.length === 1 && segments[0] === ''))
        expect(parsePath(formatPath(segments)).path).toEqual(segments)
      }),
    )
    expect(formatPath([])).toBe('/')
    expect(parsePath('s/temp?a=1&b')).toEqual({ path: ['s', 'temp'], query: ['a=1', 'b'] })
  })

  test('any text parses or is refused by us', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (text) => {
        onlyOurs(() => parseCoapUri(text))
        onlyOurs(() => parseCoapUri(`coap://${text}`))
        onlyOurs(() => parsePath(text))
      }),
    )
  })
})

describe('link format (RFC 6690)', () => {
  const links: Link[] = [
    { href: '/sensors', attributes: { ct: 40, title: 'Sensor "Index"' } },
    { href: '/sensors/temp', attributes: { rt: 'temperature-c', if: ['sensor', 'core.s'], obs: true } },
    { href: '/sensors/light', attributes: { rt: ['light-lux', 'core.sen-light'], ct: [0, 41], sz: 2000 } },
  ]

  test('the document', () => {
    const text =
      '</sensors>;ct=40;title="Sensor \\"Index\\"",' +
      '</sensors/temp>;rt="temperature-c";if="sensor core.s";obs,' +
      '</sensors/light>;rt="light-lux core.sen-light";ct="0 41";sz=2000'
    expect(encodeLinks(links)).toBe(text)
    const back = decodeLinks(text)
    expect(back.map((l) => l.href)).toEqual(links.map((l) => l.href))
    expect(back[0]?.attributes['title']).toBe('Sensor "Index"')
    expect(back[1]?.attributes['obs']).toBe(true)
    expect(encodeLinks(decodeLinks('')).length).toBe(0)
  })

  test.each([
    [['rt=light-lux'], ['/sensors/light']],
    [['rt=core.*'], ['/sensors/light']],
    [['rt=temperature-c'], ['/sensors/temp']],
    [['if=sensor'], ['/sensors/temp']],
    [['href=/sensors/*'], ['/sensors/temp', '/sensors/light']],
    [['href=/sensors*', 'ct=40'], ['/sensors']],
    [['obs'], ['/sensors/temp']],
    [['ct=41'], ['/sensors/light']],
    [['sz=2000'], ['/sensors/light']],
    [['rt=light-lux core.sen-light'], ['/sensors/light']],
    [['rt=*'], ['/sensors/temp', '/sensors/light']],
    [['nothing=1'], []],
    [['constructor'], []],
  ])('the filter %j', (query, expected) => {
    expect(filterLinks(links, query).map((l) => l.href)).toEqual(expected)
  })

  test('any text is a document or refused by us, in time linear in its length', () => {
    fc.assert(fc.property(fc.string({ maxLength: 80 }), (text) => onlyOurs(() => decodeLinks(text))))
    fc.assert(fc.property(fc.string({ maxLength: 80 }), (text) => onlyOurs(() => decodeLinks(`<${text}>;a="${text}`))))
    onlyOurs(() => decodeLinks('</a>;'.repeat(20_000)))
    onlyOurs(() => decodeLinks(`</a>;${'x'.repeat(200_000)}`))
  })
})

describe('routes', () => {
  const handler = () => ({ code: Code.content })
  const names = (router: Router, path: string) => {
    const found = router.find(parsePath(path).path)
    return found === undefined ? undefined : [found.resource.pattern, { ...found.params }]
  }

  test('a literal wins over a parameter, that over the rest', () => {
    const router = new Router()
      .add({ pattern: '/', get: handler })
      .add({ pattern: '/d/:device/*path', get: handler })
      .add({ pattern: '/d/:device/id', get: handler })
      .add({ pattern: '/d/0x1/s', get: handler })
      .add({ pattern: '/bc/:gid', get: handler })
      .add({ pattern: '/%3Aodd', get: handler })
    expect(names(router, '/')).toEqual(['/', {}])
    expect(names(router, '/d/0x1/s')).toEqual(['/d/0x1/s', {}])
    expect(names(router, '/d/0x1/t/u%2Fv')).toEqual(['/d/:device/*path', { device: '0x1', path: 't/u%2Fv' }])
    expect(names(router, '/d/0x2/id')).toEqual(['/d/:device/id', { device: '0x2' }])
    expect(names(router, '/bc/ff')).toEqual(['/bc/:gid', { gid: 'ff' }])
    expect(names(router, '/:odd')).toEqual(['/%3Aodd', {}])
    expect(names(router, '/d/0x2')).toBeUndefined()
    expect(names(router, '/bc')).toBeUndefined()
    router.remove('/d/0x1/s')
    expect(names(router, '/d/0x1/s')).toEqual(['/d/:device/*path', { device: '0x1', path: 's' }])
  })

  test.each(['x', '/a?b', '/*', '/:', '/*rest/more'])('%s is no pattern', (pattern) => {
    expect(() => new Router().add({ pattern })).toThrow(expect.objectContaining({ code: 'coap/bad-pattern' }))
  })

  test('clashes are refused', () => {
    const router = new Router().add({ pattern: '/a/:x', get: handler })
    expect(() => router.add({ pattern: '/a/:x' })).toThrow(expect.objectContaining({ code: 'coap/duplicate-resource' }))
    expect(() => router.add({ pattern: '/a/:y/b' })).toThrow(expect.objectContaining({ code: 'coap/bad-pattern' }))
  })
})

describe('problem details (RFC 9290)', () => {
  test('there and back', () => {
    const problem = {
      title: 'chain/stale',
      detail: 'the node is behind',
      instance: 'urn:x:1',
      responseCode: Code.serviceUnavailable,
      entries: new Map([[0, new Map<unknown, unknown>([[0, 3]])]]),
    }
    expect(decodeProblem(encodeProblem(problem))).toEqual(problem)
    expect(decodeProblem(encodeProblem({}))).toEqual({})
  })

  test('anything else is undefined', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (octets) => void decodeProblem(octets)))
    expect(decodeProblem(utf8('4.04'))).toBeUndefined()
    expect(decodeProblem(Uint8Array.of(0x80))).toBeUndefined()
  })

  test('errors know their code', () => {
    const error = (name: 'object/rollback' | 'chain/stale' | 'config/invalid') => new IotchainError(name, 'text')
    expect(coapCodeOf(error('object/rollback'))).toBe(Code.conflict)
    expect(coapCodeOf(error('chain/stale'))).toBe(Code.serviceUnavailable)
    expect(coapCodeOf(error('chain/stale'), { 'chain/*': Code.notFound })).toBe(Code.notFound)
    expect(coapCodeOf(error('chain/stale'), { 'chain/stale': Code.conflict })).toBe(Code.conflict)
    expect(coapCodeOf(error('config/invalid'))).toBe(Code.internalServerError)
    expect(coapCodeOf(new Error('x'))).toBe(Code.internalServerError)
  })

  test('class 4 explains itself, class 5 says its code, a stranger nothing', () => {
    const reply = (error: unknown) => {
      const { code, payload, maxAge } = errorReply(error)
      return [code, payload && decodeProblem(payload), maxAge]
    }
    expect(reply(new IotchainError('message/bad-hex', 'odd'))).toEqual([
      Code.badRequest,
      { title: 'message/bad-hex', detail: 'odd' },
      undefined,
    ])
    expect(reply(new IotchainError('chain/stale', 'at /srv/node', { retryAfterSeconds: 7 }))).toEqual([
      Code.serviceUnavailable,
      { title: 'chain/stale' },
      7,
    ])
    expect(reply(new Error('at /root'))).toEqual([Code.internalServerError, undefined, undefined])
  })
})

describe('source prefixes', () => {
  test.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2::3', '2001:db8:1'],
    ['2001:db8::1', '2001:db8:0'],
    ['::1', '0:0:0'],
    ['fe80::1%eth0', 'fe80:0:0'],
    ['1::3:4:5:6:7:8', '1:0:3'],
    ['64:ff9b::192.0.2.1', '64:ff9b:0'],
  ])('%s belongs to %s', (address, prefix) => {
    expect(prefixOf(address)).toBe(prefix)
  })

  test('loopback and trusted networks', () => {
    expect(['127.0.0.1', '::1', '::ffff:127.9.8.7', '127.1.1.1'].every(isLoopback)).toBe(true)
    expect(['128.0.0.1', '::2', '10.0.0.1', '::ffff:10.0.0.1'].some(isLoopback)).toBe(false)
    const trusted = parsePrefixes(['10.0.0.0/8', 'fd00::/8', '192.0.2.7'])
    expect(['10.1.2.3', '::ffff:10.0.0.1', 'fd12::1%eth0', '192.0.2.7'].map((a) => trusted?.(a))).toEqual([
      true,
      true,
      true,
      true,
    ])
    expect(['11.0.0.1', '2001::1', '192.0.2.8'].map((a) => trusted?.(a))).toEqual([false, false, false])
    expect(parsePrefixes([])).toBeUndefined()
    for (const bad of ['10.0.0.0/33', 'x', '::/129', '10.0.0.0/', '10.0.0.0/-1']) {
      expect(() => parsePrefixes([bad])).toThrow(expect.objectContaining({ code: 'coap/bad-prefix' }))
    }
  })
})
