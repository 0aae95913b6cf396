import { randomBytes } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { connect } from '../../../transport/dtls/connect.ts'
import type { DtlsAssociation } from '../../../transport/dtls/types.ts'
import { type Server, startServer } from './authority.ts'

/** Enrolment by code on a line where somebody listens, keeps what he hears and says it again, without the code. */
const IDENTITY = 'enrol:0123456789abcdef'
const APPLICATION_DATA = 23
const HELLO_VERIFY = 3
const REQUEST = 'the request with its proof'

const open: { close(): unknown }[] = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})

interface Line {
  readonly port: number
  readonly up: Buffer[]
  readonly down: Buffer[]
  /** From the address and port that the device seemed to have. */
  say(datagram: Buffer): void
}

/** A line to `port`, and everything that passed it. */
async function tapped(port: number): Promise<Line> {
  const [front, back] = [await bound(), await bound()]
  const line = { port: front.address().port, up: [] as Buffer[], down: [] as Buffer[] }
  const say = (datagram: Buffer): void => back.send(datagram, port, '127.0.0.1')
  let device = 0
  front.on('message', (datagram, from) => {
    device = from.port
    line.up.push(datagram)
    say(datagram)
  })
  back.on('message', (datagram) => {
    line.down.push(datagram)
    front.send(datagram, device, '127.0.0.1')
  })
  return { ...line, say }
}

async function bound(): Promise<Socket> {
  const socket = createSocket('udp4')
  await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
  open.push(socket)
  return socket
}

async function keyServer(key: Uint8Array): Promise<Server> {
  const server = await startServer({ psk: { [IDENTITY]: key }, retransmitInitial: 50, handshakeTimeout: 1500 })
  open.push(server.endpoint)
  return server
}

/** A device that sends its request as soon as it believes to be at the key server. */
function device(port: number, key: Uint8Array): DtlsAssociation {
  const association = connect('127.0.0.1', port, {
    psk: { [IDENTITY]: key },
    retransmitInitial: 50,
    handshakeTimeout: 1500,
  })
  association.opened.then(
    () => association.send(Buffer.from(REQUEST)),
    () => undefined,
  )
  open.push(association)
  return association
}

function types(datagrams: readonly Buffer[]): number[] {
  const found: number[] = []
  for (const datagram of datagrams) {
    for (let at = 0; at + 13 <= datagram.length; at += 13 + datagram.readUInt16BE(at + 11)) {
      found.push(datagram[at] as number)
    }
  }
  return found
}

/** One enrolment that went well, as the listener has it. */
async function heard(key: Uint8Array): Promise<{ server: Server; line: Line; association: DtlsAssociation }> {
  const server = await keyServer(key)
  const line = await tapped(server.port)
  const association = device(line.port, key)
  const answer = new Promise<string>((done) => {
    association.onmessage = (datagram) => done(datagram.toString())
  })
  expect(await answer).toBe([...REQUEST].reverse().join(''))
  expect(types(line.up)).toContain(APPLICATION_DATA)
  return { server, line, association }
}

describe('a fake key server', () => {
  test('that knows a device’s identity and not its code hears no request', async () => {
    const fake = await keyServer(randomBytes(32))
    const line = await tapped(fake.port)
    await expect(device(line.port, randomBytes(32)).opened).rejects.toMatchObject({
      code: expect.stringMatching(/^dtls\//),
    })
    // It went as far as it can: the device answered the ServerHello.
    expect(line.down.length).toBeGreaterThanOrEqual(2)
    expect(types(line.up)).not.toContain(APPLICATION_DATA)
    expect(fake.associations).toEqual([])
  })

  test('that says again what the true one said in another handshake hears no request', async () => {
    const key = randomBytes(32)
    const { line } = await heard(key)
    const fake = await bound()
    const upward: Buffer[] = []
    const script = [...line.down]
    fake.on('message', (datagram, from) => {
      upward.push(datagram)
      const next = script.shift()
      if (next !== undefined) fake.send(next, from.port, '127.0.0.1')
    })
    await expect(device(fake.address().port, key).opened).rejects.toMatchObject({
      code: expect.stringMatching(/^dtls\//),
    })
    expect(line.down[0]?.[13]).toBe(HELLO_VERIFY)
    expect(script.length).toBeLessThan(line.down.length - 1)
    expect(types(upward)).not.toContain(APPLICATION_DATA)
  })
})

describe('a recorded device', () => {
  test('said again from the same port gets nothing, whether the first is still there or not', async () => {
    const key = randomBytes(32)
    const { server, line, association } = await heard(key)
    const recorded = [...line.up]
    const messages: string[] = []
    const first = server.associations[0] as DtlsAssociation
    first.onmessage = (datagram) => messages.push(datagram.toString())
    const replay = async (): Promise<void> => {
      for (const datagram of recorded) {
        line.say(datagram)
        await delay(20)
      }
    }
    await replay()
    expect(first.error).toBeUndefined()
    association.send(Buffer.from('still the device'))
    await expect.poll(() => messages, { timeout: 15_000 }).toEqual(['still the device'])
    association.destroy()
    first.destroy()
    await replay()
    // The cookie is good for this port, so a handshake begins; its Finished is of another one.
    await expect.poll(() => server.endpoint.stats.refused, { timeout: 15_000 }).toBe(1)
    expect(server.associations).toHaveLength(1)
    expect(server.endpoint.stats.accepted).toBe(1)
    expect(messages).toEqual(['still the device'])
  })
})
