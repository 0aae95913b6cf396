import { describe, expect, test } from 'vitest'
import { concat, fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { type CborValue, encodeCbor, Tagged } from '../../protocol/cbor.ts'
import { decodeEncrypt0, decrypt0, encrypt0, nonceOf } from '../../protocol/cose/encrypt0.ts'
import { bstr, bstrHeadLength, coseStructure, encodeProtected } from '../../protocol/cose/headers.ts'
import { coseKeyEd25519, kidOf, publicKeyOf, thumbprint, thumbprintOf } from '../../protocol/cose/key.ts'
import { decodeMac0, mac0, verifyMac0 } from '../../protocol/cose/mac0.ts'
import { decodeSign1, sign1, verifySign1 } from '../../protocol/cose/sign1.ts'
import { codeOf, SUITES } from './suites.ts'

const CONTENT = utf8('This is the content.')
const NONE = new Uint8Array(0)
/** RFC 8032 §7.1, test 1. */
const SEED = fromHex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60')
const CWT_CLAIMS = fromHex(
  'a70175636f61703a2f2f61732e6578616d706c652e636f6d02656572696b77037818636f61703a2f2f6c696768742e65' +
    '78616d706c652e636f6d041a5612aeb0051a5610d9f0061a5610d9f007420b71',
)

describe.each(SUITES)('COSE with $name', ({ suite }) => {
  test('Sign1 with Ed25519: structure and signature of the working group’s EdDSA example', () => {
    const key = suite.ed25519.signing(SEED)
    const header = encodeProtected(
      new Map([
        [1, -8],
        [3, 0],
      ]),
    )
    expect(toHex(coseStructure('Signature1', header, NONE, CONTENT))).toBe(
      '846a5369676e61747572653145a2012703004054546869732069732074686520636f6e74656e742e',
    )
    const message = sign1(header, CONTENT, NONE, key)
    const signature =
      '7142fd2ff96d56db85bee905a76ba1d0b7321a95c8c4d3607c5781932b7afb8711497dfa751bf40b58b3bcc32300b148' +
      '7f3db34085eef013bf08f4a44d6fef0d'
    expect(toHex(message)).toBe(`d28445a201270300a054546869732069732074686520636f6e74656e742e5840${signature}`)
    // with the kid unprotected, as in that example
    const published = fromHex(`d28445a201270300a10442313154546869732069732074686520636f6e74656e742e5840${signature}`)
    const verify = suite.ed25519.verifying(key.publicKey)
    for (const bytes of [message, published]) expect(verifySign1(decodeSign1(bytes), NONE, verify)).toBe(true)
    expect(verifySign1(decodeSign1(message), utf8('other'), verify)).toBe(false)
    expect(decodeSign1(published).unprotected.get(4)).toEqual(utf8('11'))
  })

  test('Mac0 with HMAC 256/256 and 256/64', () => {
    const key = suite.hmac(fromHex('849b57219dae48de646d07dbb533566e976686457c1491be3a76dcea6c427188'))
    const long = encodeProtected(new Map([[1, 5]]))
    const short = encodeProtected(new Map([[1, 4]]))
    expect(toHex(mac0(long, CONTENT, NONE, key, 32))).toBe(
      'd18443a10105a054546869732069732074686520636f6e74656e742e5820a1a848d3471f9d61ee49018d244c824772f2' +
        '23ad4f935293f1789fc3a08d8c58',
    )
    const message = mac0(short, CONTENT, NONE, key, 8)
    expect(toHex(message)).toBe('d18443a10104a054546869732069732074686520636f6e74656e742e4811f9e357975fb849')
    expect(verifyMac0(decodeMac0(message), NONE, key, 8)).toBe(true)
    expect(verifyMac0(decodeMac0(message), NONE, key, 32)).toBe(false)
    expect(verifyMac0(decodeMac0(message), utf8('x'), key, 8)).toBe(false)
  })

  test('a CWT in Mac0 (RFC 8392 A.4)', () => {
    const key = suite.hmac(fromHex('403697de87af64611c1d32a05dab0fe1fcb715a86ab435f1ec99192d79569388'))
    const message = mac0(encodeProtected(new Map([[1, 4]])), CWT_CLAIMS, NONE, key, 8)
    expect(toHex(decodeMac0(message).proof)).toBe('093101ef6d789200')
  })

  test('Encrypt0 with AES-CCM-16-64-128 (RFC 8152 C.4.1 and C.4.2, RFC 8392 A.5)', () => {
    const header = encodeProtected(new Map([[1, 10]]))
    const key = suite.aead(10, fromHex('849b5786457c1491be3a76dcea6c4271'))
    const sealed = encrypt0(header, CONTENT, NONE, key, fromHex('89f52f65a1c580933b5261a78c'))
    expect(toHex(decodeEncrypt0(sealed).payload)).toBe('5974e1b99a3a4cc09a659aa2e9e7fff161d38ce71cb45ce460ffb569')

    const nonce = nonceOf(fromHex('89f52f65a1c580930000000000'), fromHex('61a7'))
    expect(toHex(nonce)).toBe('89f52f65a1c5809300000061a7')
    const published = fromHex('d08343a1010aa1064261a7581c252a8911d465c125b6764739700f0141ed09192de139e053bd09abca')
    expect(decrypt0(decodeEncrypt0(published), NONE, key, nonce)).toEqual(CONTENT)
    expect(codeOf(() => decrypt0(decodeEncrypt0(published), utf8('x'), key, nonce))).toBe('crypto/bad-tag')

    const cwtKey = suite.aead(10, fromHex('231f4c4d4d3051fdc2ec0a3851d5b383'))
    const cwt = encrypt0(header, CWT_CLAIMS, NONE, cwtKey, fromHex('99a0d7846e762c49ffe8a63e0b'))
    expect(toHex(decodeEncrypt0(cwt).payload)).toBe(
      'b918a11fd81e438b7f973d9e2e119bcb22424ba0f38a80f27562f400ee1d0d6c0fdb559c02421fd384fc2ebe22d70713' +
        '78b0ea7428fff157444d45f7e6afcda1aae5f6495830c58627087fc5b4974f319a8707a635dd643b',
    )
  })

  test('Encrypt0 with ChaCha20-Poly1305 and A128GCM', () => {
    const chacha = suite.aead(24, fromHex('0f1e2d3c4b5a69788796a5b4c3d2e1f01f2e3d4c5b6a798897a6b5c4d3e2f100'))
    const one = encrypt0(
      encodeProtected(new Map([[1, 24]])),
      CONTENT,
      NONE,
      chacha,
      fromHex('5c3a9950bd2852f66e6c8d4f'),
    )
    expect(toHex(decodeEncrypt0(one).payload)).toBe(
      'ca119c45926da993d29b5d0cac9a84228c7668d492a1b9d7e32020ef21372e74def431b9',
    )
    const gcm = suite.aead(1, fromHex('849b57219dae48de646d07dbb533566e'))
    const other = encrypt0(encodeProtected(new Map([[1, 1]])), CONTENT, NONE, gcm, fromHex('02d1f7e6f26c43d4868d87ce'))
    expect(toHex(decodeEncrypt0(other).payload)).toBe(
      '60973a94bb2898009ee52ecfd9ab1dd25867374b162e2c03568b41f57c3cc16f9166250a',
    )
  })

  test('the thumbprint of RFC 9679 §6, whatever else the key says', () => {
    const key = new Map<number, CborValue>([
      [1, 2],
      [-1, 1],
      [-2, fromHex('65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d')],
      [-3, fromHex('1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c')],
    ])
    const expected = '496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec'
    expect(toHex(thumbprint(suite, key))).toBe(expected)
    expect(toHex(thumbprint(suite, encodeCbor(key)))).toBe(expected)
    key.set(2, utf8('meriadoc.brandybuck@buckland.example'))
    expect(toHex(thumbprint(suite, key))).toBe(expected)
  })

  test('Ed25519 keys, their thumbprints and kids', () => {
    const { publicKey } = suite.ed25519.signing(SEED)
    const encoded = coseKeyEd25519(publicKey)
    expect(toHex(encoded)).toBe(`a301012006215820${toHex(publicKey)}`)
    expect(publicKeyOf(encoded)).toEqual(Uint8Array.from(publicKey))
    expect(toHex(thumbprintOf(suite, publicKey))).toBe(
      '866eefbd6718c8846cd7ddfe43fc74ab1daac4538ff8514ea2ec2d410a415743',
    )
    expect(toHex(thumbprint(suite, encoded))).toBe(toHex(thumbprintOf(suite, publicKey)))
    expect(toHex(kidOf(suite, publicKey))).toBe('866eefbd6718c884')
  })
})

describe('what is no message', () => {
  const sign1Of = (...parts: unknown[]): Uint8Array => encodeCbor(new Tagged(18, parts))
  const header = encodeProtected(new Map([[1, -8]]))

  test.each([
    ['untagged', encodeCbor([header, new Map(), NONE, NONE])],
    ['of another tag', encodeCbor(new Tagged(17, [header, new Map(), NONE, NONE]))],
    ['tagged twice', encodeCbor(new Tagged(18, new Tagged(18, [header, new Map(), NONE, NONE])))],
    ['no array', encodeCbor(new Tagged(18, 1))],
    ['too short', sign1Of(header, new Map(), NONE)],
    ['too long', sign1Of(header, new Map(), NONE, NONE, NONE)],
    ['a protected header that is no byte string', sign1Of(new Map(), new Map(), NONE, NONE)],
    ['a protected header that is no map', sign1Of(Uint8Array.of(1), new Map(), NONE, NONE)],
    ['an unprotected header that is no map', sign1Of(header, NONE, NONE, NONE)],
    ['a detached payload', sign1Of(header, new Map(), null, NONE)],
    ['a signature that is no byte string', sign1Of(header, new Map(), NONE, 'signature')],
    ['a parameter on both sides', sign1Of(header, new Map([[1, -8]]), NONE, NONE)],
  ])('%s', (_, bytes) => {
    expect(codeOf(() => decodeSign1(bytes))).toBe('cose/malformed')
  })

  test('a protected header that is not deterministic', () => {
    expect(codeOf(() => decodeSign1(sign1Of(fromHex('a2032001' + '27'), new Map(), NONE, NONE)))).toBe(
      'cbor/not-canonical',
    )
  })

  test('an encoded empty protected header counts as none in what is signed', () => {
    expect(encodeProtected(new Map())).toHaveLength(0)
    expect(coseStructure('MAC0', fromHex('a0'), NONE, NONE)).toEqual(coseStructure('MAC0', NONE, NONE, NONE))
  })

  test('byte strings of every length class', () => {
    for (const length of [0, 23, 24, 255, 256, 65_535, 65_536, 70_000]) {
      const bytes = new Uint8Array(length).fill(1)
      expect(toHex(bstr(bytes))).toBe(toHex(encodeCbor(bytes)))
      expect(bstrHeadLength(length)).toBe(bstr(bytes).length - length)
    }
  })

  test.each([
    ['no map', encodeCbor([1])],
    ['of another type', encodeCbor(new Map([[1, 4]]))],
    [
      'of another curve',
      encodeCbor(
        new Map<number, CborValue>([
          [1, 1],
          [-1, 4],
          [-2, new Uint8Array(32)],
        ]),
      ),
    ],
    [
      'too short',
      encodeCbor(
        new Map<number, CborValue>([
          [1, 1],
          [-1, 6],
          [-2, new Uint8Array(31)],
        ]),
      ),
    ],
    [
      'for another algorithm',
      encodeCbor(
        new Map<number, CborValue>([
          [1, 1],
          [3, -7],
          [-1, 6],
          [-2, new Uint8Array(32)],
        ]),
      ),
    ],
    [
      'private',
      encodeCbor(
        new Map<number, CborValue>([
          [1, 1],
          [-1, 6],
          [-2, new Uint8Array(32)],
          [-4, new Uint8Array(32)],
        ]),
      ),
    ],
  ])('a key that is %s', (_, bytes) => {
    expect(codeOf(() => publicKeyOf(bytes))).toBe('cose/bad-key')
  })

  test('keys without a thumbprint', () => {
    const suite = SUITES[0]?.suite as (typeof SUITES)[0]['suite']
    expect(codeOf(() => thumbprint(suite, encodeCbor(new Map([[1, 4]]))))).toBe('cose/bad-key')
    expect(codeOf(() => thumbprint(suite, encodeCbor(new Map([[1, 1]]))))).toBe('cose/bad-key')
    expect(codeOf(() => coseKeyEd25519(concat(SEED, NONE, Uint8Array.of(1))))).toBe('cose/bad-key')
  })
})
