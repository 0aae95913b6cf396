import { createSocket } from 'node:dgram'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { deviceAddressOf, spkiSha256 } from '../../../runtime/pki/certificate.ts'
import { privateKeyPem } from '../../../runtime/pki/keys.ts'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation, DtlsEndpoint } from '../../../transport/dtls/types.ts'
import { ADDRESS, ask, createWorld, type Server, startServer, type World } from './authority.ts'

let world: World
const open: (DtlsEndpoint | DtlsAssociation)[] = []

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

function dial(port: number, options: ConnectOptions = {}, host = '127.0.0.1'): DtlsAssociation {
  const association = connect(host, port, { ca: world.ca, retransmitInitial: 100, ...options })
  open.push(association)
  return association
}

describe('one port, two modes', () => {
  test('without a certificate the association is anonymous', async () => {
    const server = await serve()
    const association = dial(server.port)
    await association.opened
    expect(association.protocol).toBe('DTLSv1.2')
    expect(association.cipher).toBe('ECDHE-ECDSA-AES128-GCM-SHA256')
    expect(association.authorized).toBe(true)
    expect(await ask(association, 'hello')).toBe('olleh')
    const [other] = server.associations
    expect(other?.authorized).toBe(false)
    expect(other?.peerX509Certificate).toBeUndefined()
    expect(other?.pskIdentity).toBeUndefined()
    expect(other?.channelBinding()).toEqual(association.channelBinding())
    expect(association.channelBinding()).toHaveLength(32)
    expect(server.endpoint.stats).toMatchObject({ accepted: 1, refused: 0, helloVerifySent: 1, associations: 1 })
  })

  test('with a certificate the server knows the device', async () => {
    const server = await serve()
    const association = dial(server.port, { cert: world.device.cert, key: world.device.key })
    await association.opened
    expect(await ask(association, 'abc')).toBe('cba')
    const [other] = server.associations
    expect(other?.authorized).toBe(true)
    expect(deviceAddressOf(other!.peerX509Certificate!)).toBe(ADDRESS)
    expect(spkiSha256(association.peerX509Certificate!)).toEqual(spkiSha256(world.server.cert))
  })
})

describe('an association', () => {
  test('carries datagrams whole, each way, of each size', async () => {
    const server = await serve()
    const association = dial(server.port)
    await association.opened
    for (const size of [1, 2, 100, 1024, 1400, 9000, 16_384]) {
      const sent = Buffer.alloc(size, 7)
      sent[0] = 1
      const got = await new Promise<Buffer>((resolve) => {
        association.onmessage = resolve
        association.send(sent)
      })
      expect(got).toEqual(Buffer.from(sent).reverse())
    }
    for (const size of [0, 16_385]) {
      expect(() => association.send(new Uint8Array(size))).toThrow(expect.objectContaining({ code: 'dtls/too-large' }))
    }
  })

  test('exports keying material, another for each label, context and association', async () => {
    const server = await serve()
    const [a, b] = [dial(server.port), dial(server.port)]
    await Promise.all([a.opened, b.opened])
    await Promise.all([ask(a, 'x'), ask(b, 'y')])
    const context = Buffer.from('context')
    const values = [
      a.channelBinding(),
      b.channelBinding(),
      a.exportKeyingMaterial(32, 'EXPORTER-other'),
      a.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', context),
      a.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', new Uint8Array(0)),
    ]
    expect(new Set(values.map((v) => v.toString('hex'))).size).toBe(values.length)
    const others = server.associations.map((o) => o.channelBinding().toString('hex')).sort()
    expect(others).toEqual([a, b].map((o) => o.channelBinding().toString('hex')).sort())
  })

  test('ends at both ends when one closes, and says so to later use', async () => {
    const server = await serve()
    for (const closer of ['client', 'server']) {
      const next = server.next()
      const association = dial(server.port)
      await association.opened
      const other = await next
      if (closer === 'client') association.close()
      else other.close()
      await Promise.all([association.closed, other.closed])
      expect(association.error).toBeUndefined()
      expect(other.error).toBeUndefined()
      expect(association.authorized).toBe(false)
      expect(() => association.send(Buffer.from('x'))).toThrow(expect.objectContaining({ code: 'dtls/closed' }))
      expect(() => association.channelBinding()).toThrow(expect.objectContaining({ code: 'dtls/closed' }))
      association.close()
      association.destroy()
    }
    expect(server.endpoint.stats.associations).toBe(0)
  })

  test('keeps what arrives before somebody listens', async () => {
    const server = await serve()
    const association = dial(server.port)
    await association.opened
    association.send(Buffer.from('ab'))
    association.send(Buffer.from('cd'))
    await new Promise((resolve) => setTimeout(resolve, 50))
    const got: string[] = []
    association.onmessage = (datagram) => got.push(datagram.toString())
    expect(got).toEqual(['ba', 'dc'])
  })

  test('is closed when silent for too long, by notice', async () => {
    const server = await serve({ idleTimeout: 150 })
    const association = dial(server.port)
    await association.opened
    await association.closed
    expect(association.error).toBeUndefined()
    const [other] = server.associations
    expect(other?.error).toMatchObject({ code: 'dtls/idle' })
  })

  test('can be closed from inside its own events', async () => {
    const server = await serve()
    const association = dial(server.port)
    await association.opened
    association.onmessage = () => association.close()
    association.send(Buffer.from('x'))
    await association.closed
    const other = server.associations[0]!
    await other.closed
  })
})

