import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex, utf8 } from '../../../protocol/bytes.ts'
import { isIotchainError } from '../../../protocol/errors.ts'
import { blockOctets, decodeBlock, encodeBlock, szxFor } from '../../../transport/coap/block.ts'
import { Code, code, codeName, codeText, isRequest, isResponse, methodOf } from '../../../transport/coap/codes.ts'
import { IncomingRequest } from '../../../transport/coap/incoming-request.ts'
import {
  decodeMessage,
  encodeMessage,
  isMalformed,
  type Malformed,
  type Message,
  MessageType,
  OptionCursor,
} from '../../../transport/coap/message.ts'
import { type CoapOption, uintOption } from '../../../transport/coap/option-set.ts'
import { decodeUint, encodeUint, isCacheKey, isCritical, OptionNumber } from '../../../transport/coap/options.ts'
import { PipePeer } from '../../../transport/coap/pipe.ts'

const peer = new PipePeer('192.0.2.1', 1)

function decoded(octets: Uint8Array): Message {
  const message = decodeMessage(octets)
  if (isMalformed(message)) throw new Error(message.malformed)
  return message
}

const arbitraryOption: fc.Arbitrary<CoapOption> = fc.record({
  number: fc.oneof(fc.nat(30), fc.nat(0xffff)),
  value: fc.oneof(fc.uint8Array({ maxLength: 20 }), fc.uint8Array({ minLength: 260, maxLength: 300 })),
})
const arbitraryMessage = fc.record({
  type: fc.constantFrom(0, 1, 2, 3) as fc.Arbitrary<MessageType>,
  code: fc.constantFrom(1, 2, 5, 31, 64, 69, 132, 160, 191),
  messageId: fc.nat(0xffff),
  token: fc.uint8Array({ maxLength: 8 }),
  options: fc.array(arbitraryOption, { maxLength: 12 }),
  payload: fc.uint8Array({ maxLength: 64 }),
})

describe('RFC 7252 appendix A', () => {
  // figures 16 and 17: GET coap://server/temperature, piggybacked
  test('a confirmable GET without token, and its response', () => {
    const get = fromHex('40017d34bb74656d7065726174757265')
    expect(
      toHex(
        encodeMessage({
          type: MessageType.con,
          code: Code.get,
          messageId: 0x7d34,
          options: [{ number: OptionNumber.uriPath, value: utf8('temperature') }],
        }),
      ),
    ).toBe(toHex(get))
    const request = new IncomingRequest(decoded(get), peer, false)
    expect([request.method, request.path, request.confirmable]).toEqual(['GET', ['temperature'], true])
    const response = decoded(fromHex('60457d34ff32322e332043'))
    expect([response.type, codeText(response.code), response.messageId]).toEqual([2, '2.05', 0x7d34])
    expect(response.payload.toString()).toBe('22.3 C')
  })

  test('a GET with a token of one octet', () => {
    const message = decoded(fromHex('41017d3520bb74656d7065726174757265'))
    expect([...message.token]).toEqual([0x20])
    expect(message.options().getText(OptionNumber.uriPath)).toBe('temperature')
  })
})

