import { createSocket } from 'node:dgram'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation } from '../../../transport/dtls/types.ts'
import { ask, createWorld, type Server, startServer, type World } from './authority.ts'
import { type Relay, type RelayOptions, startRelay } from './relay.ts'

/** A bad network between the two ends: loss, disorder, repetition, reboots. */
const HELLO_VERIFY = 3
const SERVER_HELLO = 2
const NEW_SESSION_TICKET = 4

let world: World
const open: { close(): unknown }[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

async function serve(options: Parameters<typeof startServer>[0] = {}): Promise<Server> {
  const { cert, key } = world.server
  const server = await startServer({
    cert,
    key,
    ca: world.ca,
    clientAuth: 'optional',
    retransmitInitial: 30,
    ...options,
  })
  open.push(server.endpoint)
  return server
}

async function relay(options: RelayOptions): Promise<Relay> {
  const made = await startRelay(options)
  open.push(made)
  return made
}

function dial(port: number, options: ConnectOptions = {}): DtlsAssociation {
  const { cert, key } = world.device
  const association = connect('127.0.0.1', port, { ca: world.ca, cert, key, retransmitInitial: 30, ...options })
  open.push(association)
  return association
}

describe('handshakes get through', () => {
  test.each([
    ['10 % loss each way', { loss: 0.1 }],
    ['25 % loss each way', { loss: 0.25 }],
    ['10 % loss, 10 % reordered, 5 % doubled', { loss: 0.1, reorder: 0.1, duplicate: 0.05 }],
    ['everything doubled', { duplicate: 1 }],
    ['everything delayed at random', { reorder: 1 }],
  ])('%s: 20 of 20', async (_name, faults) => {
    const server = await serve()
    const { port } = await relay({ port: server.port, seed: 7, mostLosses: 6, ...faults })
    const clients = Array.from({ length: 20 }, () => dial(port))
    await Promise.all(clients.map((client) => client.opened))
    expect(server.endpoint.stats.refused).toBe(0)
    // An association that lost its last flight is completed by the retransmission that follows.
    const bindings = new Set(server.associations.map((a) => a.channelBinding().toString('hex')))
    for (const client of clients) expect(bindings).toContain(client.channelBinding().toString('hex'))
  })

  test('each flight in one datagram, also when it is sent again', async () => {
    const server = await serve()
    const firstMessages: (number | undefined)[] = []
    let dropped = 0
    const { port } = await relay({
      port: server.port,
      seed: 1,
      filter: (datagram, direction) => {
        if (direction === 'up') return true
        expect(datagram.length).toBeLessThanOrEqual(1200)
        firstMessages.push(datagram[13])
        return datagram[13] !== SERVER_HELLO || dropped++ >= 2
      },
    })
    await dial(port, { cert: undefined, key: undefined }).opened
    // Two were thrown away; on a busy machine more than one may follow.
    expect(firstMessages.filter((type) => type === SERVER_HELLO).length).toBeGreaterThanOrEqual(3)
    // No datagram begins with a later message of a flight.
    expect(new Set(firstMessages)).toEqual(new Set([HELLO_VERIFY, SERVER_HELLO, NEW_SESSION_TICKET]))
  })

  test('a small mtu is kept to', async () => {
    const server = await serve({ mtu: 400 })
    let largest = 0
    const { port } = await relay({
      port: server.port,
      seed: 1,
      filter: (datagram) => {
        largest = Math.max(largest, datagram.length)
        return true
      },
    })
    await dial(port, { mtu: 400 }).opened
    expect(largest).toBeLessThanOrEqual(400)
    expect(largest).toBeGreaterThan(300)
  })
})

describe('a peer that comes back from the same address and port', () => {
  /** Two clients in turn behind one outer port. */
  async function samePort(): Promise<{ server: Server; first: DtlsAssociation; again: () => DtlsAssociation }> {
    const server = await serve()
    const inner = await startSwitch(server.port)
    open.push(inner)
    const first = dial(inner.port)
    await first.opened
    return { server, first, again: () => dial(inner.port) }
  }

  test('replaces its old association when its new handshake is complete', async () => {
    const { server, first, again } = await samePort()
    const old = server.associations[0]!
    expect(await ask(first, 'ab')).toBe('ba')
    const second = again()
    await second.opened
    expect(await ask(second, 'cd')).toBe('dc')
    await old.closed
    expect(old.error).toMatchObject({ code: 'dtls/replaced' })
    expect(server.associations).toHaveLength(2)
    expect(server.associations[1]!.remoteAddress.port).toBe(old.remoteAddress.port)
    expect(server.endpoint.stats.associations).toBe(1)
  })

  test('a hello without a cookie, or a repeated one, ends nothing', async () => {
    const server = await serve()
    const hellos: Buffer[] = []
    let resend: ((datagram: Buffer) => void) | undefined
    const inner = await startSwitch(server.port, (datagram, send) => {
      if (datagram[0] === 22 && datagram[13] === 1) hellos.push(Buffer.from(datagram))
      resend = send
    })
    open.push(inner)
    const association = dial(inner.port, { retransmitInitial: 5000 })
    await association.opened
    await ask(association, 'ab')
    expect(hellos).toHaveLength(2)
    const forged = Buffer.from(hellos[0]!)
    forged.fill(9, 27, 59)
    for (const hello of [...hellos, forged]) {
      resend!(hello)
      expect(await ask(association, 'still')).toBe('llits')
    }
    expect(server.endpoint.stats).toMatchObject({ accepted: 1, associations: 1 })
    // One that repeats the cookie of the address (somebody listens on the path) begins a handshake, and replaces nothing.
    const listening = Buffer.from(hellos[1]!)
    listening.fill(9, 27, 59)
    resend!(listening)
    expect(await ask(association, 'still')).toBe('llits')
    expect(server.endpoint.stats).toMatchObject({ accepted: 1, associations: 2 })
    expect(server.associations[0]!.error).toBeUndefined()
  })

  test('a peer whose port changes in the middle is not heard until it connects again', async () => {
    const server = await serve()
    const between = await relay({ port: server.port, seed: 1 })
    const association = dial(between.port)
    await association.opened
    expect(await ask(association, 'ab')).toBe('ba')
    between.rebind()
    association.onmessage = () => {
      throw new Error('an answer to a port that is not this association’s')
    }
    association.send(Buffer.from('cd'))
    await expect.poll(() => server.endpoint.stats.ignored).toBe(1)
    const session = association.session!
    const second = dial(between.port, { session })
    await second.opened
    expect(second.reused).toBe(true)
    expect(await ask(second, 'ef')).toBe('fe')
  })
})

/** Passes datagrams of whichever client spoke last, always from one outer port. */
async function startSwitch(
  port: number,
  tap?: (datagram: Buffer, send: (datagram: Buffer) => void) => void,
): Promise<{ port: number; close(): void }> {
  const front = createSocket('udp4')
  const back = createSocket('udp4')
  await new Promise<void>((done) => front.bind(0, '127.0.0.1', done))
  await new Promise<void>((done) => back.bind(0, '127.0.0.1', done))
  let client = 0
  const send = (datagram: Buffer): void => back.send(datagram, port, '127.0.0.1')
  front.on('message', (datagram, from) => {
    client = from.port
    tap?.(datagram, send)
    send(datagram)
  })
  back.on('message', (datagram) => front.send(datagram, client, '127.0.0.1'))
  return {
    port: front.address().port,
    close: () => {
      front.close()
      back.close()
    },
  }
}
