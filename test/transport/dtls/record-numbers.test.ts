import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation } from '../../../transport/dtls/types.ts'
import { ask, createWorld, type Server, startServer, type World } from './authority.ts'
import { type Relay, startRelay } from './relay.ts'

/**
 * RFC 6347 §4.2.1: HelloVerifyRequest and the server's first record after it carry the record number of the hello that
 * they answer. A number that came before is a repetition to the client, and dropped in silence (§4.1.2.6). The server's
 * own timer is far away in these tests: what is dropped once is missed.
 */
const FAR_MS = 60_000
const ALERT = 21
const HANDSHAKE = 22
const CLIENT_HELLO = 1
const SERVER_HELLO = 2
const HELLO_VERIFY = 3

interface SeenRecord {
  readonly direction: 'up' | 'down'
  readonly type: number
  readonly epoch: number
  readonly number: number
  /** Of an unprotected handshake record. */
  readonly message: number | undefined
}

function recordsOf(datagram: Buffer, direction: 'up' | 'down'): SeenRecord[] {
  const records: SeenRecord[] = []
  for (let at = 0; at + 13 <= datagram.length; at += 13 + datagram.readUInt16BE(at + 11)) {
    const type = datagram[at] as number
    const epoch = datagram.readUInt16BE(at + 3)
    const number = datagram.readUIntBE(at + 5, 6)
    const message = type === HANDSHAKE && epoch === 0 ? datagram[at + 13] : undefined
    records.push({ direction, type, epoch, number, message })
  }
  return records
}

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
  const { ca } = world
  const server = await startServer({ cert, key, ca, clientAuth: 'optional', retransmitInitial: FAR_MS, ...options })
  open.push(server.endpoint)
  return server
}

function dial(port: number, options: ConnectOptions = {}): DtlsAssociation {
  const { cert, key } = world.device
  const association = connect('127.0.0.1', port, { ca: world.ca, cert, key, retransmitInitial: 100, ...options })
  open.push(association)
  return association
}

/** A relay that notes every record that it passes; `lose` and `change` see each datagram first. */
async function tap(
  server: Server,
  faults: {
    lose?: (records: readonly SeenRecord[]) => boolean
    change?: (datagram: Buffer, direction: 'up' | 'down') => void
  },
): Promise<{ relay: Relay; seen: SeenRecord[] }> {
  const seen: SeenRecord[] = []
  const relay = await startRelay({
    port: server.port,
    seed: 1,
    filter: (datagram, direction) => {
      faults.change?.(datagram, direction)
      const records = recordsOf(datagram, direction)
      if (faults.lose?.(records) === true) return false
      seen.push(...records)
      return true
    },
  })
  open.push(relay)
  return { relay, seen }
}

/** True for the first `count` datagrams that begin with this message. */
function first(count: number, message: number): (records: readonly SeenRecord[]) => boolean {
  let left = count
  return ([record]) => record?.message === message && left-- > 0
}

const verified = (seen: readonly SeenRecord[]): number => seen.findLastIndex(({ message }) => message === HELLO_VERIFY)

/** The number of the server's first record after the cookie, and those of the hellos that came before it. */
function firstAfterCookie(seen: readonly SeenRecord[]): { answer: SeenRecord | undefined; hellos: number[] } {
  const at = seen.findIndex((record, index) => record.direction === 'down' && index > verified(seen))
  const hellos = seen.slice(verified(seen), at).filter(({ message }) => message === CLIENT_HELLO)
  return { answer: seen[at], hellos: hellos.map(({ number }) => number) }
}

function expectNothingRepeated(seen: readonly SeenRecord[]): void {
  const numbers = seen.filter((record) => record.direction === 'down').map(({ epoch, number }) => `${epoch}/${number}`)
  expect(numbers).toEqual([...new Set(numbers)])
}

describe('the server’s records after the cookie go on from the number of the hello', () => {
  test('nothing lost', async () => {
    const server = await serve()
    const { relay, seen } = await tap(server, {})
    const association = dial(relay.port)
    await association.opened
    expect(await ask(association, 'ab')).toBe('ba')
    const { answer, hellos } = firstAfterCookie(seen)
    expect(answer?.message).toBe(SERVER_HELLO)
    expect(hellos).toContain(answer?.number)
    expectNothingRepeated(seen)
  })

  test.each([
    ['the first hello lost', first(1, CLIENT_HELLO)],
    ['three hellos lost', first(3, CLIENT_HELLO)],
    ['the HelloVerifyRequest lost', first(1, HELLO_VERIFY)],
  ])('%s', async (_name, lose) => {
    const server = await serve()
    const { relay, seen } = await tap(server, { lose })
    const association = dial(relay.port)
    await association.opened
    expect(await ask(association, 'ab')).toBe('ba')
    const { answer, hellos } = firstAfterCookie(seen)
    expect(answer?.message).toBe(SERVER_HELLO)
    expect(hellos).toContain(answer?.number)
    expect(answer?.number).toBeGreaterThan(1)
    expectNothingRepeated(seen)
    // Said once, and understood.
    expect(seen.filter(({ message }) => message === SERVER_HELLO)).toHaveLength(1)
  })

  test('a refusal is heard after a loss', async () => {
    const server = await serve({ ciphers: 'ECDHE-ECDSA-AES256-GCM-SHA384' })
    const { relay, seen } = await tap(server, { lose: first(1, CLIENT_HELLO) })
    const association = dial(relay.port, { ciphers: 'ECDHE-ECDSA-AES128-GCM-SHA256', handshakeTimeout: 15_000 })
    await expect(association.opened).rejects.toMatchObject({
      code: 'dtls/refused',
      message: expect.stringMatching(/handshake failure/),
    })
    const { answer, hellos } = firstAfterCookie(seen)
    expect(answer?.type).toBe(ALERT)
    expect(hellos).toContain(answer?.number)
  })

  test('also when it is far from the beginning', async () => {
    const far = 2 ** 40
    const server = await serve()
    const { relay, seen } = await tap(server, {
      change: (datagram, direction) => {
        for (let at = 0; at + 13 <= datagram.length; at += 13 + datagram.readUInt16BE(at + 11)) {
          if (direction === 'down' || datagram.readUInt16BE(at + 3) !== 0) continue
          datagram.writeUIntBE(datagram.readUIntBE(at + 5, 6) + far, at + 5, 6)
        }
      },
    })
    await dial(relay.port).opened
    const { answer, hellos } = firstAfterCookie(seen)
    expect(hellos).toContain(answer?.number)
    expect(answer?.number).toBeGreaterThan(far)
    expectNothingRepeated(seen)
  })

  test('a flight that is sent again goes on counting', async () => {
    const server = await serve({ retransmitInitial: 100 })
    const lost: SeenRecord[] = []
    const faults = [first(1, CLIENT_HELLO), first(2, SERVER_HELLO)]
    const { relay, seen } = await tap(server, {
      lose: (records) => {
        const gone = faults.some((fault) => fault(records))
        if (gone) lost.push(...records)
        return gone
      },
    })
    await dial(relay.port).opened
    const again = seen.find(({ message }) => message === SERVER_HELLO)
    const before = lost.filter(({ direction }) => direction === 'down').map(({ number }) => number)
    expect(before.length).toBeGreaterThanOrEqual(2)
    expect(again?.number).toBeGreaterThan(Math.max(...before))
    expectNothingRepeated([...lost, ...seen])
  })
})
