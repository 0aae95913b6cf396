import { describe, expect, test } from 'vitest'
import { parseMoment } from '../../bin/commands/moment.ts'
import { parseResource } from '../../bin/commands/resource.ts'
import { jsonText } from '../../bin/terminal/json.ts'
import { describeFailure, Output } from '../../bin/terminal/output.ts'
import { type PasswordTerminal, readPassword } from '../../bin/terminal/password.ts'
import { IotchainError } from '../../protocol/errors.ts'

const code = (what: string) => expect.objectContaining({ code: what })

function streams(isTTY = false) {
  const said = { out: '', err: '' }
  return {
    said,
    streams: {
      stdout: { write: (text: string) => (said.out += text) },
      stderr: { write: (text: string) => (said.err += text), isTTY },
    },
  }
}

describe('what a command says', () => {
  test('results on stdout, all else on stderr', () => {
    const { said, streams: s } = streams()
    const out = new Output({ json: false, streams: s })
    out.result({ a: 1 }, 'one')
    out.note('a remark')
    out.warn('careful')
    expect(said).toEqual({ out: 'one\n', err: 'a remark\nwarning: careful\n' })
  })

  test('with --json one line per result, no remarks, failures as JSON', () => {
    const { said, streams: s } = streams()
    const out = new Output({ json: true, streams: s })
    out.result({ bytes: Uint8Array.of(1, 255), big: 2n ** 70n, none: undefined }, 'text')
    out.progress('working')
    out.failure(new IotchainError('client/stale', 'too old', { hint: 'look' }))
    expect(said.out).toBe('{"bytes":"0x01ff","big":"1180591620717411303424"}\n')
    expect(JSON.parse(said.err)).toEqual({ error: { code: 'client/stale', message: 'too old', hint: 'look' } })
  })

  test('progress is rewritten on a terminal, and told once a second elsewhere', () => {
    const terminal = streams(true)
    const out = new Output({ json: false, streams: terminal.streams })
    out.progress('1 of 2')
    out.progress('2 of 2')
    out.result('x', 'x')
    expect(terminal.said.err).toBe('\r\x1b[K1 of 2\r\x1b[K2 of 2\n')
    const pipe = streams()
    const piped = new Output({ json: false, streams: pipe.streams })
    for (let i = 0; i < 100; i++) piped.progress(`tries: ${i}`)
    piped.progress('sent')
    expect(pipe.said.err).toBe('tries: 0\nsent\n')
  })

  test('an error of any kind becomes one sentence', () => {
    expect(describeFailure(new IotchainError('config/invalid', 'a\nb\n  c')).message).toBe('a; b; c')
    expect(describeFailure(Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' }))).toMatchObject({
      code: 'ENOSPC',
      hint: undefined,
    })
    expect(describeFailure(new TypeError('x is not a function'))).toMatchObject({
      hint: expect.stringMatching(/fault/),
    })
    expect(describeFailure('thrown')).toMatchObject({ message: 'thrown' })
  })

  test('maps, dates and nested octets in JSON', () => {
    expect(jsonText({ m: new Map([['k', [Uint8Array.of(0)]]]), d: new Date(0) })).toBe(
      '{"m":{"k":["0x00"]},"d":"1970-01-01T00:00:00.000Z"}',
    )
  })
})

describe('a password at the terminal', () => {
  /** Keys that are pressed one after the other. */
  function typing(...keys: string[]) {
    let listener: ((chunk: string) => void) | undefined
    const shown: string[] = []
    const raw: boolean[] = []
    const input = {
      isTTY: true,
      setRawMode: (on: boolean) => raw.push(on),
      resume: () =>
        setImmediate(() => {
          for (const key of keys) listener?.(key)
        }),
      pause() {},
      on: (_: string, f: (chunk: string) => void) => {
        listener = f
      },
      off: () => {
        listener = undefined
      },
    }
    const terminal = { input, output: { write: (t: string) => shown.push(t) } } as unknown as PasswordTerminal
    return { terminal, shown, raw }
  }

  test('is not echoed; backspace works; the terminal is left as it was', async () => {
    const { terminal, shown, raw } = typing('s', 'e', 'x', '\x7f', 'cr', 'et', '\r', 'more')
    expect(await readPassword(undefined, 'Password', terminal)).toBe('secret')
    expect(shown.join('')).toBe('Password: \n')
    expect(raw).toEqual([true, false])
  })

  test('Ctrl-C and an empty one are refused', async () => {
    await expect(readPassword(undefined, 'P', typing('a', '\x03').terminal)).rejects.toThrow(code('wallet/no-password'))
    await expect(readPassword(undefined, 'P', typing('\n').terminal)).rejects.toThrow(code('wallet/no-password'))
  })
})

describe('what people type', () => {
  const device = `0x${'ab'.repeat(20)}`

  test('resources', () => {
    expect(parseResource('coap://host/s/temp', {})).toEqual({
      origin: 'coap://host/',
      path: ['s', 'temp'],
      via: 'device',
      device: undefined,
    })
    expect(parseResource(`coap://[::1]:9/d/${device}/s/temp`, {})).toMatchObject({
      via: 'proxy',
      device,
      path: ['s', 'temp'],
    })
    expect(parseResource('/s/temp', { proxy: 'coap://p', device })).toMatchObject({ via: 'proxy', device })
    expect(parseResource('coap://h/d/other', {})).toMatchObject({ via: 'device', path: ['d', 'other'] })
    for (const [text, options] of [
      ['s/temp', {}],
      ['coap://h', {}],
      ['coaps://h/s', {}],
      ['/s', { proxy: 'coaps://p', device }],
      [`coap://h/d/${device}`, {}],
      ['/s', { proxy: 'coap://p' }],
      ['coap://h/s', { proxy: 'coap://p', device }],
      [`coap://h/d/${device}/s`, { device: `0x${'cd'.repeat(20)}` }],
    ] as const) {
      expect(() => parseResource(text, options)).toThrow(code('client/bad-resource'))
    }
  })

  test('moments', () => {
    expect(parseMoment('now', 1000.5)).toBe(1001)
    expect(parseMoment('24h', 1_000_000)).toBe(1_000_000 - 86_400)
    expect(parseMoment('1700000000', 0)).toBe(1_700_000_000)
    expect(parseMoment('2026-01-31T12:00Z', 0)).toBe(Date.UTC(2026, 0, 31, 12) / 1000)
    for (const text of ['yesterday', '', '12', '2026-99-99']) {
      expect(() => parseMoment(text, 0)).toThrow(code('client/bad-time'))
    }
  })
})
