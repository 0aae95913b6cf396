import { randomBytes } from 'node:crypto'
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { spkiSha256 } from '../../../runtime/pki/certificate.ts'
import { createCrl } from '../../../runtime/pki/revocation.ts'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation } from '../../../transport/dtls/types.ts'
import { ask, createWorld, type Identity, type Server, startServer, type World } from './authority.ts'

/** Tickets, and what becomes of an identity that was proven once. */
let world: World
const open: { close(): unknown }[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterEach(async () => {
  vi.useRealTimers()
  for (const thing of open.splice(0)) await thing.close()
})

async function serve(options: Parameters<typeof startServer>[0] = {}): Promise<Server> {
  const { cert, key } = world.server
  const server = await startServer({ cert, key, ca: world.ca, clientAuth: 'optional', ...options })
  open.push(server.endpoint)
  return server
}

function dial(
  port: number,
  options: ConnectOptions = {},
  identity: Identity | undefined = world.device,
): DtlsAssociation {
  const { cert, key } = identity
  const association = connect('127.0.0.1', port, { ca: world.ca, cert, key, retransmitInitial: 100, ...options })
  open.push(association)
  return association
}

/** Opens, talks, closes; the session for next time. */
async function visit(server: Server, options: ConnectOptions = {}, identity?: Identity) {
  const next = server.next()
  const association = dial(server.port, options, identity)
  await association.opened
  const other = await next
  expect(await ask(association, 'ab')).toBe('ba')
  const result = {
    session: association.session!,
    reused: association.reused,
    reusedThere: other.reused,
    authorized: other.authorized,
    binding: association.channelBinding().toString('hex'),
    cert: other.peerX509Certificate?.fingerprint256,
  }
  association.close()
  return result
}

describe('a ticket', () => {
  test('resumes with the same identity and another channel binding', async () => {
    const server = await serve()
    const first = await visit(server)
    expect(first).toMatchObject({ reused: false, reusedThere: false, authorized: true })
    const second = await visit(server, { session: first.session })
    expect(second).toMatchObject({ reused: true, reusedThere: true, authorized: true, cert: first.cert })
    expect(second.binding).not.toBe(first.binding)
    expect(server.endpoint.stats).toMatchObject({ accepted: 2, resumed: 1 })
  })

  test('survives a restart with the same ticket keys, not with others', async () => {
    const ticketKeys = randomBytes(80)
    const before = await serve({ ticketKeys })
    const { session } = await visit(before)
    const same = await serve({ ticketKeys })
    expect(await visit(same, { session })).toMatchObject({ reused: true, authorized: true })
    const other = await serve()
    expect(await visit(other, { session })).toMatchObject({ reused: false, authorized: true })
  })

  test('lives through one rotation of the keys', async () => {
    const [a, b, c] = [randomBytes(80), randomBytes(80), randomBytes(80)]
    const server = await serve({ ticketKeys: a })
    const { session } = await visit(server)
    server.endpoint.setTicketKeys([b, a])
    const renewed = await visit(server, { session })
    expect(renewed.reused).toBe(true)
    server.endpoint.setTicketKeys([c, b])
    expect((await visit(server, { session })).reused).toBe(false)
    expect((await visit(server, { session: renewed.session })).reused).toBe(true)
    expect(() => server.endpoint.setTicketKeys([])).toThrow(expect.objectContaining({ code: 'dtls/bad-options' }))
  })

  test('of keys that nobody gave lives for 12 to 24 hours', async () => {
    const server = await serve()
    const { session } = await visit(server)
    const hour = 3_600_000
    let now = performance.now()
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    now += 13 * hour
    expect((await visit(server, { session })).reused).toBe(true)
    now += 13 * hour
    expect((await visit(server, { session })).reused).toBe(false)
    vi.restoreAllMocks()
  })

  test('counts only where the same authorities are trusted', async () => {
    const ticketKeys = randomBytes(80)
    const before = await serve({ ticketKeys })
    const { session } = await visit(before)
    const narrower = await serve({ ticketKeys, ca: world.issuing.certificate })
    expect((await visit(narrower, { session })).reused).toBe(false)
    const stricter = await serve({ ticketKeys, clientAuth: 'require' })
    expect((await visit(stricter, { session })).reused).toBe(false)
  })

  test('of another server, or a mangled session, leads to a full handshake', async () => {
    const server = await serve()
    const { session } = await visit(server)
    for (const mangled of [Buffer.alloc(0), Buffer.from('junk'), session.subarray(0, 50), randomBytes(200)]) {
      expect((await visit(server, { session: mangled })).reused).toBe(false)
    }
  })

  test('that would split the first hello is not shown', async () => {
    const server = await serve()
    const { session } = await visit(server)
    expect((await visit(server, { session, mtu: 600 })).reused).toBe(false)
    expect((await visit(server, { session, mtu: 1400 })).reused).toBe(true)
  })

  test('does not carry over to another name or pin that the client expects', async () => {
    const server = await serve()
    const { session } = await visit(server)
    const renamed = dial(server.port, { session, servername: 'other.example' })
    await expect(renamed.opened).rejects.toMatchObject({ code: 'dtls/refused', message: /does not name other.example/ })
    const pinned = dial(server.port, { session, expectSpki: spkiSha256(world.device.cert) })
    await expect(pinned.opened).rejects.toMatchObject({ code: 'dtls/refused', message: /not the pinned one/ })
    expect((await visit(server, { session, expectSpki: spkiSha256(world.server.cert) })).reused).toBe(true)
  })
})

describe('revocation', () => {
  const listOf = (identities: Identity[], options: { days?: number; nowMs?: number } = {}) =>
    createCrl(world.issuing, {
      revoked: identities.map(({ issued }) => ({ serial: issued.serial, atMs: Date.now() })),
      number: 1,
      ...options,
    })

  test('a listed certificate is refused, others are not', async () => {
    const bad = await world.makeDevice()
    const server = await serve({ crl: await listOf([bad]) })
    await expect(dial(server.port, {}, bad).opened).rejects.toMatchObject({ code: 'dtls/refused', message: /revoked/ })
    expect(server.refusals).toEqual([expect.stringMatching(/certificate revoked/)])
    expect(await visit(server)).toMatchObject({ authorized: true })
    expect(server.endpoint.stats.accepted).toBe(1)
  })

  test('a list that ran out refuses everybody of its issuer; a forged one too', async () => {
    const old = await serve({ crl: await listOf([], { days: 1, nowMs: Date.now() - 3 * 86_400_000 }) })
    await expect(dial(old.port).opened).rejects.toMatchObject({ code: 'dtls/refused' })
    expect(old.refusals).toEqual([expect.stringMatching(/CRL has expired/)])
    const forgery = await createCrl({ ...world.issuing, key: world.root.key }, { revoked: [], number: 1 })
    const forged = await serve({ crl: forgery })
    await expect(dial(forged.port).opened).rejects.toMatchObject({ code: 'dtls/refused' })
    expect(forged.refusals).toEqual([expect.stringMatching(/unable to get certificate CRL/)])
    const der = Buffer.from((await listOf([])).replace(/-----[^-]+-----/g, ''), 'base64')
    der[der.length - 1] = (der[der.length - 1] as number) ^ 1
    const mangled = `-----BEGIN X509 CRL-----\n${der.toString('base64')}\n-----END X509 CRL-----\n`
    const changed = await serve({ crl: mangled })
    await expect(dial(changed.port).opened).rejects.toMatchObject({ code: 'dtls/refused' })
    expect(changed.refusals).toEqual([expect.stringMatching(/CRL signature failure/)])
  })

  test('a list of another issuer says nothing', async () => {
    const server = await serve({ crl: await createCrl(world.root, { revoked: [], number: 1 }) })
    expect(await visit(server)).toMatchObject({ authorized: true })
  })

  test('a new list closes open associations, and no ticket gets around it', async () => {
    const bad = await world.makeDevice()
    const server = await serve()
    const { session } = await visit(server, {}, bad)
    const next = server.next()
    const good = dial(server.port)
    await good.opened
    await next
    const doomed = dial(server.port, {}, bad)
    await doomed.opened
    const { cert, key } = world.server
    server.endpoint.setSecureContext({ cert, key, ca: world.ca, crl: [await listOf([bad])] })
    await doomed.closed
    const there = server.associations.at(-1)!
    expect(there.error).toMatchObject({ code: 'dtls/revoked' })
    expect(there.authorized).toBe(false)
    expect(await ask(good, 'ab')).toBe('ba')
    for (const again of [{ session }, {}]) {
      await expect(dial(server.port, again, bad).opened).rejects.toThrow(/revoked/)
    }
  })

  test('a certificate that runs out while the association is open authorizes no more', async () => {
    // Two seconds of life from now: 1/43200 of a day.
    const brief = await world.makeDevice({ days: 2 / 86_400 })
    const server = await serve()
    const next = server.next()
    const association = dial(server.port, {}, brief)
    await association.opened
    const other = await next
    expect(other.authorized).toBe(true)
    await vi.waitFor(() => expect(other.authorized).toBe(false), { timeout: 8000, interval: 100 })
    expect(await ask(association, 'ab')).toBe('ba')
  })
})

test('a renewed certificate of the server serves from then on', async () => {
  const server = await serve()
  await visit(server)
  const { cert, key } = await world.makeServer({ names: ['renewed.example'] })
  server.endpoint.setSecureContext({ cert, key, ca: world.ca })
  await expect(dial(server.port).opened).rejects.toMatchObject({ code: 'dtls/refused' })
  expect(await visit(server, { servername: 'renewed.example' })).toMatchObject({ reused: false, authorized: true })
})
