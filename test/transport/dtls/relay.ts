/** A UDP relay before a server that loses, delays, repeats and mutates datagrams, by a seed. */
import { createSocket, type Socket } from 'node:dgram'

export interface RelayOptions {
  readonly port: number
  readonly seed: number
  /** Losses of one client, both ways, before its line gets better: retransmission timers double, and a test must end. */
  readonly mostLosses?: number
  /** Probabilities for each datagram, each way. */
  readonly loss?: number
  readonly reorder?: number
  readonly duplicate?: number
  readonly mutate?: number
  /** Sees each datagram; false drops it. */
  readonly filter?: (datagram: Buffer, direction: 'up' | 'down') => boolean
}

export interface Relay {
  readonly port: number
  readonly passed: { up: number; down: number }
  /** Each client's datagrams leave from a socket of its own. */
  close(): void
  /** Lets every client's datagrams come from a new port, as after a NAT's reboot. */
  rebind(): void
}

/** Mulberry32: 32 bits of state are enough to shuffle datagrams. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** A copy with 1 to 4 octets changed, or cut, or grown. */
export function mutate(datagram: Buffer, random: () => number): Buffer {
  const copy = Buffer.from(datagram)
  const kind = random()
  if (kind < 0.1) return copy.subarray(0, Math.floor(random() * copy.length))
  if (kind < 0.2) return Buffer.concat([copy, Buffer.alloc(1 + Math.floor(random() * 40), Math.floor(random() * 256))])
  for (let i = 0; i < 1 + Math.floor(random() * 4); i++) {
    copy[Math.floor(random() * copy.length)] = Math.floor(random() * 256)
  }
  return copy
}

export async function startRelay(options: RelayOptions): Promise<Relay> {
  const random = seeded(options.seed)
  const front = createSocket('udp4')
  await new Promise<void>((done) => front.bind(0, '127.0.0.1', done))
  const backs = new Map<number, Socket>()
  const passed = { up: 0, down: 0 }

  const losses = new Map<number, number>()

  const treat = (
    client: number,
    datagram: Buffer,
    direction: 'up' | 'down',
    send: (datagram: Buffer) => void,
  ): void => {
    if (options.filter?.(datagram, direction) === false) return
    const lost = losses.get(client) ?? 0
    if (random() < (options.loss ?? 0) && lost < (options.mostLosses ?? Number.POSITIVE_INFINITY)) {
      losses.set(client, lost + 1)
      return
    }
    const changed = random() < (options.mutate ?? 0) ? mutate(datagram, random) : datagram
    passed[direction]++
    if (random() < (options.duplicate ?? 0)) send(changed)
    if (random() < (options.reorder ?? 0)) setTimeout(() => send(changed), 1 + random() * 15)
    else send(changed)
  }

  const backOf = (clientPort: number): Socket => {
    let back = backs.get(clientPort)
    if (back === undefined) {
      back = createSocket('udp4')
      back.on('error', () => undefined)
      back.on('message', (datagram) =>
        treat(clientPort, datagram, 'down', (out) => {
          if (open) front.send(out, clientPort, '127.0.0.1')
        }),
      )
      backs.set(clientPort, back)
    }
    return back
  }

  let open = true
  front.on('message', (datagram, from) => {
    const back = backOf(from.port)
    treat(from.port, datagram, 'up', (out) => {
      if (open && backs.get(from.port) === back) back.send(out, options.port, '127.0.0.1')
    })
  })
  const closeBacks = (): void => {
    for (const back of backs.values()) back.close()
    backs.clear()
  }
  return {
    port: front.address().port,
    passed,
    rebind: closeBacks,
    close: () => {
      open = false
      closeBacks()
      front.close()
    },
  }
}
