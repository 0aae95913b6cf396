import { describe, expect, test } from 'vitest'
import { concat, fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { aesCcm } from '../../protocol/crypto/aes-ccm.ts'
import { codeOf, range, SUITES } from './suites.ts'

const hex = (bytes: Uint8Array): string => toHex(bytes)
const repeat = (octet: number, length: number): Uint8Array => new Uint8Array(length).fill(octet)

describe.each(SUITES)('$name', ({ suite }) => {
  test('SHA-256 of FIPS 180-4', () => {
    expect(hex(suite.sha256(utf8('abc')))).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
    expect(hex(suite.sha256(new Uint8Array(0)))).toBe(
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    )
  })

  test('HMAC-SHA-256 of RFC 4231, cases 1, 2 and 6', () => {
    const cases: [Uint8Array, string, string][] = [
      [repeat(0x0b, 20), 'Hi There', 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
      [
        utf8('Jefe'),
        'what do ya want for nothing?',
        '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
      ],
      [
        repeat(0xaa, 131),
        'Test Using Larger Than Block-Size Key - Hash Key First',
        '60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54',
      ],
    ]
    for (const [key, message, mac] of cases) {
      expect(hex(suite.hmacOnce(key, utf8(message)))).toBe(mac)
      if (key.length >= 16 && key.length <= 64) {
        const handle = suite.hmac(key)
        expect(hex(handle.mac(utf8(message)))).toBe(mac)
        expect(hex(handle.mac(utf8(message)))).toBe(mac)
      }
    }
    expect(codeOf(() => suite.hmac(new Uint8Array(15)))).toBe('crypto/bad-key')
    expect(codeOf(() => suite.hmac(new Uint8Array(65)))).toBe('crypto/bad-key')
  })

  test('HKDF of RFC 5869, cases 1 to 3', () => {
    const cases: [Uint8Array, Uint8Array, Uint8Array, string, string][] = [
      [
        repeat(0x0b, 22),
        range(0, 12),
        range(0xf0, 0xf9),
        '077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5',
        '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
      ],
      [
        range(0, 0x4f),
        range(0x60, 0xaf),
        range(0xb0, 0xff),
        '06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244',
        'b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09' +
          'da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87',
      ],
      [
        repeat(0x0b, 22),
        new Uint8Array(0),
        new Uint8Array(0),
        '19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04',
        '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8',
      ],
    ]
    for (const [ikm, salt, info, prk, okm] of cases) {
      expect(hex(suite.hkdfExtract(salt, ikm))).toBe(prk)
      expect(hex(suite.hkdfExpand(fromHex(prk), info, okm.length / 2))).toBe(okm)
    }
    expect(suite.hkdfExpand(repeat(1, 32), repeat(2, 3), 8160)).toHaveLength(8160)
    expect(codeOf(() => suite.hkdfExpand(repeat(1, 32), repeat(2, 3), 8161))).toBe('crypto/too-long')
  })

  test('ChaCha20-Poly1305 of RFC 8439 §2.8.2', () => {
    const key = suite.aead(24, range(0x80, 0x9f))
    const nonce = fromHex('070000004041424344454647')
    const aad = fromHex('50515253c0c1c2c3c4c5c6c7')
    const plaintext = utf8(
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
    )
    const sealed = key.seal(nonce, aad, plaintext)
    expect(hex(sealed)).toBe(
      'd31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b' +
        '1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc' +
        '3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691',
    )
    expect(hex(key.open(nonce, aad, sealed))).toBe(hex(plaintext))
  })

  test('AES-128-GCM, test case 4 of its submission', () => {
    const key = suite.aead(1, fromHex('feffe9928665731c6d6a8f9467308308'))
    const nonce = fromHex('cafebabefacedbaddecaf888')
    const aad = fromHex('feedfacedeadbeeffeedfacedeadbeefabaddad2')
    const plaintext = fromHex(
      'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525' +
        'b16aedf5aa0de657ba637b39',
    )
    const sealed = key.seal(nonce, aad, plaintext)
    expect(hex(sealed)).toBe(
      '42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05' +
        '1ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47',
    )
    expect(hex(key.open(nonce, aad, sealed))).toBe(hex(plaintext))
  })

  test('AES-CCM-16-64-128 of RFC 3610, packet vectors 1 and 2', () => {
    const key = suite.aead(10, range(0xc0, 0xcf))
    const aad = range(0, 7)
    const cases: [string, Uint8Array, string][] = [
      ['00000003020100a0a1a2a3a4a5', range(8, 0x1e), '588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0'],
      [
        '00000004030201a0a1a2a3a4a5',
        range(8, 0x1f),
        '72c91a36e135f8cf291ca894085c87e3cc15c439c9e43a3ba091d56e10400916',
      ],
    ]
    for (const [nonce, plaintext, expected] of cases) {
      expect(hex(key.seal(fromHex(nonce), aad, plaintext))).toBe(expected)
      expect(hex(key.open(fromHex(nonce), aad, fromHex(expected)))).toBe(hex(plaintext))
    }
  })

  test.each([24, 10, 1] as const)('whatever is changed, algorithm %i does not open', (algorithm) => {
    const lengths = { 24: [32, 12], 10: [16, 13], 1: [16, 12] }[algorithm] as [number, number]
    const key = suite.aead(algorithm, repeat(7, lengths[0]))
    const nonce = repeat(9, lengths[1])
    const aad = utf8('aad')
    for (const plaintext of [new Uint8Array(0), utf8('a'), range(0, 99)]) {
      const sealed = key.seal(nonce, aad, plaintext)
      expect(hex(key.open(nonce, aad, sealed))).toBe(hex(plaintext))
      for (let i = 0; i < sealed.length; i++) {
        const broken = sealed.slice()
        broken[i] = (broken[i] as number) ^ 1
        expect(codeOf(() => key.open(nonce, aad, broken))).toBe('crypto/bad-tag')
      }
      expect(codeOf(() => key.open(nonce, utf8('aae'), sealed))).toBe('crypto/bad-tag')
      expect(codeOf(() => key.open(repeat(8, lengths[1]), aad, sealed))).toBe('crypto/bad-tag')
      expect(codeOf(() => key.open(nonce, aad, sealed.subarray(0, -1)))).toBe('crypto/bad-tag')
      expect(codeOf(() => key.open(nonce, aad, new Uint8Array(0)))).toBe('crypto/bad-tag')
    }
    expect(codeOf(() => suite.aead(algorithm, repeat(7, lengths[0] - 1)))).toBe('crypto/bad-key')
  })

  test('Ed25519 of RFC 8032 §7.1, tests 1 to 3', () => {
    const cases: [string, string, string, string][] = [
      [
        '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
        'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
        '',
        'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b' +
          'd25bf5f0595bbe24655141438e7a100b',
      ],
      [
        '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
        '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
        '72',
        '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c' +
          '387b2eaeb4302aeeb00d291612bb0c00',
      ],
      [
        'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
        'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
        'af82',
        '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659' +
          '4a7c15e9716ed28dc027beceea1ec40a',
      ],
    ]
    for (const [seed, publicKey, message, signature] of cases) {
      const key = suite.ed25519.signing(fromHex(seed))
      expect(hex(key.publicKey)).toBe(publicKey)
      expect(hex(key.sign(fromHex(message)))).toBe(signature)
      const verify = suite.ed25519.verifying(fromHex(publicKey))
      expect(hex(verify.publicKey)).toBe(publicKey)
      expect(verify.verify(fromHex(message), fromHex(signature))).toBe(true)
      expect(verify.verify(concat(fromHex(message), repeat(0, 1)), fromHex(signature))).toBe(false)
      const broken = fromHex(signature)
      broken[40] = (broken[40] as number) ^ 1
      expect(verify.verify(fromHex(message), broken)).toBe(false)
      expect(verify.verify(fromHex(message), fromHex(signature).subarray(1))).toBe(false)
    }
  })

  test('Ed25519 keys of a wrong length are refused; a public key that is no point verifies nothing', () => {
    expect(codeOf(() => suite.ed25519.signing(new Uint8Array(31)))).toBe('crypto/bad-key')
    expect(codeOf(() => suite.ed25519.verifying(new Uint8Array(33)))).toBe('crypto/bad-key')
    expect(suite.ed25519.verifying(repeat(0xff, 32)).verify(utf8('m'), new Uint8Array(64))).toBe(false)
    const seed = suite.ed25519.generate()
    expect(seed).toHaveLength(32)
    expect(hex(suite.ed25519.generate())).not.toBe(hex(seed))
    expect(suite.randomBytes(5)).toHaveLength(5)
  })

  test('keys do not alias what they were made from', () => {
    const aeadKey = repeat(3, 32)
    const seed = repeat(5, 32)
    const publicKey = suite.ed25519.signing(seed).publicKey.slice()
    const sealing = suite.aead(24, aeadKey)
    const signing = suite.ed25519.signing(seed)
    const verifying = suite.ed25519.verifying(publicKey)
    const nonce = repeat(0, 12)
    const before = hex(sealing.seal(nonce, nonce, nonce))
    const signature = signing.sign(nonce)
    aeadKey.fill(0)
    seed.fill(0)
    publicKey.fill(0)
    expect(hex(sealing.seal(nonce, nonce, nonce))).toBe(before)
    expect(hex(signing.sign(nonce))).toBe(hex(signature))
    expect(verifying.verify(nonce, signature)).toBe(true)
  })
})

describe('AES-CCM over the block function', () => {
  test('NIST SP 800-38C, examples 1 to 4', () => {
    const key = range(0x40, 0x4f)
    const long = Uint8Array.from({ length: 65_536 }, (_, i) => i & 255)
    const cases: [Uint8Array, Uint8Array, Uint8Array, number, string][] = [
      [range(0x10, 0x16), range(0, 7), range(0x20, 0x23), 4, '7162015b4dac255d'],
      [range(0x10, 0x17), range(0, 15), range(0x20, 0x2f), 6, 'd2a1f0e051ea5f62081a7792073d593d1fc64fbfaccd'],
      [
        range(0x10, 0x1b),
        range(0, 19),
        range(0x20, 0x37),
        8,
        'e3b201a9f5b71a7a9b1ceaeccd97e70b6176aad9a4428aa5484392fbc1b09951',
      ],
      [
        range(0x10, 0x1c),
        long,
        range(0x20, 0x3f),
        14,
        '69915dad1e84c6376a68c2967e4dab615ae0fd1faec44cc484828529463ccf72b4ac6bec93e8598e7f0dadbcea5b',
      ],
    ]
    for (const [nonce, aad, plaintext, tagLength, expected] of cases) {
      const ccm = aesCcm(key, tagLength)
      expect(hex(ccm.seal(nonce, aad, plaintext))).toBe(expected)
      expect(hex(ccm.open(nonce, aad, fromHex(expected)))).toBe(hex(plaintext))
    }
  })

  test('keys, nonces and lengths are checked', () => {
    expect(codeOf(() => aesCcm(new Uint8Array(17), 8))).toBe('crypto/bad-key')
    const ccm = aesCcm(new Uint8Array(16), 8)
    const none = new Uint8Array(0)
    expect(codeOf(() => ccm.seal(new Uint8Array(6), none, none))).toBe('crypto/bad-nonce')
    expect(codeOf(() => ccm.open(new Uint8Array(14), none, none))).toBe('crypto/bad-nonce')
    expect(codeOf(() => ccm.seal(new Uint8Array(13), none, new Uint8Array(65_536)))).toBe('crypto/too-long')
  })
})

describe('the two suites agree', () => {
  const [node, noble] = SUITES.map((s) => s.suite) as [(typeof SUITES)[0]['suite'], (typeof SUITES)[0]['suite']]

  test.each([24, 10, 1] as const)('on every length with algorithm %i', (algorithm) => {
    const [keyLength, nonceLength] = { 24: [32, 12], 10: [16, 13], 1: [16, 12] }[algorithm] as [number, number]
    const a = node.aead(algorithm, repeat(7, keyLength))
    const b = noble.aead(algorithm, repeat(7, keyLength))
    const nonce = range(1, nonceLength)
    for (let length = 0; length < 70; length++) {
      const plaintext = range(1, length)
      const aad = range(3, 2 + ((length * 7) % 50))
      const sealed = a.seal(nonce, aad, plaintext)
      expect(hex(b.seal(nonce, aad, plaintext))).toBe(hex(sealed))
      expect(hex(b.open(nonce, aad, sealed))).toBe(hex(plaintext))
    }
    for (const suite of [a, b])
      expect(codeOf(() => suite.seal(new Uint8Array(5), nonce, nonce))).toBe('crypto/bad-nonce')
  })

  test('on signatures', () => {
    for (let i = 0; i < 20; i++) {
      const seed = repeat(i, 32)
      const message = range(0, i * 3)
      const one = node.ed25519.signing(seed)
      const other = noble.ed25519.signing(seed)
      const signature = one.sign(message)
      expect(hex(other.publicKey)).toBe(hex(one.publicKey))
      expect(hex(other.sign(message))).toBe(hex(signature))
      expect(noble.ed25519.verifying(one.publicKey).verify(message, signature)).toBe(true)
      expect(node.ed25519.verifying(other.publicKey).verify(message, signature)).toBe(true)
    }
  })
})
