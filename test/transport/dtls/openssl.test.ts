import { createSocket } from 'node:dgram'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { deviceAddressOf } from '../../../runtime/pki/certificate.ts'
import { connect } from '../../../transport/dtls/connect.ts'
import type { DtlsAssociation, DtlsEndpoint } from '../../../transport/dtls/types.ts'
import { ADDRESS, createWorld, type Server, startServer, type World } from './authority.ts'
import { Files, OPENSSL, openssl, SKIPPED } from './openssl.ts'

/** The openssl program at the other end, both ways round. */
let world: World
const files = new Files()
const open: (DtlsEndpoint | DtlsAssociation)[] = []
const runs: { kill(): void }[] = []

beforeAll(async () => {
  world = await createWorld()
  files.write('ca.pem', world.ca)
  files.write('device.pem', world.device.cert)
  files.write('device.key', world.device.key)
  files.write('server.pem', world.server.cert)
  files.write('server.key', world.server.key)
})
afterEach(async () => {
  for (const run of runs.splice(0)) run.kill()
  for (const thing of open.splice(0)) await thing.close()
})
afterAll(() => files.remove())

const path = (name: string): string => `${files.folder}/${name}`
const EXPORTER = ['-keymatexport', 'EXPORTER-Channel-Binding', '-keymatexportlen', '32']
const keyingMaterial = (output: string): string | undefined =>
  /Keying material: ([0-9A-F]{64})/.exec(output)?.[1]?.toLowerCase()

async function serve(options: Parameters<typeof startServer>[0] = {}): Promise<Server> {
  const { cert, key } = world.server
  const server = await startServer({ cert, key, ca: world.ca, clientAuth: 'optional', ...options })
  open.push(server.endpoint)
  return server
}

function client(port: number, ...args: string[]) {
  const run = openssl(['s_client', '-dtls1_2', '-connect', `127.0.0.1:${port}`, '-CAfile', path('ca.pem'), ...args])
  runs.push(run)
  return run
}

async function freePort(): Promise<number> {
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  const { port } = socket.address()
  await new Promise<void>((done) => socket.close(() => done()))
  return port
}

describe.skipIf(OPENSSL === undefined)(`openssl s_client at our server${SKIPPED}`, () => {
  test.each(['anonymous', 'with a certificate'])('%s: data both ways, and the same channel binding', async (kind) => {
    const server = await serve()
    const identity = ['-cert', path('device.pem'), '-cert_chain', path('device.pem'), '-key', path('device.key')]
    const run = client(server.port, ...EXPORTER, ...(kind === 'anonymous' ? [] : identity))
    await run.until(/Verify return code: 0 \(ok\)[\s\S]*---\n/)
    const association = server.associations[0]!
    expect(keyingMaterial(run.output())).toBe(association.channelBinding().toString('hex'))
    expect(association.authorized).toBe(kind !== 'anonymous')
    if (kind !== 'anonymous') expect(deviceAddressOf(association.peerX509Certificate!)).toBe(ADDRESS)
    run.process.stdin?.write('drawer\n')
    await run.until(/reward/)
    await run.end()
    await association.closed
    expect(association.error).toBeUndefined()
  })

  test('ECDHE-PSK with the suite of enrolment', async () => {
    const psk = Buffer.alloc(32, 0xa5)
    const server = await serve({ psk: { 'enrol:0011223344556677': psk } })
    const suite = ['-cipher', 'ECDHE-PSK-CHACHA20-POLY1305', '-psk_identity', 'enrol:0011223344556677']
    const run = client(server.port, ...suite, '-psk', psk.toString('hex'), ...EXPORTER)
    await run.until(/Keying material: /)
    const association = server.associations[0]!
    expect(association.pskIdentity).toBe('enrol:0011223344556677')
    expect(association.authorized).toBe(false)
    expect(association.cipher).toBe('ECDHE-PSK-CHACHA20-POLY1305')
    expect(keyingMaterial(run.output())).toBe(association.channelBinding().toString('hex'))
  })

  test('the compatibility suite, where it is switched on', async () => {
    const server = await serve({ coapCompat: true })
    const run = client(server.port, '-cipher', 'ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0')
    await run.until(/Verify return code: 0 \(ok\)/)
    expect(server.associations[0]?.cipher).toBe('ECDHE-ECDSA-AES128-CCM8')
  })

  test('a renegotiation is refused', async () => {
    const server = await serve()
    const run = client(server.port)
    await run.until(/Verify return code: 0 \(ok\)[\s\S]*---\n/)
    run.process.stdin?.write('R\n')
    await run.until(/no renegotiation/)
    expect(server.endpoint.stats.accepted).toBe(1)
  })

  test('resumes by ticket', async () => {
    const server = await serve()
    const identity = ['-cert', path('device.pem'), '-cert_chain', path('device.pem'), '-key', path('device.key')]
    await client(server.port, '-sess_out', path('session.pem'), ...identity).end()
    const output = await client(server.port, '-sess_in', path('session.pem'), ...identity).end()
    expect(output).toMatch(/Reused, TLSv1.2|Reused, DTLSv1.2/)
    expect(server.endpoint.stats).toMatchObject({ accepted: 2, resumed: 1 })
    expect(server.associations.map((a) => a.reused)).toEqual([false, true])
  })
})