describe('trust', () => {
  test('by the pinned key alone, whatever the name', async () => {
    const server = await serve()
    const pin = spkiSha256(world.server.cert)
    const association = dial(server.port, { ca: undefined, expectSpki: pin, servername: 'elsewhere.example' })
    await association.opened
    expect(association.authorized).toBe(true)
    expect(await ask(association, 'ab')).toBe('ba')
  })

  test('by the CA and the pinned key together: each must hold', async () => {
    const server = await serve()
    const pin = spkiSha256(world.server.cert)
    await dial(server.port, { expectSpki: pin }).opened
    const named = dial(server.port, { expectSpki: pin, servername: 'elsewhere.example' })
    await expect(named.opened).rejects.toMatchObject({ code: 'dtls/refused', message: /hostname mismatch/ })
    for (const ca of [world.ca, undefined]) {
      const wrong = dial(server.port, { ca, expectSpki: spkiSha256(world.device.cert) })
      await expect(wrong.opened).rejects.toMatchObject({ code: 'dtls/refused', message: /not the pinned one/ })
    }
  })

  test('by the name that the caller expects, DNS or address', async () => {
    const server = await serve()
    await dial(server.port, { servername: 'localhost' }).opened
    await dial(server.port, {}, 'localhost').opened
    await dial(server.port, { servername: '::1' }).opened
    await expect(dial(server.port, { servername: '127.0.0.2' }).opened).rejects.toMatchObject({
      message: /IP address mismatch/,
    })
  })

  test('is needed: without any the client does not begin', () => {
    expect(() => connect('127.0.0.1', 5684, {})).toThrow(expect.objectContaining({ code: 'dtls/no-trust' }))
  })

  test('in an issuing certificate needs no root beside it', async () => {
    const server = await serve({ ca: world.issuing.certificate })
    const association = dial(server.port, { cert: world.device.cert, key: world.device.key })
    await association.opened
    await ask(association, 'x')
    expect(server.associations[0]?.authorized).toBe(true)
  })
})