describe('messages', () => {
  test('what is encoded decodes to the same', () => {
    fc.assert(
      fc.property(arbitraryMessage, (outgoing) => {
        const message = decoded(encodeMessage(outgoing))
        expect([message.type, message.code, message.messageId]).toEqual([
          outgoing.type,
          outgoing.code,
          outgoing.messageId,
        ])
        expect(toHex(message.token)).toBe(toHex(outgoing.token))
        expect(toHex(message.payload)).toBe(toHex(outgoing.payload))
        const sorted = [...outgoing.options].sort((a, b) => a.number - b.number)
        const got = [...message.options()]
        expect(got.map((o) => `${o.number}:${toHex(o.value)}`)).toEqual(
          sorted.map((o) => `${o.number}:${toHex(o.value)}`),
        )
      }),
    )
  })

  test('any octets are a message or malformed, and reading one stays within it', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (octets) => {
        // most random octets fail at the version
        for (const candidate of [octets, octets.length > 0 ? Uint8Array.of(0x44, ...octets.subarray(1)) : octets]) {
          const message = decodeMessage(candidate)
          if (isMalformed(message)) continue
          const cursor = new OptionCursor(message)
          let last = 0
          while (cursor.next()) {
            expect(cursor.end).toBeLessThanOrEqual(message.optionsEnd)
            expect(cursor.number).toBeGreaterThanOrEqual(last)
            last = cursor.number
          }
          expect(cursor.end).toBe(message.optionsEnd)
          if (isRequest(message.code)) new IncomingRequest(message, peer, false).transferKey()
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('a message with one octet changed, cut short or lengthened never throws', () => {
    fc.assert(
      fc.property(arbitraryMessage, fc.nat(), fc.nat(255), fc.nat(), (outgoing, at, octet, cut) => {
        const octets = encodeMessage(outgoing)
        const mutated = Buffer.from(octets)
        mutated[at % mutated.length] = octet
        for (const candidate of [mutated, octets.subarray(0, cut % octets.length), Buffer.concat([octets, mutated])]) {
          const message = decodeMessage(candidate)
          if (isMalformed(message)) expect(message.reject === undefined || message.reject <= 0xffff).toBe(true)
          else [...message.options()].forEach((o) => void o.value.length)
        }
      }),
      { numRuns: 500 },
    )
  })

  test.each([
    ['', 'short', false],
    ['400100', 'short', false],
    ['00010001', 'version', false],
    ['80010001', 'version', false],
    ['c0010001', 'version', false],
    ['49010001000102030405060708', 'token-length', true],
    ['4f010001', 'token-length', true],
    ['4401000101', 'token-length', true],
    ['5901000100', 'token-length', false],
    ['4000000100', 'empty-message', true],
    ['4100000100', 'empty-message', true],
    ['40200001', 'reserved-code', true],
    ['40610001', 'reserved-code', true],
    ['40c10001', 'reserved-code', true],
    ['40e10001', 'reserved-code', true],
    ['40010001ff', 'empty-payload', true],
    ['40010001f0', 'truncated-option', true],
    ['400100010f', 'truncated-option', true],
    ['40010001d0', 'truncated-option', true],
    ['40010001e000', 'truncated-option', true],
    ['400100010d', 'truncated-option', true],
    ['400100010e00', 'truncated-option', true],
    ['40010001b56161', 'truncated-option', true],
    ['40010001e0ffffe0ffff', 'truncated-option', true],
  ])('%s is malformed: %s', (hex, reason, rejected) => {
    const message = decodeMessage(fromHex(hex)) as Malformed
    expect(message.malformed).toBe(reason)
    expect(message.reject !== undefined).toBe(rejected)
  })

  test('what cannot be encoded is an error of ours', () => {
    const base = { type: MessageType.con, code: Code.get, messageId: 1 } as const
    const bad = (number: number, length: number) => ({ ...base, options: [{ number, value: new Uint8Array(length) }] })
    for (const message of [bad(-1, 0), bad(0x10000, 0), bad(1.5, 0), bad(4, 70_000)]) {
      expect(() => encodeMessage(message)).toThrow(expect.objectContaining({ code: 'coap/bad-option' }))
    }
    try {
      encodeMessage({ ...base, token: new Uint8Array(9) })
      expect.unreachable()
    } catch (error) {
      expect(isIotchainError(error) && error.code).toBe('coap/bad-token')
    }
  })
})

describe('requests', () => {
  const request = (options: CoapOption[], payload?: Uint8Array) =>
    new IncomingRequest(
      decoded(encodeMessage({ type: MessageType.con, code: Code.put, messageId: 1, options, payload })),
      peer,
      false,
    )

  test('every option has its field', () => {
    const read = request(
      [
        { number: OptionNumber.ifMatch, value: Uint8Array.of(1) },
        { number: OptionNumber.uriHost, value: utf8('example.org') },
        { number: OptionNumber.etag, value: Uint8Array.of(2) },
        { number: OptionNumber.etag, value: Uint8Array.of(3) },
        { number: OptionNumber.ifNoneMatch, value: new Uint8Array(0) },
        uintOption(OptionNumber.observe, 0),
        { number: OptionNumber.uriPath, value: utf8('ä/b') },
        { number: OptionNumber.uriPath, value: utf8('') },
        uintOption(OptionNumber.contentFormat, 60),
        { number: OptionNumber.uriQuery, value: utf8('from=1') },
        uintOption(OptionNumber.accept, 18),
        { number: OptionNumber.block2, value: Uint8Array.of(0x2e) },
        { number: OptionNumber.block1, value: new Uint8Array(0) },
        uintOption(OptionNumber.size1, 99),
        { number: OptionNumber.echo, value: Uint8Array.of(9) },
        uintOption(OptionNumber.noResponse, 2),
        { number: OptionNumber.requestTag, value: new Uint8Array(0) },
      ],
      utf8('x'),
    )
    expect(read).toMatchObject({
      path: ['ä/b', ''],
      pathText: '/%C3%A4%2Fb/',
      query: ['from=1'],
      contentFormat: 60,
      accept: 18,
      ifNoneMatch: true,
      observe: 0,
      block1: { number: 0, more: false, szx: 0 },
      block2: { number: 2, more: true, szx: 6 },
      size1: 99,
      noResponse: 2,
      requestTag: '0:',
      badOption: undefined,
    })
    expect(read.etags.map(toHex)).toEqual(['02', '03'])
    expect(read.ifMatch.map(toHex)).toEqual(['01'])
  })

  test('what is not understood matters only if critical', () => {
    expect(request([{ number: 9, value: new Uint8Array(0) }]).badOption).toBe(9)
    expect(request([{ number: 2052, value: new Uint8Array(0) }]).badOption).toBeUndefined()
    // an illegal length makes an option one that is not understood
    expect(request([{ number: OptionNumber.ifNoneMatch, value: Uint8Array.of(1) }]).badOption).toBe(5)
    expect(request([{ number: OptionNumber.etag, value: new Uint8Array(9) }]).etags).toEqual([])
    // and so does a repetition
    expect(request([uintOption(OptionNumber.accept, 1), uintOption(OptionNumber.accept, 2)]).badOption).toBe(17)
    expect(request([uintOption(OptionNumber.observe, 0), uintOption(OptionNumber.observe, 1)]).observe).toBe(0)
    expect(request([{ number: OptionNumber.block1, value: Uint8Array.of(7) }]).badOption).toBe(27)
  })

  test('a path that is no UTF-8 is told apart from one with a replacement character', () => {
    expect(request([{ number: OptionNumber.uriPath, value: Uint8Array.of(0xff) }]).badPath).toBe(true)
    expect(request([{ number: OptionNumber.uriPath, value: utf8('�') }]).badPath).toBe(false)
  })

  test('the transfer key leaves out what differs between blocks', () => {
    const path = { number: OptionNumber.uriPath, value: utf8('a') }
    const key = request([path]).transferKey()
    const block = (n: number) => uintOption(OptionNumber.block1, n)
    expect(request([path, block(8), uintOption(OptionNumber.size1, 5)]).transferKey()).toBe(key)
    expect(request([path, { number: OptionNumber.requestTag, value: Uint8Array.of(1) }]).transferKey()).toBe(key)
    expect(request([path, path]).transferKey()).not.toBe(key)
    expect(request([path, { number: OptionNumber.uriQuery, value: utf8('a') }]).transferKey()).not.toBe(key)
  })
})

describe('numbers', () => {
  test('uint values are as short as can be, and long ones are read', () => {
    fc.assert(fc.property(fc.nat(0xffffffff), (n) => decodeUint(encodeUint(n)) === n))
    expect([0, 255, 256, 65_536, 16_777_216].map((n) => encodeUint(n).length)).toEqual([0, 1, 2, 3, 4])
    expect(decodeUint(Uint8Array.of(0, 0, 7))).toBe(7)
  })

  test('block values', () => {
    fc.assert(
      fc.property(fc.nat(0xfffff), fc.boolean(), fc.nat(6), (number, more, szx) => {
        expect(decodeBlock(decodeUint(encodeBlock({ number, more, szx })))).toEqual({ number, more, szx })
      }),
    )
    expect(decodeBlock(0)).toEqual({ number: 0, more: false, szx: 0 })
    expect(decodeBlock(7)).toBeUndefined()
    expect([16, 31, 32, 1024, 5000, 1].map(szxFor)).toEqual([0, 0, 1, 6, 6, 0])
    expect(blockOctets(6)).toBe(1024)
  })

  test('codes', () => {
    expect(code(2, 5)).toBe(69)
    expect([codeText(69), codeText(0x8d), codeName(132), codeName(0xbf)]).toEqual([
      '2.05',
      '4.13',
      '4.04 Not Found',
      '5.31',
    ])
    expect([methodOf(5), methodOf(8)]).toEqual(['FETCH', undefined])
    expect([isRequest(0), isRequest(31), isRequest(32)]).toEqual([false, true, false])
    expect([isResponse(64), isResponse(96), isResponse(160), isResponse(225)]).toEqual([true, false, true, false])
  })

  test('option classes (RFC 7252 §5.4.6)', () => {
    expect([OptionNumber.uriPath, OptionNumber.block1, OptionNumber.ifMatch].every(isCritical)).toBe(true)
    expect([OptionNumber.etag, OptionNumber.size1, OptionNumber.echo, OptionNumber.requestTag].some(isCritical)).toBe(
      false,
    )
    expect([OptionNumber.size1, OptionNumber.size2].some(isCacheKey)).toBe(false)
    expect(isCacheKey(OptionNumber.accept)).toBe(true)
  })
})
