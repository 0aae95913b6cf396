import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { deviceAddressOf, spkiSha256 } from '../../../runtime/pki/certificate.ts'
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
