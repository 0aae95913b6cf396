import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { encodeCbor } from '../../protocol/cbor.ts'
import { suite } from '../../protocol/crypto/node.ts'
import {
  addressOf,
  generatePrivateKey,
  keccak256,
  recoverAddress,
  signDigest,
} from '../../protocol/crypto/secp256k1.ts'
import { clientMemberId, deviceMemberId, gidOf, gname, parseGname, toGid } from '../../protocol/groups/gid.ts'
import { decodeCommand, encodeCommand } from '../../protocol/objects/command.ts'
import { decodePack, encodePack, type Pack } from '../../protocol/objects/pack.ts'
import { createSealer } from '../../protocol/objects/seal.ts'
import { decodeSenml, encodeSenml, resolveSenml, type SenmlRecord } from '../../protocol/objects/senml.ts'
import { SEQ_EPOCH, SEQ_RESERVE, SeqCounter } from '../../protocol/objects/seq.ts'
import { codeOf } from './suites.ts'

describe('SenML (RFC 8428)', () => {
  /** The example of §6, as printed there: map keys in no order, floats in double precision. */
  const EXAMPLE =
    '87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b001062236141200500' +
    '67766f6c7461676501615602fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a300676375' +
    '7272656e74062302fb3ff4cccccccccccda3006763757272656e74062202fb3ff6666666666666a30067637572726' +
    '56e74062102f93e00a3006763757272656e74062002fb3ff999999999999aa3006763757272656e74060002fb3ffb333333333333'

  const records: SenmlRecord[] = [
    { bn: 'urn:dev:ow:10e2073a0108006:', bt: 1276020076.001, bu: 'A', bver: 5, n: 'voltage', u: 'V', v: 120.1 },
    { n: 'current', t: -5, v: 1.2 },
    { n: 'current', t: -4, v: 1.3 },
    { n: 'current', t: -3, v: 1.4 },
    { n: 'current', t: -2, v: 1.5 },
    { n: 'current', t: -1, v: 1.6 },
    { n: 'current', t: 0, v: 1.7 },
  ]

  test('the example of §6', () => {
    expect(decodeSenml(fromHex(EXAMPLE))).toEqual(records)
    expect(decodeSenml(encodeSenml(records))).toEqual(records)
    expect(encodeSenml(records)).toHaveLength(EXAMPLE.length / 2)
  })

  test('resolved (§4.6)', () => {
    const resolved = resolveSenml(records, 0)
    expect(resolved[0]).toMatchObject({ name: 'urn:dev:ow:10e2073a0108006:voltage', unit: 'V', value: 120.1 })
    expect(resolved[1]).toMatchObject({ name: 'urn:dev:ow:10e2073a0108006:current', time: 1276020071.001, unit: 'A' })
    const relative = resolveSenml(
      [
        { n: 'a', v: 1 },
        { n: 'b', t: -10, vb: true },
        { bv: 20, bs: 3, v: 1, s: 2, ut: 5 },
      ],
      1000,
    )
    expect(relative.map((r) => r.time)).toEqual([undefined, 990, undefined])
    expect(relative[1]?.value).toBe(true)
    expect(relative[2]).toMatchObject({ value: 21, sum: 5, updateTime: 5 })
    expect(resolveSenml([{ vs: 'x' }, { vd: Uint8Array.of(1) }, {}], 0).map((r) => r.value)).toEqual([
      'x',
      Uint8Array.of(1),
      undefined,
    ])
  })

  const record = fc.record(
    {
      bn: fc.string(),
      bt: fc.double({ noNaN: true, noDefaultInfinity: true }).filter((x) => !Object.is(x, -0) && Math.abs(x) < 2 ** 53),
      n: fc.string(),
      u: fc.string(),
      v: fc.oneof(fc.integer(), fc.constantFrom(0.1, 21.5, -40.25)),
      t: fc.integer(),
      s: fc.integer(),
    },
    { requiredKeys: [] },
  )

  test('records encode and decode to themselves', () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 10 }), (list) => {
        expect(decodeSenml(encodeSenml(list as SenmlRecord[]))).toEqual(list)
      }),
    )
  })

  test('unknown fields are passed over, unless they must be understood', () => {
    expect(
      decodeSenml(
        encodeCbor([
          new Map<unknown, unknown>([
            [0, 'a'],
            ['x', 1],
            [99, 2],
          ]),
        ]),
      ),
    ).toEqual([{ n: 'a' }])
    expect(codeOf(() => decodeSenml(encodeCbor([new Map([['x_', 1]])])))).toBe('senml/malformed')
  })

  test.each([
    ['no CBOR', fromHex('ff')],
    ['no array', encodeCbor(new Map())],
    ['a record that is no map', encodeCbor([1])],
    ['a number that is text', encodeCbor([new Map([[2, 'x']])])],
    ['a name that is a number', encodeCbor([new Map([[0, 1]])])],
    ['a truth that is a number', encodeCbor([new Map([[4, 1]])])],
    ['data that is text', encodeCbor([new Map([[8, 'x']])])],
    [
      'two values',
      encodeCbor([
        new Map<unknown, unknown>([
          [2, 1],
          [3, 'x'],
        ]),
      ]),
    ],
    ['too many records', encodeCbor(Array.from({ length: 4097 }, () => new Map()))],
  ])('%s is refused', (_, bytes) => {
    expect(codeOf(() => decodeSenml(bytes))).toBe('senml/malformed')
  })

  test('what is no record is not encoded', () => {
    const bad: unknown[] = [{ v: 'x' }, { n: 1 }, { v: Number.NaN }, { v: 1, vs: 'x' }, { temperature: 1 }, { vd: [1] }]
    for (const wrong of bad) expect(codeOf(() => encodeSenml([wrong as SenmlRecord]))).toBe('senml/bad-record')
    expect(codeOf(() => encodeSenml(Array.from({ length: 4097 }, () => ({}))))).toBe('senml/bad-record')
    expect(decodeSenml(encodeCbor([new Map([[2, 2n ** 60n]])]))).toEqual([{ v: 2 ** 60 }])
  })
})

