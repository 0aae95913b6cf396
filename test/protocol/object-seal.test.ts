import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { concat, fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { type CborValue, decodeCbor, encodeCbor, Tagged } from '../../protocol/cbor.ts'
import { suite as noble } from '../../protocol/crypto/noble.ts'
import { suite as node } from '../../protocol/crypto/node.ts'
import type { AeadAlgorithm } from '../../protocol/crypto/suite.ts'
import { isIotchainError } from '../../protocol/errors.ts'
import { externalAad, gonePath, packPath } from '../../protocol/objects/aad.ts'
import { etagOf, isEtagOf } from '../../protocol/objects/etag.ts'
import { decodeHeader, encodeHeader, type ObjectHeader, partialIv } from '../../protocol/objects/header.ts'
import { deriveIntegrityKey, deriveObjectKeys } from '../../protocol/objects/keys.ts'
import { createOpener, ObjectOpener, openObject } from '../../protocol/objects/open.ts'
import { parseEncrypt0, parseHeader, parseMac, parseObject, parseSigned } from '../../protocol/objects/parse.ts'
import { createSealer, macObject, type SealerOptions, sealObject } from '../../protocol/objects/seal.ts'
import { verifyMacObject, verifySignedWith } from '../../protocol/objects/verify.ts'
import { codeOf } from './suites.ts'

const device = fromHex('00112233445566778899aabbccddeeff01020304')
const signingKey = node.ed25519.signing(new Uint8Array(32).fill(3))
const base: SealerOptions = {
  K: new Uint8Array(16).fill(7),
  gid: utf8('group-01'),
  session: 1000,
  device,
  sid: Uint8Array.of(1),
  path: ['s', 'temp'],
  algorithm: 24,
  signingKey,
}
const reading = { seq: 2 ** 32, iat: 1_800_000_000, contentFormat: 112, plaintext: new Uint8Array(29).fill(1) }

describe('sizes (protocol.md §4.9)', () => {
  test('a reading of 29 octets: 178 signed, 114 as mac-object', () => {
    const sealer = createSealer(node, base)
    const { signed, encrypt0 } = sealer.seal(reading)
    expect(signed).toHaveLength(178)
    expect(sealer.mac(encrypt0)).toHaveLength(114)
  })

  test.each([
    [24, 71, 94, 158],
    [10, 61, 84, 148],
    [1, 70, 93, 157],
  ] as const)('11 octets with algorithm %i', (algorithm, plain, mac, sign) => {
    const sealer = createSealer(node, { ...base, algorithm })
    const encrypt0 = sealer.encrypt({ ...reading, seq: 2 ** 16, plaintext: new Uint8Array(11) })
    expect([encrypt0.length, sealer.mac(encrypt0).length, sealer.sign(encrypt0).length]).toEqual([plain, mac, sign])
  })
})

const scopes = fc.record({
  K: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  gid: fc.uint8Array({ minLength: 8, maxLength: 8 }),
  session: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
  device: fc.uint8Array({ minLength: 20, maxLength: 20 }),
  sid: fc.uint8Array({ minLength: 1, maxLength: 7 }),
  path: fc.array(
    fc.string({ maxLength: 12, unit: 'binary' }).filter((s) => !s.startsWith('\uFEFF')),
    { maxLength: 4 },
  ),
  algorithm: fc.constantFrom<AeadAlgorithm>(24, 10, 1),
})
const inputs = fc.record({
  seq: fc.oneof(fc.constantFrom(0, 255, 256, 2 ** 40 - 1), fc.integer({ min: 0, max: 2 ** 40 - 1 })),
  iat: fc.oneof(fc.integer({ min: 0, max: 2 ** 33 }), fc.maxSafeInteger().map(Math.abs)),
  contentFormat: fc.integer({ min: 0, max: 65_535 }),
  plaintext: fc.uint8Array({ maxLength: 80 }),
})

describe('sealing and opening', () => {
  test('what is sealed verifies and opens again, in both suites alike', () => {
    const other = noble.ed25519.signing(new Uint8Array(32).fill(3))
    fc.assert(
      fc.property(scopes, inputs, (scope, input) => {
        const sealer = createSealer(node, { ...scope, signingKey })
        const { signed, encrypt0 } = sealer.seal(input)
        const mac = sealer.mac(encrypt0)
        const expected: ObjectHeader = {
          algorithm: scope.algorithm,
          contentFormat: input.contentFormat,
          sid: scope.sid,
          seq: input.seq,
          gid: scope.gid as ObjectHeader['gid'],
          session: scope.session,
          iat: input.iat,
        }
        const { device: target, path } = scope
        const verifyKey = node.ed25519.verifying(signingKey.publicKey)
        expect(verifySignedWith(node, signed, { device: target, path, verifyKey })).toEqual(expected)
        const integrityKey = node.hmac(deriveIntegrityKey(node, scope.K, scope))
        expect(verifyMacObject(mac, { device: target, path, integrityKey }).header).toEqual(expected)
        for (const bytes of [signed, mac, encrypt0]) {
          expect(parseHeader(bytes)).toEqual(expected)
          const opened = openObject(node, bytes, { K: scope.K, device: target, path })
          expect(opened).toEqual({ header: expected, plaintext: Uint8Array.from(input.plaintext) })
        }
        const second = createSealer(noble, { ...scope, signingKey: other })
        expect(toHex(second.encrypt(input))).toBe(toHex(encrypt0))
        expect(toHex(second.mac(encrypt0))).toBe(toHex(mac))
        expect(toHex(openObject(noble, mac, { K: scope.K, device: target, path }).plaintext)).toBe(
          toHex(input.plaintext),
        )
      }),
      { numRuns: 60 },
    )
    expect(toHex(sealObject(noble, { ...base, signingKey: other, ...reading }).signed)).toBe(
      toHex(sealObject(node, { ...base, ...reading }).signed),
    )
    const { signingKey: _, ...unsigned } = base
    expect(toHex(macObject(noble, { ...unsigned, ...reading }))).toBe(
      toHex(macObject(node, { ...unsigned, ...reading })),
    )
  })

  test('headers encode and decode to themselves', () => {
    fc.assert(
      fc.property(scopes, inputs, ({ algorithm, gid, session, sid }, { contentFormat, seq, iat }) => {
        const header = { algorithm, contentFormat, sid, seq, gid: gid as ObjectHeader['gid'], session, iat }
        const bytes = encodeHeader(header)
        expect(decodeHeader(bytes)).toEqual(header)
        const general = new Map<number, unknown>([
          [1, algorithm],
          [3, contentFormat],
          [4, sid],
          [6, partialIv(seq)],
          [10, concat(gid, new Uint8Array(new Uint32Array([session]).buffer).reverse())],
          [15, new Map([[6, iat]])],
        ])
        expect(toHex(bytes)).toBe(toHex(encodeCbor(general)))
      }),
      { numRuns: 200 },
    )
  })

  test('every part of the scope changes every key', () => {
    const { signingKey: _, K, ...scope } = base
    const variants = [
      scope,
      { ...scope, gid: utf8('group-02') },
      { ...scope, session: 1001 },
      { ...scope, device: new Uint8Array(20) },
      { ...scope, sid: Uint8Array.of(0, 1) },
      { ...scope, path: ['s', 'temp', ''] },
      { ...scope, path: ['s/temp'] },
      { ...scope, path: packPath(scope.path) },
      { ...scope, path: gonePath(scope.path) },
    ]
    const keys = variants.map((v) => deriveObjectKeys(node, K, v))
    keys.push(deriveObjectKeys(node, new Uint8Array(16), scope))
    for (const part of ['contentKey', 'baseIv', 'integrityKey'] as const) {
      expect(new Set(keys.map((k) => toHex(k[part]))).size).toBe(keys.length)
    }
    const byAlgorithm = ([24, 10, 1] as const).map((algorithm) => deriveObjectKeys(node, K, { ...scope, algorithm }))
    expect(byAlgorithm.map((k) => [k.contentKey.length, k.baseIv.length])).toEqual([
      [32, 12],
      [16, 13],
      [16, 12],
    ])
    expect(toHex(deriveIntegrityKey(node, K, scope))).toBe(toHex(keys[0]?.integrityKey as Uint8Array))
  })

  test('what cannot be sealed', () => {
    const sealer = createSealer(node, base)
    const { signingKey: _, ...unsigned } = base
    expect(codeOf(() => createSealer(node, unsigned).seal(reading))).toBe('object/no-signing-key')
    expect(codeOf(() => sealer.encrypt({ ...reading, seq: 2 ** 40 }))).toBe('object/bad-seq')
    expect(codeOf(() => sealer.encrypt({ ...reading, seq: -1 }))).toBe('object/bad-seq')
    expect(codeOf(() => sealer.encrypt({ ...reading, seq: 0.5 }))).toBe('object/bad-seq')
    expect(codeOf(() => sealer.encrypt({ ...reading, contentFormat: 65_536 }))).toBe('object/bad-number')
    expect(codeOf(() => sealer.encrypt({ ...reading, contentFormat: -1 }))).toBe('cbor/unencodable')
    expect(codeOf(() => sealer.encrypt({ ...reading, iat: 1.5 }))).toBe('cbor/unencodable')
    expect(codeOf(() => createSealer(node, { ...base, K: new Uint8Array(15) }))).toBe('object/bad-key')
    expect(codeOf(() => createSealer(node, { ...base, device: new Uint8Array(19) }))).toBe('object/bad-device')
    expect(codeOf(() => externalAad(new Uint8Array(21), []))).toBe('object/bad-device')
    expect(codeOf(() => createSealer(node, { ...base, sid: new Uint8Array(0) }))).toBe('object/bad-sid')
    expect(codeOf(() => createSealer(node, { ...base, sid: new Uint8Array(8) }))).toBe('object/bad-sid')
    expect(codeOf(() => encodeHeader({ ...parseHeader(sealer.encrypt(reading)), sid: new Uint8Array(8) }))).toBe(
      'object/bad-sid',
    )
    expect(codeOf(() => createSealer(node, { ...base, session: 0 }))).toBe('object/bad-session')
    expect(codeOf(() => createSealer(node, { ...base, gid: new Uint8Array(7) }))).toBe('group/bad-gid')
  })
})

describe('opening', () => {
  const sealer = createSealer(node, base)
  const { signed, encrypt0 } = sealer.seal(reading)
  const { signingKey: _, K, ...scope } = base

  test('with another key, path, device or session', () => {
    const open = (options: Partial<{ K: Uint8Array; device: Uint8Array; path: string[] }>) =>
      codeOf(() => openObject(node, signed, { K, device, path: ['s', 'temp'], ...options }))
    expect(open({})).toBeUndefined()
    expect(open({ K: new Uint8Array(16) })).toBe('object/bad-ciphertext')
    expect(open({ device: new Uint8Array(20) })).toBe('object/bad-ciphertext')
    expect(open({ path: ['s', 'temp2'] })).toBe('object/bad-ciphertext')
    const opener = createOpener(node, K, { ...scope, session: 1001 })
    expect(codeOf(() => opener.open(parseEncrypt0(encrypt0)))).toBe('object/wrong-key')
    expect(codeOf(() => createOpener(node, K, { ...scope, algorithm: 1 }).open(parseEncrypt0(encrypt0)))).toBe(
      'object/wrong-key',
    )
  })

  test('an opener asks for each key once, and says when there is none', () => {
    const asked: number[] = []
    const opener = new ObjectOpener(
      node,
      ({ session }) => {
        asked.push(session)
        return session === 1000 ? K : undefined
      },
      2,
    )
    const object = parseObject(signed)
    for (let i = 0; i < 5; i++)
      expect(opener.open(object, device, ['s', 'temp'])).toEqual(Uint8Array.from(reading.plaintext))
    expect(asked).toEqual([1000])
    const later = parseObject(createSealer(node, { ...base, session: 2000 }).seal(reading).signed)
    expect(codeOf(() => opener.open(later, device, ['s', 'temp']))).toBe('object/no-access')
    // two more resources push the first one out
    for (const name of ['x', 'y']) {
      const at = ['s', name]
      opener.open(parseObject(createSealer(node, { ...base, path: at }).seal(reading).signed), device, at)
    }
    opener.open(object, device, ['s', 'temp'])
    expect(asked).toEqual([1000, 2000, 1000, 1000, 1000])
    // buffers of the same octets, a path with a slash: never the same opener
    expect(codeOf(() => opener.open(object, Buffer.from(device), ['s', 'temp']))).toBeUndefined()
    expect(codeOf(() => opener.open(object, device, ['s/temp']))).toBe('object/bad-ciphertext')
  })

  test('etags', () => {
    const etag = etagOf(node, signed)
    expect(etag).toEqual(node.sha256(signed).slice(0, 8))
    expect(isEtagOf(node, etag, signed)).toBe(true)
    expect(isEtagOf(node, etag, encrypt0)).toBe(false)
  })
})

/** What the CDDL says, by way of the general decoder. */
function generalParse(bytes: Uint8Array): boolean {
  const structure = (value: CborValue, tag: number, length: number): CborValue[] | undefined => {
    const parts = value instanceof Tagged && value.tag === tag ? (value.value as CborValue) : undefined
    if (!Array.isArray(parts) || parts.length !== length) return undefined
    const empty = parts[1] instanceof Map && parts[1].size === 0
    return empty && parts.every((p, i) => i === 1 || p instanceof Uint8Array) ? parts : undefined
  }
  const map = (value: CborValue | undefined, keys: number[]): Map<unknown, CborValue> | undefined => {
    const decoded = value instanceof Uint8Array && value.length > 0 ? decodeCbor(value) : undefined
    const same = decoded instanceof Map && decoded.size === keys.length && keys.every((k) => decoded.has(k))
    return same ? decoded : undefined
  }
  const octets = (value: unknown, least: number, most = least): value is Uint8Array =>
    value instanceof Uint8Array && value.length >= least && value.length <= most
  const whole = (value: unknown, most = Number.MAX_SAFE_INTEGER): boolean =>
    typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most
  try {
    const outerValue = decodeCbor(bytes)
    const signed = structure(outerValue, 18, 4)
    const mac = structure(outerValue, 17, 4)
    const outer = signed ?? mac
    if (outer === undefined) return false
    const outerHeader = map(outer[0], [1, 3, 4])
    if (outerHeader?.get(3) !== 16) return false
    if (outerHeader.get(1) !== (signed === undefined ? 4 : -8)) return false
    if (!octets(outer[3], signed === undefined ? 8 : 64)) return false
    const inner = structure(decodeCbor(outer[2] as Uint8Array), 16, 3)
    const header = map(inner?.[0], [1, 3, 4, 6, 10, 15])
    if (header === undefined) return false
    const piv = header.get(6)
    const context = header.get(10)
    const claims = header.get(15)
    const kid = outerHeader.get(4)
    const sid = header.get(4)
    if (!octets(sid, 1, 7) || !octets(piv, 1, 5) || !octets(context, 12)) return false
    if (signed === undefined ? !octets(kid, 1, 7) || toHex(kid) !== toHex(sid) : !octets(kid, 8)) return false
    return (
      [24, 10, 1].includes(header.get(1) as number) &&
      whole(header.get(3), 65_535) &&
      !(piv.length > 1 && piv[0] === 0) &&
      context.subarray(8).some((x) => x > 0) &&
      claims instanceof Map &&
      claims.size === 1 &&
      whole(claims.get(6))
    )
  } catch (error) {
    if (isIotchainError(error)) return false
    throw error
  }
}

describe('parsing', () => {
  const sealer = createSealer(node, { ...base, sid: Uint8Array.of(1, 2) })
  const { signed, encrypt0 } = sealer.seal(reading)
  const mac = sealer.mac(encrypt0)

  test('takes exactly what the general decoder and the CDDL take', () => {
    let accepted = 0
    for (const original of [signed, mac]) {
      expect(generalParse(original)).toBe(true)
      for (let at = 0; at < original.length; at++) {
        // octets of the frame and the headers with some values and its neighbours' bits, the others with one
        const inFrame = at < 75 || (at >= original.length - 70 && at < original.length - 60)
        const old = original[at] as number
        const near = [old ^ 1, old ^ 2, old ^ 4, old ^ 16, old ^ 32, old ^ 64, old ^ 128, old - 1, old + 1]
        const values = inFrame ? [...near, ...Array.from({ length: 16 }, (_, i) => 16 * i)] : [0]
        for (const octet of values) {
          const bytes = original.slice()
          bytes[at] = octet
          const parsed = codeOf(() => parseObject(bytes))
          expect(parsed === undefined || parsed === 'object/malformed').toBe(true)
          if ((parsed === undefined) !== generalParse(bytes)) throw new Error(`octet ${at} = ${octet}: ${toHex(bytes)}`)
          if (parsed === undefined) accepted++
        }
      }
    }
    expect(accepted).toBeGreaterThan(500)
  })

  test('lengths: truncated, longer, too large', () => {
    for (const original of [signed, mac, encrypt0]) {
      for (let length = 0; length < original.length; length++) {
        expect(codeOf(() => parseHeader(original.subarray(0, length)))).toBe('object/malformed')
      }
      expect(codeOf(() => parseHeader(concat(original, Uint8Array.of(0))))).toBe('object/malformed')
    }
    const big = new Uint8Array(65_537)
    for (const first of [0xd0, 0xd1, 0xd2]) {
      big[0] = first
      expect(codeOf(() => parseHeader(big))).toBe('object/too-large')
    }
    const large = createSealer(node, base).seal({ ...reading, plaintext: new Uint8Array(60_000) }).signed
    expect(parseSigned(large).ciphertext).toHaveLength(60_016)
  })

  test('a bare Encrypt0 is no object, and the forms are not mixed up', () => {
    expect(codeOf(() => parseObject(encrypt0))).toBe('object/malformed')
    expect(codeOf(() => parseSigned(mac))).toBe('object/malformed')
    expect(codeOf(() => parseMac(signed))).toBe('object/malformed')
    expect(parseObject(signed).kind).toBe('signed')
    expect(parseObject(mac).kind).toBe('mac')
  })

  test('alg −19 only where it is allowed', () => {
    const bytes = signed.slice()
    expect(bytes[5]).toBe(0x27)
    bytes[5] = 0x32
    expect(codeOf(() => parseSigned(bytes))).toBe('object/malformed')
    expect(codeOf(() => parseSigned(bytes, { acceptEd25519: true }))).toBeUndefined()
    expect(codeOf(() => parseSigned(signed, { acceptEd25519: true }))).toBeUndefined()
  })

  test('a mac-object whose two Sender IDs differ', () => {
    const bytes = mac.slice()
    // d1 84 49 a3 01 04 03 10 04 42 sid
    bytes[10] = 9
    expect(codeOf(() => parseMac(bytes))).toBe('object/malformed')
  })

  test('iat and content-format in long forms', () => {
    const huge = createSealer(node, base).encrypt({ ...reading, iat: Number.MAX_SAFE_INTEGER, contentFormat: 65_535 })
    expect(parseHeader(huge)).toMatchObject({ iat: Number.MAX_SAFE_INTEGER, contentFormat: 65_535 })
    const beyond = huge.slice()
    const at = beyond.findIndex((x, i) => x === 0x1b && beyond[i + 1] === 0 && beyond[i + 2] === 0x1f)
    beyond[at + 2] = 0x20
    expect(codeOf(() => parseHeader(beyond))).toBe('object/malformed')
  })
})
