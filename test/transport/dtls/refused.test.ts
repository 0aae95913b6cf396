import { execFileSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { issueServerCertificate } from '../../../runtime/pki/authority.ts'
import { spkiSha256 } from '../../../runtime/pki/certificate.ts'
import { generateKeyPair, privateKeyPem } from '../../../runtime/pki/keys.ts'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation, DtlsEndpoint, ListenOptions } from '../../../transport/dtls/types.ts'
import { createWorld, type Server, startServer, type World } from './authority.ts'
import { Files, OPENSSL, openssl, SKIPPED } from './openssl.ts'

/** Everybody who must not get in, or must not be believed. */
let world: World
let rogue: World
const files = new Files()
const open: (DtlsEndpoint | DtlsAssociation)[] = []
const YEAR_MS = 365 * 86_400_000

beforeAll(async () => {
  world = await createWorld()
  rogue = await createWorld()
})
afterEach(async () => {
  for (const thing of open.splice(0)) await thing.close()
})
afterAll(() => files.remove())

async function serve(options: Partial<ListenOptions> = {}): Promise<Server> {
  const { cert, key } = world.server
  const server = await startServer({ cert, key, ca: world.ca, clientAuth: 'optional', ...options })
  open.push(server.endpoint)
  return server
}

/** Why the client's handshake failed; fails itself if it did not. */
async function refusal(port: number, options: ConnectOptions = {}): Promise<string> {
  const association = connect('127.0.0.1', port, { ca: world.ca, retransmitInitial: 100, ...options })
  open.push(association)
  const error = await association.opened.then(
    () => undefined,
    (reason: Error) => reason,
  )
  expect(error).toMatchObject({ code: 'dtls/refused' })
  return (error as Error).message
}

describe('a client is refused', () => {
  const both = ['optional', 'require'] as const

  test.each(both)('with the certificate of a rogue CA, clientAuth %s', async (clientAuth) => {
    const server = await serve({ clientAuth })
    const { cert, key } = rogue.device
    expect(await refusal(server.port, { cert, key })).toMatch(/unknown ca/)
    expect(server.associations).toEqual([])
    expect(server.refusals).toEqual([expect.stringMatching(/unable to get local issuer certificate/)])
    expect(server.endpoint.stats).toMatchObject({ accepted: 0, refused: 1, associations: 0 })
  })

  test.each(both)('with an expired certificate (%s)', async (clientAuth) => {
    const server = await serve({ clientAuth })
    const { cert, key } = await world.makeDevice({ days: 30, nowMs: Date.now() - YEAR_MS })
    expect(await refusal(server.port, { cert, key })).toMatch(/certificate expired/)
    expect(server.refusals).toEqual([expect.stringMatching(/certificate has expired/)])
    expect(server.associations).toEqual([])
  })

  test.each(both)('with a certificate that is not valid yet (%s)', async (clientAuth) => {
    const server = await serve({ clientAuth })
    const { cert, key } = await world.makeDevice({ days: 30, nowMs: Date.now() + 10 * 86_400_000 })
    await refusal(server.port, { cert, key })
    expect(server.refusals).toEqual([expect.stringMatching(/not yet valid/)])
  })

  test.each(both)('with a key server’s certificate: the wrong purpose (%s)', async (clientAuth) => {
    const server = await serve({ clientAuth })
    const { cert, key } = await world.makeServer()
    await refusal(server.port, { cert, key })
    expect(server.refusals).toEqual([
      expect.stringMatching(/unsuitable certificate purpose|unsupported certificate purpose/),
    ])
    expect(server.associations).toEqual([])
  })

  test('without a certificate where one is required', async () => {
    const server = await serve({ clientAuth: 'require' })
    expect(await refusal(server.port)).toMatch(/handshake failure|certificate required/)
    expect(server.refusals).toEqual([expect.stringMatching(/peer did not return a certificate/)])
  })

  test('a device certificate in the place of an issuing one is no CA', async () => {
    const server = await serve()
    const { privateKey, publicKey } = generateKeyPair()
    const below = await issueServerCertificate(
      { certificate: world.device.issued.certificate, key: world.device.privateKey, chain: world.device.cert },
      { publicKey, names: ['x'] },
    )
    await refusal(server.port, { cert: below.chain, key: privateKeyPem(privateKey) })
    expect(server.refusals).toEqual([expect.stringMatching(/invalid CA certificate|unsuitable|unsupported/)])
  })
})