describe('packs', () => {
  const pack: Pack = {
    fromSeq: 5,
    toSeq: 9,
    from: 100,
    to: 160,
    records: [
      { bn: 'temp', v: 1.5 },
      { t: 60, v: 2 },
    ],
  }

  test('encode and decode to themselves', () => {
    expect(decodePack(encodePack(pack))).toEqual(pack)
    expect(toHex(encodePack(pack))).toBe('83840509186418a0a202f93e00216474656d70a2020206183c')
  })

  test('64 readings take at most 20 octets each, sealed and signed', () => {
    const records: SenmlRecord[] = Array.from({ length: 64 }, (_, i) =>
      i === 0 ? { bn: 'temp', bt: 1_800_000_000, bu: 'Cel', v: 21.46 } : { t: i * 14, v: 21.5 + i / 100 },
    )
    const plaintext = encodePack({ fromSeq: 1, toSeq: 64, from: 1_800_000_000, to: 1_800_000_900, records })
    const sealer = createSealer(suite, {
      K: new Uint8Array(16),
      gid: new Uint8Array(8),
      session: 1,
      device: new Uint8Array(20),
      sid: Uint8Array.of(1),
      path: ['s', 'temp', '@pack'],
      algorithm: 24,
      signingKey: suite.ed25519.signing(new Uint8Array(32)),
    })
    const { signed } = sealer.seal({ seq: 2 ** 32, iat: 1_800_000_900, contentFormat: 60, plaintext })
    expect(signed.length / 64).toBeLessThanOrEqual(20)
  })

  test.each([
    ['no CBOR', fromHex('ff')],
    ['no array', encodeCbor(1)],
    ['no head', encodeCbor([new Map()])],
    ['a short head', encodeCbor([[1, 2, 3]])],
    ['a head of text', encodeCbor([[1, 2, 3, 'x']])],
    ['numbers downwards', encodeCbor([[2, 1, 3, 4]])],
    ['numbers too large', encodeCbor([[2, 2 ** 40, 3, 4]])],
    ['times downwards', encodeCbor([[1, 2, 4, 3]])],
  ])('%s is refused', (_, bytes) => {
    expect(codeOf(() => decodePack(bytes))).toBe('object/bad-pack')
  })

  test('records that are none are refused, and bad packs not made', () => {
    expect(codeOf(() => decodePack(encodeCbor([[1, 2, 3, 4], 5])))).toBe('senml/malformed')
    expect(codeOf(() => encodePack({ ...pack, to: 1 }))).toBe('object/bad-pack')
  })
})

