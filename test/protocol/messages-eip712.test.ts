import { Wallet } from 'ethers'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { encodeCbor } from '../../protocol/cbor.ts'
import { addressBytes, addressHex, checksumAddress, parseAddress } from '../../protocol/messages/address.ts'
import { bareDomainSeparator, domainSeparator, hashStruct, walletTypes } from '../../protocol/messages/eip712.ts'
import { enrolmentDigest } from '../../protocol/messages/enrolment.ts'
import { KEY_REQUEST, keyRequestDigest, NO_SIGN_KEY } from '../../protocol/messages/key-request.ts'
import { registrationDigest } from '../../protocol/messages/registration.ts'

const fill = (octet: number, size: number) => new Uint8Array(size).fill(octet)
const domain = { chainId: 20180415, registry: fill(0x11, 20) }
const device = fromHex('00112233445566778899aabbccddeeff01020304')
const keyRequest = {
  client: fill(0x22, 20),
  device,
  claims: fromHex('00000001'),
  keyServer: fill(0xa1, 32),
  channel: fill(0xa2, 32),
  nonce: fill(0xa3, 32),
  signKey: NO_SIGN_KEY,
  issuedAt: 1763800000,
  expiresAt: 1763800060,
}

describe('EIP-712 digests that any wallet agrees with', () => {
  test('domain', () => {
    expect(toHex(domainSeparator(domain))).toBe('e97288428abb4c4177e4757a703fe8e0306c3f836a01bc9bf814bee17186747a')
  })

  test('KeyRequest', () => {
    expect(toHex(keyRequestDigest(domain, keyRequest))).toBe(
      '3b23a5f88b873e210f87c15c0dae751e08f5f4e84f8752313803ceb4b069c8f4',
    )
  })

  test('Registration', () => {
    const registration = {
      device,
      owner: fill(0x22, 20),
      signingKey: fill(0xb1, 32),
      keyServer: fill(0xa1, 32),
      nonce: 0,
      deadline: 1766392000,
    }
    expect(toHex(registrationDigest(domain, registration))).toBe(
      'e5aa1da471a51cf45f8a1832fb39f18b0713308374879f2d2eb8b2da9769396f',
    )
  })

  test('Enrolment, in the domain without a chain', () => {
    const enrolment = { device, csrHash: fill(0xc1, 32), signingKey: fill(0xb1, 32), channel: fill(0xa2, 32) }
    expect(toHex(enrolmentDigest(enrolment))).toBe('a7392535f1bd4bd9d424e53fd3dc7eaeefb85c8fb3e7bf7320c41852c5365f33')
    expect(bareDomainSeparator()).toHaveLength(32)
  })

  test('an ethers wallet signs the same digest', async () => {
    const wallet = new Wallet(`0x${'07'.repeat(32)}`)
    const { signingKey } = wallet
    const types = walletTypes(KEY_REQUEST)
    const value = Object.fromEntries(
      Object.entries(keyRequest).map(([k, v]) => [k, v instanceof Uint8Array ? `0x${toHex(v)}` : v]),
    )
    const signature = await wallet.signTypedData(
      { name: 'IoTChain', version: '1', chainId: domain.chainId, verifyingContract: addressHex(domain.registry) },
      types,
      value,
    )
    expect(signature).toBe(signingKey.sign(keyRequestDigest(domain, keyRequest)).serialized)
  })

  test.each([
    [{ issuedAt: -1 }],
    [{ issuedAt: 1.5 }],
    [{ issuedAt: 1n << 64n }],
    [{ client: fill(0, 19) }],
    [{ claims: fill(0, 32) }],
    [{ nonce: undefined }],
  ])('refuses a value that does not fit its type: %o', (patch) => {
    expect(() => hashStruct(KEY_REQUEST, { ...keyRequest, ...patch } as never)).toThrow(
      expect.objectContaining({ code: 'message/bad-typed-data' }),
    )
  })

  test('gid is the first 8 octets of a hash over this CBOR', () => {
    const octets = encodeCbor(['iotc1 gid', domain.chainId, domain.registry, device, 3])
    expect(toHex(octets)).toBe(`8569696f746331206769641a0133edbf54${toHex(domain.registry)}54${toHex(device)}03`)
    expect(utf8('iotc1 gid')).toHaveLength(9)
  })
})

describe('addresses', () => {
  const checksummed = '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed'
  test('the ERC-55 examples', () => {
    for (const a of [
      checksummed,
      '0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359',
      '0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB',
      '0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb',
    ]) {
      expect(parseAddress(a)).toBe(a.toLowerCase())
      expect(checksumAddress(parseAddress(a))).toBe(a)
    }
  })
  test('one case throughout is taken, a wrong checksum is not', () => {
    expect(parseAddress(`0x${checksummed.slice(2).toUpperCase()}`)).toBe(checksummed.toLowerCase())
    expect(addressHex(addressBytes(checksummed))).toBe(checksummed.toLowerCase())
    expect(() => parseAddress(checksummed.replace('aA', 'Aa'))).toThrow(/checksum/)
  })
  test.each([
    '',
    '0x',
    '5aaeb6053f3e94c9b9a09f33669435e7ef1beaed',
    `${checksummed}0`,
    '0xzz'.padEnd(42, 'z'),
    '\u0007',
  ])('refuses %o', (text) => {
    expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: 'message/bad-address' }))
  })
  test('20 octets, no more and no less', () => {
    expect(() => addressHex(fill(1, 19))).toThrow(expect.objectContaining({ code: 'message/bad-address' }))
  })
})