describe.skipIf(OPENSSL === undefined)(`our client at openssl s_server${SKIPPED}`, () => {
  async function foreign(...args: string[]): Promise<{ port: number; run: ReturnType<typeof openssl> }> {
    const port = await freePort()
    const identity = ['-cert', path('server.pem'), '-key', path('server.key'), '-CAfile', path('ca.pem')]
    const run = openssl(['s_server', '-dtls1_2', '-listen', '-accept', `${port}`, ...identity, ...args])
    runs.push(run)
    await run.until(/ACCEPT/)
    return { port, run }
  }

  function dial(port: number, options: Parameters<typeof connect>[2] = {}): DtlsAssociation {
    const association = connect('127.0.0.1', port, { ca: world.ca, retransmitInitial: 100, ...options })
    open.push(association)
    return association
  }

  test.each(['anonymous', 'with a certificate'])('%s: data both ways, and the same channel binding', async (kind) => {
    const { port, run } = await foreign(...EXPORTER, ...(kind === 'anonymous' ? [] : ['-Verify', '2']))
    const { cert, key } = world.device
    const association = dial(port, kind === 'anonymous' ? {} : { cert, key })
    await association.opened
    const echo = new Promise<string>((resolve) => {
      association.onmessage = (datagram) => resolve(datagram.toString())
    })
    association.send(Buffer.from('from the client\n'))
    await run.until(/from the client/)
    expect(keyingMaterial(run.output())).toBe(association.channelBinding().toString('hex'))
    if (kind !== 'anonymous') expect(run.output()).toMatch(new RegExp(`CN ?= ?${ADDRESS}`))
    run.process.stdin?.write('from the server\n')
    expect(await echo).toBe('from the server\n')
  })

  test('ECDHE-PSK with the suite of enrolment', async () => {
    const psk = Buffer.alloc(32, 0x5a)
    const { port, run } = await foreign('-nocert', '-psk', psk.toString('hex'), ...EXPORTER)
    const association = dial(port, { ca: undefined, psk: { anybody: psk } })
    await association.opened
    association.send(Buffer.from('x\n'))
    await run.until(/Keying material/)
    expect(keyingMaterial(run.output())).toBe(association.channelBinding().toString('hex'))
    expect(association.authorized).toBe(false)
  })

  test('a peer without extended master secret has no channel binding', async () => {
    const config = files.write(
      'no-ems.cnf',
      'openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\nOptions=-ExtendedMasterSecret\n',
    )
    const before = process.env['OPENSSL_CONF']
    process.env['OPENSSL_CONF'] = config
    const { port } = await foreign().finally(() => {
      if (before === undefined) delete process.env['OPENSSL_CONF']
      else process.env['OPENSSL_CONF'] = before
    })
    const association = dial(port)
    await association.opened
    expect(() => association.channelBinding()).toThrow(
      expect.objectContaining({ code: 'dtls/no-extended-master-secret' }),
    )
  })
})
