import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Transaction, TypedDataEncoder, verifyTypedData, Wallet } from 'ethers'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { keccak256, recoverAddress } from '../../chain/account.ts'
import { accessToken } from '../../chain/contracts.ts'
import { decodeTokensOf, encodeTokensOf } from '../../chain/token-codec.ts'
import { accountFromKey, createAccount, keystoreAddress, loadKeystore, openKeystore } from '../../chain/wallet.ts'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { walletTypes } from '../../protocol/messages/eip712.ts'
import { KEY_REQUEST, type KeyRequest, keyRequestDigest } from '../../protocol/messages/key-request.ts'
import { REGISTRATION, registrationDigest } from '../../protocol/messages/registration.ts'

const folder = mkdtempSync(join(tmpdir(), 'iotchain-wallet-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('keystore files', () => {
  test('a key comes back with its password only', async () => {
    const account = createAccount()
    const file = join(folder, 'key.json')
    writeFileSync(file, await account.encrypt('pass word', true))
    expect(keystoreAddress(file)).toBe(account.address)
    const again = await loadKeystore(file, 'pass word')
    expect(again.address).toBe(account.address)
    const digest = new Uint8Array(32).fill(1)
    expect(again.signDigest(digest)).toEqual(account.signDigest(digest))
    await expect(loadKeystore(file, 'password')).rejects.toMatchObject({ code: 'wallet/wrong-password' })
  })

  test('files that other programs wrote', async () => {
    // the test vector of the Web3 Secret Storage definition (PBKDF2)
    const json = JSON.stringify({
      crypto: {
        cipher: 'aes-128-ctr',
        cipherparams: { iv: '6087dab2f9fdbbfaddc31a909735c1e6' },
        ciphertext: '5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46',
        kdf: 'pbkdf2',
        kdfparams: {
          c: 262144,
          dklen: 32,
          prf: 'hmac-sha256',
          salt: 'ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd',
        },
        mac: '517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2',
      },
      id: '3198bc9c-6672-5ab3-d995-4942343ae5b6',
      version: 3,
    })
    const account = await openKeystore(json, 'testpassword')
    expect(account.address).toBe('0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b')
  })

  test('what is no keystore, or is damaged', async () => {
    await expect(openKeystore('hello', 'x')).rejects.toMatchObject({ code: 'wallet/bad-keystore' })
    await expect(openKeystore('{"version":3}', 'x')).rejects.toMatchObject({ code: 'wallet/bad-keystore' })
    const text = await createAccount().encrypt('x', true)
    await expect(openKeystore(text.replace(/"mac":"../, '"mac":"zz'), 'x')).rejects.toMatchObject({
      code: expect.stringMatching(/^wallet\//),
    })
    await expect(loadKeystore(join(folder, 'none'), 'x')).rejects.toMatchObject({ code: 'wallet/no-file' })
    expect(() => keystoreAddress(join(folder, 'none'))).toThrow(expect.objectContaining({ code: 'wallet/no-file' }))
    const odd = join(folder, 'odd')
    writeFileSync(odd, '{}')
    expect(() => keystoreAddress(odd)).toThrow(expect.objectContaining({ code: 'wallet/bad-keystore' }))
  })

  test('no private key, and none in the message', () => {
    for (const text of ['', '0x', 'hello', `0x${'00'.repeat(32)}`, `0x${'ff'.repeat(32)}`, 'ab'.repeat(31)]) {
      try {
        accountFromKey(text)
        expect.fail(text)
      } catch (error) {
        expect(error).toMatchObject({ code: 'wallet/bad-key' })
        expect((error as Error).cause).toBeUndefined()
        if (text.length > 8) expect(JSON.stringify(error) + String(error)).not.toContain(text)
      }
    }
  })
})

describe('signatures agree with ethers', () => {
  const domain = { chainId: 20180415, registry: new Uint8Array(20).fill(0x11) }
  const ethersDomain = { name: 'IoTChain', version: '1', chainId: 20180415, verifyingContract: `0x${'11'.repeat(20)}` }
  const bytes = (n: number) => fc.uint8Array({ minLength: n, maxLength: n })
  const hexed = (o: object) =>
    Object.fromEntries(Object.entries(o).map(([k, v]) => [k, v instanceof Uint8Array ? `0x${toHex(v)}` : v]))

  test('the vectors of KeyRequest and Registration', () => {
    const request: KeyRequest = {
      client: new Uint8Array(20).fill(0x22),
      device: fromHex('00112233445566778899aabbccddeeff01020304'),
      claims: Uint8Array.of(0, 0, 0, 1),
      keyServer: new Uint8Array(32).fill(0xa1),
      channel: new Uint8Array(32).fill(0xa2),
      nonce: new Uint8Array(32).fill(0xa3),
      signKey: new Uint8Array(32),
      issuedAt: 1763800000,
      expiresAt: 1763800060,
    }
    expect(toHex(keyRequestDigest(domain, request))).toBe(
      '3b23a5f88b873e210f87c15c0dae751e08f5f4e84f8752313803ceb4b069c8f4',
    )
    const registration = {
      device: request.device,
      owner: request.client,
      signingKey: new Uint8Array(32).fill(0xb1),
      keyServer: request.keyServer,
      nonce: 0,
      deadline: 1766392000,
    }
    expect(toHex(registrationDigest(domain, registration))).toBe(
      'e5aa1da471a51cf45f8a1832fb39f18b0713308374879f2d2eb8b2da9769396f',
    )
  })

  test('any KeyRequest and Registration', async () => {
    const account = createAccount()
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          client: bytes(20),
          device: bytes(20),
          claims: bytes(4),
          keyServer: bytes(32),
          channel: bytes(32),
          nonce: bytes(32),
          signKey: bytes(32),
          issuedAt: fc.integer({ min: 0, max: 2 ** 40 }),
          expiresAt: fc.integer({ min: 0, max: 2 ** 40 }),
        }),
        async (request) => {
          const digest = keyRequestDigest(domain, request)
          expect(`0x${toHex(digest)}`).toBe(
            TypedDataEncoder.hash(ethersDomain, walletTypes(KEY_REQUEST), hexed(request)),
          )
          const signature = await account.signStruct(domain, KEY_REQUEST, { ...request })
          expect(signature).toEqual(account.signDigest(digest))
          expect(recoverAddress(digest, signature)).toBe(account.address)
          expect(
            verifyTypedData(
              ethersDomain,
              walletTypes(KEY_REQUEST),
              hexed(request),
              `0x${toHex(signature)}`,
            ).toLowerCase(),
          ).toBe(account.address)
        },
      ),
      { numRuns: 20, seed: 3 },
    )
    fc.assert(
      fc.property(
        fc.record({
          device: bytes(20),
          owner: bytes(20),
          signingKey: bytes(32),
          keyServer: bytes(32),
          nonce: fc.nat(),
          deadline: fc.nat(),
        }),
        (r) => {
          expect(`0x${toHex(registrationDigest(domain, r))}`).toBe(
            TypedDataEncoder.hash(ethersDomain, walletTypes(REGISTRATION), hexed(r)),
          )
        },
      ),
      { numRuns: 50, seed: 4 },
    )
  })

  test('recovery never throws', () => {
    fc.assert(
      fc.property(bytes(32), fc.uint8Array({ maxLength: 80 }), (digest, signature) => {
        const found = recoverAddress(digest, signature)
        expect(found === undefined || /^0x[0-9a-f]{40}$/.test(found)).toBe(true)
      }),
      { seed: 5 },
    )
  })

  test('transactions: with fees of London, and without', async () => {
    const account = createAccount()
    const common = {
      chainId: 7,
      nonce: 3,
      to: `0x${'22'.repeat(20)}` as Address,
      data: '0x1234' as const,
      value: 5n,
      gasLimit: 21_000n,
    }
    const modern = Transaction.from(
      await account.signTransaction({ ...common, maxFeePerGas: 9n, maxPriorityFeePerGas: 1n }),
    )
    expect(modern).toMatchObject({ type: 2, nonce: 3, maxFeePerGas: 9n, chainId: 7n })
    expect(modern.from?.toLowerCase()).toBe(account.address)
    const old = Transaction.from(await account.signTransaction({ ...common, to: null, gasPrice: 4n }))
    expect(old).toMatchObject({ type: 0, gasPrice: 4n, to: null })
    expect(keccak256(old.serialized as `0x${string}`)).toBe(old.hash)
  })
})