describe('commands', () => {
  test('one record with a truth or a number', () => {
    for (const value of [true, false, 0, -7.5]) expect(decodeCommand(encodeCommand(value))).toBe(value)
    expect(decodeCommand(encodeSenml([{ n: 'valve', t: 5, v: 3 }]))).toBe(3)
  })

  test.each<[string, SenmlRecord[]]>([
    ['no record', []],
    ['two records', [{ v: 1 }, { v: 1 }]],
    ['no value', [{ n: 'valve' }]],
    ['a text', [{ vs: 'on' }]],
    ['a base value, which would be added', [{ bv: 5, v: 10 }]],
  ])('%s is refused', (_, records) => {
    expect(codeOf(() => decodeCommand(encodeSenml(records)))).toBe('object/bad-command')
  })
})

describe('sequence numbers', () => {
  const start = (SEQ_EPOCH + 1000) * 1000
  /** Runs a counter against a file that keeps the limit; time goes on while it waits. */
  class Runner {
    limit = 0
    now = start
    counter = new SeqCounter(0, start)
    used: number[] = []
    writes = 0
    take(): number {
      for (;;) {
        const step = this.counter.next(this.now)
        if (step.do === 'use') {
          this.used.push(step.seq)
          return step.seq
        }
        if (step.do === 'wait') this.now += step.ms
        else {
          this.limit = step.limit
          this.writes++
          this.counter.reserved(step.limit)
        }
      }
    }
    restart(limit = this.limit): void {
      this.counter = new SeqCounter(limit, this.now)
    }
  }

  test('nothing before the second after the start; then from 256 a second', () => {
    const counter = new SeqCounter(0, start + 250)
    expect(counter.next(start + 250)).toEqual({ do: 'wait', ms: 750 })
    expect(counter.next(start - 5000)).toEqual({ do: 'wait', ms: 6000 })
    expect(counter.next(start + 1000)).toEqual({ do: 'reserve', limit: 1001 * 256 + SEQ_RESERVE })
    counter.reserved(1001 * 256 + SEQ_RESERVE)
    expect(counter.next(start + 1000)).toEqual({ do: 'use', seq: 1001 * 256 })
    expect(counter.reservedLimit).toBe(1001 * 256 + SEQ_RESERVE)
  })

  test('one write for 64 numbers, 256 numbers a second', () => {
    const run = new Runner()
    for (let i = 0; i < 1024; i++) run.take()
    expect(run.writes).toBe(16)
    expect(run.used).toEqual(Array.from({ length: 1024 }, (_, i) => (run.used[0] as number) + i))
    expect(run.now - start).toBeGreaterThanOrEqual(4000)
    expect(run.now - start).toBeLessThan(5100)
  })

  test('no number twice, whatever copy of the state comes back, in the same second and after bursts', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 2500 }), fc.nat()), {
          maxLength: 12,
        }),
        (steps) => {
          const run = new Runner()
          const copies = [0]
          for (const [burst, passes, pick] of steps) {
            for (let i = 0; i < burst; i++) run.take()
            copies.push(run.limit)
            run.now += passes
            run.restart(copies[pick % copies.length])
          }
          run.take()
          expect(new Set(run.used).size).toBe(run.used.length)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('limits', () => {
    expect(codeOf(() => new SeqCounter(-1, start))).toBe('object/bad-seq')
    expect(codeOf(() => new SeqCounter(1, 0).next(5000))).toBe('object/clock')
    const counter = new SeqCounter(500, start)
    expect(codeOf(() => counter.reserved(499))).toBe('object/bad-seq')
    expect(codeOf(() => new SeqCounter(2 ** 40, start).next(start + 1000))).toBe('object/seq-exhausted')
    // a state from the future waits for its time
    expect(new SeqCounter(2000 * 256, start).next(start + 1000)).toEqual({ do: 'wait', ms: 999_000 })
  })
})

