import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compareBytes, concat, copyOf, equalBytes, fromHex, fromUtf8, toHex, u32, utf8 } from '../../protocol/bytes.ts'
import { codeOf } from './suites.ts'

const some = fc.uint8Array({ maxLength: 40 })

describe('octet strings', () => {
  test('hex and back', () => {
    fc.assert(
      fc.property(some, (bytes) => {
        expect(fromHex(toHex(bytes))).toEqual(bytes)
        expect(fromHex(`0x${toHex(bytes).toUpperCase()}`)).toEqual(bytes)
      }),
    )
    for (const bad of ['0', '0g', '0x123', ' 00', 'zz']) expect(codeOf(() => fromHex(bad))).toBe('message/bad-hex')
  })

  test('text and back, and nothing that is not UTF-8', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(fromUtf8(utf8(text))).toBe(text)
      }),
    )
    expect(codeOf(() => fromUtf8(Uint8Array.of(0xff)))).toBe('message/bad-utf8')
    expect(codeOf(() => fromUtf8(Uint8Array.of(0xc0, 0x80)))).toBe('message/bad-utf8')
  })

  test('equality and order', () => {
    fc.assert(
      fc.property(some, some, (a, b) => {
        const order = Buffer.compare(a, b)
        expect(Math.sign(compareBytes(a, b))).toBe(order)
        expect(equalBytes(a, b)).toBe(order === 0)
        expect(equalBytes(a, copyOf(a))).toBe(true)
      }),
    )
    expect(compareBytes(Uint8Array.of(1), Uint8Array.of(1, 0))).toBeLessThan(0)
  })

  test('a copy of a Buffer is a copy, where its own slice is a view', () => {
    const buffer = Buffer.from([1, 2, 3, 4])
    const copy = copyOf(buffer, 1, 3)
    buffer.fill(0)
    expect(copy).toEqual(Uint8Array.of(2, 3))
  })

  test('joining and numbers', () => {
    expect(concat(Uint8Array.of(1), new Uint8Array(0), Uint8Array.of(2, 3))).toEqual(Uint8Array.of(1, 2, 3))
    expect(toHex(u32(2 ** 32 - 1))).toBe('ffffffff')
    expect(toHex(u32(258))).toBe('00000102')
  })
})