describe('tokensOf by hand', () => {
  const address = fc.uint8Array({ minLength: 20, maxLength: 20 }).map((b) => `0x${toHex(b)}` as Address)
  const token = fc.record({
    issuedAt: fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }),
    expiresAt: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    claims: fc.integer({ min: 0, max: 0xffffffff }),
    grantBlock: fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }),
    serial: fc.integer({ min: 0, max: 0xffffffff }),
  })

  test('asks and reads as ethers does', async () => {
    const { Interface } = await import('ethers')
    const { accessTokenAbi } = await import('../../chain/abi.ts')
    const ethers = new Interface(accessTokenAbi as never)
    fc.assert(
      fc.property(
        fc.array(address, { maxLength: 20 }),
        address,
        fc.array(token, { maxLength: 20 }),
        (clients, device, tokens) => {
          expect(encodeTokensOf(clients, device)).toBe(accessToken.encode('tokensOf', [clients, device]))
          const words = tokens.map((t) => [
            t.issuedAt,
            t.expiresAt,
            `0x${t.claims.toString(16).padStart(8, '0')}`,
            t.grantBlock,
            t.serial,
          ])
          const data = ethers.encodeFunctionResult('tokensOf', [words]) as `0x${string}`
          const clamp = (n: bigint): number =>
            Number(n > BigInt(Number.MAX_SAFE_INTEGER) ? BigInt(Number.MAX_SAFE_INTEGER) : n)
          expect(decodeTokensOf(data, tokens.length)).toEqual(
            tokens.map((t) => ({
              ...t,
              issuedAt: clamp(t.issuedAt),
              expiresAt: clamp(t.expiresAt),
              grantBlock: clamp(t.grantBlock),
            })),
          )
        },
      ),
      { numRuns: 100, seed: 8 },
    )
  })

  test('refuses what is no answer to the question', () => {
    const data = accessToken.encode('tokensOf', [[], `0x${'00'.repeat(20)}`])
    for (const bad of [data, '0x00', `0x${'00'.repeat(64)}`, `0x${'ff'.repeat(32 * 7)}`] as const) {
      expect(() => decodeTokensOf(bad, 1)).toThrow(expect.objectContaining({ code: 'chain/bad-answer' }))
    }
    expect(addressBytes(new Wallet(`0x${'01'.repeat(32)}`).address)).toHaveLength(20)
  })
})
