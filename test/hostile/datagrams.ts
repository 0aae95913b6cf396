/** What is thrown at the daemons: octets from nowhere, messages bent a little, messages that mean harm. Seeded. */

/** mulberry32: [0, 1) */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

export type Random = () => number

export function below(random: Random, limit: number): number {
  return Math.floor(random() * limit)
}

export function octets(random: Random, length: number): Buffer {
  const out = Buffer.alloc(length)
  for (let i = 0; i < length; i++) out[i] = below(random, 256)
  return out
}

/** Octets from nowhere; half of them claim to be CoAP version 1, so that more than the first check sees them. */
export function randomDatagram(random: Random): Buffer {
  const length = random() < 0.8 ? below(random, 64) : below(random, 1300)
  const out = octets(random, length)
  if (length > 0 && random() < 0.5) out[0] = 0x40 | (out[0]! & 0x3f)
  return out
}

/** One to four small injuries. */
export function mutate(random: Random, original: Buffer): Buffer {
  let out = Buffer.from(original)
  for (let n = 1 + below(random, 4); n > 0; n--) {
    const at = below(random, out.length + 1)
    switch (below(random, 6)) {
      case 0:
        if (at < out.length) out[at] = out[at]! ^ (1 << below(random, 8))
        break
      case 1:
        if (at < out.length) out[at] = [0, 0xff, 0x7f, 0x80, 0xdd, 0xee][below(random, 6)]!
        break
      case 2:
        out = out.subarray(0, at)
        break
      case 3:
        out = Buffer.concat([out.subarray(0, at), octets(random, 1 + below(random, 8)), out.subarray(at)])
        break
      case 4:
        out = Buffer.concat([out.subarray(0, at), out.subarray(Math.min(out.length, at + 1 + below(random, 8)))])
        break
      default:
        out = Buffer.concat([out, out.subarray(0, at)]).subarray(0, 1400)
    }
  }
  return out
}

export interface CoapShape {
  readonly type?: 'CON' | 'NON' | 'ACK' | 'RST'
  /** The octet; 1 is GET. */
  readonly code?: number
  readonly messageId: number
  readonly token?: Uint8Array
  /** In the order of their numbers. */
  readonly options?: readonly (readonly [number: number, value: Uint8Array])[]
  readonly payload?: Uint8Array
}

const TYPES = ['CON', 'NON', 'ACK', 'RST'] as const

function nibble(value: number): [number, Buffer] {
  if (value < 13) return [value, Buffer.alloc(0)]
  if (value < 269) return [13, Buffer.of(value - 13)]
  return [14, Buffer.of((value - 269) >> 8, (value - 269) & 255)]
}

/** A CoAP message by an encoder of its own (RFC 7252 §3), which also writes what no engine would. */
export function coap(shape: CoapShape): Buffer {
  const token = shape.token ?? new Uint8Array(0)
  const parts: Uint8Array[] = [
    Buffer.of(
      0x40 | (TYPES.indexOf(shape.type ?? 'CON') << 4) | token.length,
      shape.code ?? 1,
      (shape.messageId >> 8) & 255,
      shape.messageId & 255,
    ),
    token,
  ]
  let last = 0
  for (const [number, value] of shape.options ?? []) {
    const [delta, deltaMore] = nibble(number - last)
    const [length, lengthMore] = nibble(value.length)
    parts.push(Buffer.of((delta << 4) | length), deltaMore, lengthMore, value)
    last = number
  }
  if (shape.payload !== undefined) parts.push(Buffer.of(0xff), shape.payload)
  return Buffer.concat(parts)
}

export function path(text: string): (readonly [number, Uint8Array])[] {
  return text
    .split('/')
    .filter((segment) => segment !== '')
    .map((segment) => [11, Buffer.from(segment)] as const)
}

/** Value of a Block option. */
export function block(number: number, more: boolean, szx: number): Buffer {
  const value = (number << 4) | (more ? 8 : 0) | szx
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value >>> 0)
  let skip = 0
  while (skip < 4 && out[skip] === 0) skip++
  return out.subarray(skip)
}