describe('identifiers', () => {
  const registry = new Uint8Array(20).fill(0x11)
  const device = fromHex('00112233445566778899aabbccddeeff01020304')

  test('gid is the head of a hash over chain, registry, device and bit', () => {
    const gid = gidOf(suite, { chainId: 20180415, registry, device, bit: 3 })
    expect(gname(gid)).toBe('06a8cb8d39e78508')
    expect(gidOf(suite, { chainId: 20180415n, registry, device, bit: 3 })).toEqual(gid)
    expect(parseGname('06a8cb8d39e78508')).toEqual(gid)
    for (const bad of [{ bit: 32 }, { bit: -1 }, { bit: 0.5 }, { registry: device.slice(1) }, { chainId: -1 }]) {
      expect(codeOf(() => gidOf(suite, { chainId: 1, registry, device, bit: 3, ...bad }))).toBe('group/bad-gid')
    }
    for (const bad of ['06A8CB8D39E78508', '06a8cb8d39e7850', '06a8cb8d39e785080', '../../../../../../']) {
      expect(codeOf(() => parseGname(bad))).toBe('group/bad-gid')
    }
    expect(codeOf(() => toGid(new Uint8Array(9)))).toBe('group/bad-gid')
  })

  test('member ids', () => {
    expect(toHex(clientMemberId(device))).toBe(`01${toHex(device)}`)
    expect(toHex(deviceMemberId(device))).toBe(`02${toHex(device)}`)
    expect(codeOf(() => clientMemberId(new Uint8Array(19)))).toBe('group/bad-member')
  })
})

describe('secp256k1 and Keccak-256', () => {
  const one = fromHex(`${'00'.repeat(31)}01`)

  test('known values', () => {
    expect(toHex(keccak256(utf8('')))).toBe('c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470')
    expect(addressOf(one)).toBe('0x7e5f4552091a69125d5dfcb7b8c2659029395bdf')
  })

  test('what is signed is recovered', () => {
    const digest = keccak256(utf8('hello'))
    for (let i = 0; i < 10; i++) {
      const key = generatePrivateKey()
      const signature = signDigest(key, digest)
      expect(signature).toHaveLength(65)
      expect(recoverAddress(digest, signature)).toBe(addressOf(key))
      const v01 = signature.slice()
      v01[64] = (signature[64] as number) - 27
      expect(recoverAddress(digest, v01)).toBe(addressOf(key))
    }
  })

  test('what is no signature or no key', () => {
    const digest = keccak256(utf8('hello'))
    const signature = signDigest(one, digest)
    const n = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n
    const s = BigInt(`0x${toHex(signature.subarray(32, 64))}`)
    const high = signature.slice()
    high.set(fromHex((n - s).toString(16).padStart(64, '0')), 32)
    high[64] = 55 - (signature[64] as number)
    const bad = [
      high,
      signature.subarray(1),
      new Uint8Array(65),
      Uint8Array.from(signature).fill(255),
      signature.slice(0, 64),
    ]
    for (const wrong of bad) expect(codeOf(() => recoverAddress(digest, wrong))).toBe('crypto/bad-signature')
    expect(codeOf(() => recoverAddress(digest.subarray(1), signature))).toBe('crypto/bad-signature')
    const v = signature.slice()
    v[64] = 29
    expect(codeOf(() => recoverAddress(digest, v))).toBe('crypto/bad-signature')
    expect(codeOf(() => addressOf(new Uint8Array(32)))).toBe('crypto/bad-key')
    expect(codeOf(() => signDigest(new Uint8Array(31), digest))).toBe('crypto/bad-key')
  })
})
