import { hkdfSync, randomBytes } from 'node:crypto'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation } from '../../../transport/dtls/types.ts'
import { ask, createWorld, type Server, startServer, type World } from './authority.ts'

/** ECDHE-PSK, the way in for a device that has nothing yet but a code. */
let world: World
const open: { close(): unknown }[] = []
const psk = Buffer.from(hkdfSync('sha256', randomBytes(16), '', 'iotc1 enrol', 32))
const identity = 'enrol:00112233aabbccdd'

beforeAll(async () => {
  world = await createWorld()
})
afterEach(async () => {
  for (const thing of open.splice(0)) await thing.close()
})

async function serve(options: Parameters<typeof startServer>[0] = {}): Promise<Server> {
  const { cert, key } = world.server
  const server = await startServer({ cert, key, ca: world.ca, clientAuth: 'optional', ...options })
  open.push(server.endpoint)
  return server
}

function dial(port: number, options: ConnectOptions): DtlsAssociation {
  const association = connect('127.0.0.1', port, { retransmitInitial: 50, ...options })
  open.push(association)
  return association
}

test('one port takes certificates, anonymous clients and codes', async () => {
  const asked: string[] = []
  const server = await serve({
    psk: (name) => {
      asked.push(name)
      return name === identity ? psk : undefined
    },
  })
  const enrolling = dial(server.port, { psk: { [identity]: psk } })
  await enrolling.opened
  expect(await ask(enrolling, 'ab')).toBe('ba')
  const [there] = server.associations
  expect(there).toMatchObject({ pskIdentity: identity, authorized: false, peerX509Certificate: undefined })
  expect(there?.cipher).toBe('ECDHE-PSK-CHACHA20-POLY1305')
  expect(there?.channelBinding()).toEqual(enrolling.channelBinding())
  expect(enrolling.authorized).toBe(false)
  const { cert, key } = world.device
  const device = dial(server.port, { ca: world.ca, cert, key })
  const anonymous = dial(server.port, { ca: world.ca })
  await Promise.all([device.opened, anonymous.opened])
  await Promise.all([ask(device, 'x'), ask(anonymous, 'y')])
  expect(server.associations.slice(1).map((a) => a.pskIdentity)).toEqual([undefined, undefined])
  expect(asked).toEqual([identity])
})

test('an unknown code, a throwing look-up and a useless key are refused', async () => {
  const server = await serve({
    psk: (name) => {
      if (name === 'throws') throw new Error('a look-up must not end the server')
      if (name === 'empty') return new Uint8Array(0)
      if (name === 'long') return new Uint8Array(600)
      if (name === 'text') return 'not octets' as unknown as Uint8Array
      return undefined
    },
  })
  for (const name of ['unknown', 'throws', 'empty', 'long', 'text', 'ü'.repeat(60)]) {
    const association = dial(server.port, { psk: { [name]: psk } })
    await expect(association.opened).rejects.toMatchObject({ code: 'dtls/refused' })
  }
  expect(server.associations).toEqual([])
  expect(server.endpoint.stats.refused).toBe(6)
})

test('a wrong key for a known code opens nothing', async () => {
  const server = await serve({ psk: { [identity]: psk }, handshakeTimeout: 300 })
  const association = dial(server.port, { psk: { [identity]: randomBytes(32) }, handshakeTimeout: 300 })
  await expect(association.opened).rejects.toMatchObject({ code: expect.stringMatching(/dtls\/(refused|timeout)/) })
  expect(server.associations).toEqual([])
})

test('no ticket is given: a code opens one association at a time', async () => {
  const server = await serve({ psk: { [identity]: psk } })
  const association = dial(server.port, { psk: { [identity]: psk } })
  await association.opened
  await ask(association, 'x')
  expect(association.session).toBeUndefined()
})

test('a client that enrols takes no certificate instead, and plain PSK is no suite', async () => {
  const server = await serve()
  const association = dial(server.port, { psk: { [identity]: psk }, ca: world.ca })
  await expect(association.opened).rejects.toMatchObject({ code: 'dtls/refused' })
  expect(server.refusals).toEqual([expect.stringMatching(/no shared cipher/)])
  const enrolling = await serve({ psk: { [identity]: psk } })
  const plain = dial(enrolling.port, {
    psk: { [identity]: psk },
    ciphers: 'PSK-AES128-CCM8:PSK-AES128-GCM-SHA256:@SECLEVEL=0',
  })
  await expect(plain.opened).rejects.toMatchObject({ code: 'dtls/refused' })
  expect(enrolling.refusals).toEqual([expect.stringMatching(/no shared cipher/)])
})

test('a port where a certificate is required still takes codes, and knows them apart', async () => {
  const server = await serve({ clientAuth: 'require', psk: { [identity]: psk } })
  await dial(server.port, { psk: { [identity]: psk } }).opened
  await expect(dial(server.port, { ca: world.ca }).opened).rejects.toMatchObject({ code: 'dtls/refused' })
  expect(server.associations).toHaveLength(1)
  expect(server.associations[0]).toMatchObject({ authorized: false, pskIdentity: identity })
})

test('a look-up may close the server', async () => {
  let server: Server | undefined
  server = await serve({
    psk: () => {
      void server?.endpoint.close()
      return psk
    },
  })
  const association = dial(server.port, { psk: { [identity]: psk }, handshakeTimeout: 200 })
  await association.closed
  await server.endpoint.close()
  expect(server.endpoint.stats.associations).toBe(0)
})

test('a client names exactly one key, as a table', () => {
  for (const wrong of [{}, { a: psk, b: psk }, () => psk]) {
    expect(() => dial(5684, { psk: wrong as never })).toThrow(expect.objectContaining({ code: 'dtls/bad-options' }))
  }
  expect(() => dial(5684, { psk: { a: psk }, expectSpki: randomBytes(32) })).toThrow(/shows no certificate/)
  expect(() => dial(5684, { psk: { a: randomBytes(65) } })).toThrow(/64 octets/)
  expect(() => dial(5684, { psk: { ['x'.repeat(129)]: psk } })).toThrow(/128 octets/)
})
