/** The floods: each makes the datagrams that one attack throws at one target. */
import { below, block, type CoapShape, coap, mutate, octets, path, type Random, randomDatagram } from './datagrams.ts'
import type { Spoofed } from './raw.ts'
import type { Target } from './system.ts'

/** Without end: the attack takes as many as it needs. */
export type Flood = (target: Target, random: Random, hello: Buffer) => Iterable<Spoofed>

/** Anybody but the two addresses that are really there. */
function anyHost(random: Random): number {
  return 256 + below(random, 65_000)
}

function anyPort(random: Random): number {
  return 1 + below(random, 65_535)
}

function* times(count: number, make: (i: number) => Spoofed): Iterable<Spoofed> {
  for (let i = 0; i < count; i++) yield make(i)
}

function* endless(make: (i: number) => Spoofed): Iterable<Spoofed> {
  for (let i = 0; ; i++) yield make(i)
}

function from(random: Random, payload: Uint8Array): Spoofed {
  return { host: anyHost(random), port: anyPort(random), payload }
}

/** Messages that this target understands. */
function corpus(target: Target, hello: Buffer): Buffer[] {
  if (target.secure) {
    // a ClientHello; the same later in an association; a record of application data; an alert; a change of cipher
    const later = Buffer.from(hello)
    later.writeUInt16BE(1, 3)
    const record = (type: number, size: number): Buffer =>
      Buffer.concat([
        Buffer.of(type, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 7, size >> 8, size & 255),
        Buffer.alloc(size, 0xa5),
      ])
    return [hello, later, record(23, 60), record(21, 2), record(20, 1), record(22, 120)]
  }
  const token = Buffer.from('f00d', 'hex')
  const common = { messageId: 0x1234, token }
  const body = Buffer.alloc(200, 0x42)
  const shapes: CoapShape[] = [
    { ...common, options: path(target.readPath) },
    { ...common, type: 'NON', options: path('/.well-known/core') },
    { ...common, options: [...path('/.well-known/core'), [15, Buffer.from('rt=core.ps.gm')]] },
    { ...common, options: [[6, Buffer.alloc(0)], ...path(target.readPath)] },
    { ...common, options: [[6, Buffer.of(1)], ...path(target.readPath)] },
    { ...common, options: [[4, Buffer.from('cafe', 'hex')], ...path(target.readPath), [17, Buffer.of(18)]] },
    { ...common, options: [...path(target.readPath), [23, block(1, false, 6)]] },
    { ...common, code: 3, options: [...path(target.uploadPath), [12, Buffer.of(18)]], payload: body },
    {
      ...common,
      code: 3,
      options: [...path(target.uploadPath), [12, Buffer.of(18)], [27, block(0, true, 4)]],
      payload: body,
    },
    { ...common, code: 2, options: [...path(target.uploadPath), [12, Buffer.of(60)]], payload: body },
    { ...common, code: 5, options: [...path('/ace-group'), [12, Buffer.of(60)]], payload: Buffer.from('a0', 'hex') },
    { ...common, code: 0, token: Buffer.alloc(0) },
    { ...common, type: 'ACK', code: 69, payload: body },
    { ...common, type: 'CON', code: 69, payload: body },
    { ...common, type: 'RST', code: 0, token: Buffer.alloc(0) },
    { ...common, options: [...path(target.readPath), [252, Buffer.alloc(8, 1)]] },
  ]
  return shapes.map(coap)
}

export const randomFlood: Flood = (_target, random) => endless(() => from(random, randomDatagram(random)))

export const mutatedFlood: Flood = (target, random, hello) => {
  const messages = corpus(target, hello)
  return endless(() => {
    const message = mutate(random, messages[below(random, messages.length)]!)
    if (!target.secure && message.length > 4 && random() < 0.7) {
      // most with a message ID of their own: deduplication must not swallow them
      message.writeUInt16BE(below(random, 65_536), 2)
    }
    return from(random, message)
  })
}

export const portZeroFlood: Flood = (target, random, hello) => {
  const messages = corpus(target, hello)
  return endless((i) => ({ host: anyHost(random), port: 0, payload: messages[i % messages.length]! }))
}

export const uploadFlood: Flood = (target, random) =>
  endless((i) =>
    from(
      random,
      coap({
        code: i % 2 === 0 ? 3 : 2,
        messageId: i,
        token: octets(random, 4),
        options: [...path(target.uploadPath), [12, Buffer.of(18)], [27, block(0, true, 6)], [292, octets(random, 4)]],
        payload: Buffer.alloc(1024, i),
      }),
    ),
  )

export const observerFlood: Flood = (target, random) =>
  endless((i) =>
    from(
      random,
      coap({ messageId: i, token: octets(random, 8), options: [[6, Buffer.alloc(0)], ...path(target.readPath)] }),
    ),
  )

/** Blocks that no body has, sizes that no memory has. */
export const oversizedFlood: Flood = (target, random) =>
  endless((i) => {
    const upload = path(target.uploadPath)
    const size: readonly [number, Uint8Array] = [60, Buffer.from('ffffffff', 'hex')]
    const shapes: CoapShape[] = [
      {
        code: 3,
        messageId: i,
        options: [...upload, [12, Buffer.of(18)], [27, block(0xfffff, true, 6)]],
        payload: Buffer.alloc(1024),
      },
      {
        code: 3,
        messageId: i,
        options: [...upload, [12, Buffer.of(18)], [27, block(0, true, 7)]],
        payload: Buffer.alloc(1024),
      },
      {
        code: 3,
        messageId: i,
        options: [...upload, [12, Buffer.of(18)], [27, block(0, true, 6)], size],
        payload: Buffer.alloc(1024),
      },
      {
        code: 3,
        messageId: i,
        options: [...upload, [12, Buffer.of(18)], [27, block(0, true, 0)]],
        payload: Buffer.alloc(1300),
      },
      { code: 3, messageId: i, options: [...upload, [12, Buffer.of(18)]], payload: Buffer.alloc(1400) },
      { messageId: i, options: [...path(target.readPath), [23, block(0xfffff, false, 6)]] },
      { messageId: i, options: [...path(target.readPath), [23, block(3, false, 7)]] },
      { messageId: i, options: [...path('/x'.repeat(120)), [15, Buffer.alloc(600, 0x61)]] },
    ]
    return from(random, coap({ token: octets(random, 2), ...shapes[i % shapes.length]! }))
  })

/** Resets and acknowledgements of every number, as if from ports of a host that observes from another port. */
export function resetFlood(host: number, ports: readonly number[]): Iterable<Spoofed> {
  return times(65_536, (i) => ({
    host,
    port: ports[i % ports.length]!,
    payload: coap({ type: i % 8 === 0 ? 'ACK' : 'RST', code: 0, messageId: i }),
  }))
}

/** ClientHellos without a cookie, from everywhere. */
export const cookieFlood: Flood = (_target, random, hello) =>
  endless(() => {
    const own = Buffer.from(hello)
    octets(random, 32).copy(own, 13 + 12 + 2)
    return from(random, own)
  })

/** GETs as if from one host and a range of its ports. */
export function spoofedGets(
  target: Target,
  hello: Buffer,
  host: number,
  port: number,
  ports: number,
): Iterable<Spoofed> {
  return endless((i) => ({
    host,
    port: port + (i % ports),
    payload: target.secure
      ? hello
      : coap({ messageId: i & 0xffff, token: Buffer.of(i & 255), options: path(target.readPath) }),
  }))
}