describe('options', () => {
  test('an encrypted key opens with its passphrase only', async () => {
    const key = privateKeyPem(world.server.privateKey, 'opens it')
    const server = await serve({ key, passphrase: 'opens it' })
    await dial(server.port).opened
    const { cert } = world.server
    await expect(serve({ cert, key, passphrase: 'wrong' })).rejects.toThrow(/passphrase does not open/)
    await expect(serve({ cert, key })).rejects.toThrow(/no passphrase was given/)
  })

  test.each([
    [{ cert: 'nonsense' }, /certificate cannot be used/],
    [{ key: 'nonsense' }, /not one in PEM/],
    [{ ca: 'nonsense' }, /CA certificates cannot be used/],
    [{ crl: 'nonsense' }, /revocation lists cannot be used/],
    [{ ciphers: 'nonsense' }, /no suite/],
    [{ key: undefined }, /belong together/],
    [{ cert: undefined, key: undefined }, /needs cert and key, or psk/],
    [{ ca: undefined }, /needs the CA/],
    [{ mtu: 10 }, /mtu must be/],
    [{ ticketKeys: new Uint8Array(79) }, /80 octets/],
    [{ port: 70_000 }, /port must be/],
  ])('%j is refused in a sentence', async (options, message) => {
    await expect(serve(options as object)).rejects.toMatchObject({ code: 'dtls/bad-options', message })
  })

  test('a key that is not the certificate’s is found', async () => {
    await expect(serve({ key: world.device.key })).rejects.toThrow(/does not belong to the certificate/)
  })

  test('IPv6, and IPv4 on a socket for both', async () => {
    const server = await serve({ host: undefined })
    const four = dial(server.port)
    await four.opened
    expect(server.associations[0]?.remoteAddress).toMatchObject({ address: '127.0.0.1', family: 'IPv4' })
    const six = dial(server.port, {}, '::1')
    await six.opened
    expect(server.associations[1]?.remoteAddress).toMatchObject({ address: '::1', family: 'IPv6' })
    expect(await ask(six, 'ab')).toBe('ba')
    expect(six.localAddress.port).toBe(server.associations[1]?.remoteAddress.port)
  })
})

// 127.0.0.2: an address of every Linux host that no answer leaves from by itself
test.runIf(process.platform === 'linux')('a server answers from the address that was asked', async () => {
  const server = await serve({ host: undefined })
  const association = dial(server.port, { servername: '127.0.0.1' }, '127.0.0.2')
  await association.opened
  expect(await ask(association, 'ab')).toBe('ba')
})

describe('what cannot be reached', () => {
  test('a port where nobody listens', async () => {
    const server = await serve()
    await server.endpoint.close()
    const association = dial(server.port, { retransmitInitial: 20 })
    await expect(association.opened).rejects.toMatchObject({ code: 'dtls/unreachable' })
    await association.closed
  })

  test('a server that is gone: an open association ends after three answers that say so', async () => {
    const server = await serve()
    const association = dial(server.port)
    await association.opened
    const silent = server.associations[0]!
    silent.destroy()
    await server.endpoint.close()
    const sending = setInterval(() => {
      if (association.authorized) association.send(Buffer.from('anybody?'))
    }, 5)
    await association.closed
    clearInterval(sending)
    expect(association.error).toMatchObject({ code: 'dtls/unreachable' })
  })

  test('a peer that never answers', async () => {
    const silent = createSocket('udp4')
    await new Promise<void>((done) => silent.bind(0, '127.0.0.1', done))
    const association = dial(silent.address().port, { retransmitInitial: 30, handshakeTimeout: 120 })
    await expect(association.opened).rejects.toMatchObject({ code: 'dtls/timeout' })
    silent.close()
  })

  test('a name that nobody has', async () => {
    await expect(dial(5684, {}, 'no-such-host.invalid').opened).rejects.toMatchObject({ code: 'dtls/unreachable' })
  })

  test('a handshake that is called off', async () => {
    const controller = new AbortController()
    const silent = createSocket('udp4')
    await new Promise<void>((done) => silent.bind(0, '127.0.0.1', done))
    const association = dial(silent.address().port, { signal: controller.signal })
    controller.abort()
    await expect(association.opened).rejects.toMatchObject({ code: 'dtls/aborted' })
    silent.close()
  })

  test('a port that is in use', async () => {
    const server = await serve()
    const second = await serve({ port: server.port }).catch((error: Error) => error)
    expect(second).toMatchObject({ code: 'dtls/bind', message: /is in use/ })
  })
})