describe('a server is refused', () => {
  test('with the certificate of a rogue CA', async () => {
    const { cert, key } = rogue.server
    const server = await serve({ cert, key })
    expect(await refusal(server.port)).toMatch(/unable to get local issuer certificate/)
    await vi.waitFor(() => {
      expect(server.refusals).toEqual([expect.stringMatching(/the client refused the handshake: unknown ca/)])
    })
  })

  test('with an expired certificate, pinned or not', async () => {
    const { cert, key } = await world.makeServer({ days: 30, nowMs: Date.now() - YEAR_MS })
    const server = await serve({ cert, key })
    expect(await refusal(server.port)).toMatch(/certificate has expired/)
    expect(await refusal(server.port, { ca: undefined, expectSpki: spkiSha256(cert) })).toMatch(/has expired/)
  })

  test('with a device’s certificate: the wrong purpose', async () => {
    const { cert, key } = world.device
    const server = await serve({ cert, key })
    expect(await refusal(server.port, { servername: 'x' })).toMatch(/purpose/)
  })

  test('with a certificate from the CA for devices', async () => {
    const { cert, key } = await world.makeServer({ authority: world.issuing })
    const server = await serve({ cert, key })
    expect(await refusal(server.port)).toMatch(/purpose/)
  })

  test('with another name', async () => {
    const { cert, key } = await world.makeServer({ names: ['other.example'] })
    const server = await serve({ cert, key })
    expect(await refusal(server.port, { servername: 'localhost' })).toMatch(/hostname mismatch/)
    expect(await refusal(server.port)).toMatch(/IP address mismatch/)
  })
})

describe.skipIf(OPENSSL === undefined)(`openssl is refused${SKIPPED}`, () => {
  const client = (port: number, ...args: string[]): Promise<string> =>
    openssl(['s_client', '-connect', `127.0.0.1:${port}`, ...args]).end()

  test('with a stolen certificate and another key: "bad signature"', async () => {
    const server = await serve()
    // SEC1: 7 octets of header, the 32 of the scalar, the rest with the public point. The stolen point, another scalar.
    const sec1 = (pem: string): Buffer =>
      execFileSync('openssl', ['ec', '-outform', 'DER'], { input: pem, stdio: ['pipe', 'pipe', 'ignore'] })
    const stolen = sec1(world.device.key)
    const own = sec1(privateKeyPem(generateKeyPair().privateKey))
    const spliced = Buffer.concat([stolen.subarray(0, 7), own.subarray(7, 39), stolen.subarray(39)])
    const pem = `-----BEGIN EC PRIVATE KEY-----\n${spliced.toString('base64')}\n-----END EC PRIVATE KEY-----\n`
    const key = files.write('spliced.key', pem)
    const cert = files.write('stolen.pem', world.device.cert)
    const output = await client(server.port, '-dtls1_2', '-cert', cert, '-cert_chain', cert, '-key', key)
    expect(output).toMatch(/decrypt error/)
    expect(server.refusals).toEqual([expect.stringMatching(/bad signature/)])
    expect(server.associations).toEqual([])
    expect(server.endpoint.stats).toMatchObject({ accepted: 0, refused: 1 })
    // The same certificate with its own key is let in: the refusal was for the signature.
    const true_ = files.write('true.key', world.device.key)
    await client(server.port, '-dtls1_2', '-cert', cert, '-cert_chain', cert, '-key', true_)
    expect(server.endpoint.stats).toMatchObject({ accepted: 1, refused: 1 })
  })

  test('with DTLS 1.0', async () => {
    const server = await serve()
    const output = await client(server.port, '-dtls1', '-cipher', 'ALL:@SECLEVEL=0')
    expect(output).toMatch(/protocol version/)
    expect(server.refusals).toEqual([expect.stringMatching(/unsupported protocol/)])
  })

  test.each([
    'aNULL:eNULL:@SECLEVEL=0',
    'ECDHE-ECDSA-AES128-SHA',
    'PSK-AES128-CCM8:@SECLEVEL=0',
    'ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0',
  ])('with suites %s', async (suites) => {
    const server = await serve()
    const output = await client(server.port, '-dtls1_2', '-cipher', suites, '-psk', '00112233')
    expect(output).toMatch(/handshake failure/)
    expect(server.refusals).toEqual([expect.stringMatching(/no shared cipher/)])
  })

  test('as a server with DTLS 1.0, or with an anonymous suite', async () => {
    const cert = files.write('s.pem', world.server.cert)
    const key = files.write('s.key', world.server.key)
    for (const args of [
      ['-dtls1', '-cipher', 'ALL:@SECLEVEL=0'],
      ['-dtls1_2', '-cipher', 'aNULL:@SECLEVEL=0'],
    ]) {
      const port = await freePort()
      const run = openssl(['s_server', '-accept', `${port}`, '-cert', cert, '-key', key, ...args])
      try {
        await run.until(/ACCEPT/)
        await refusal(port)
      } finally {
        run.kill()
      }
    }
  })
})

/** A UDP port that was free a moment ago; openssl cannot choose one itself. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  const { port } = socket.address()
  await new Promise<void>((done) => socket.close(() => done()))
  return port
}
