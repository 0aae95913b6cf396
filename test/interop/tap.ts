/**
 * A transport that writes down what crosses it. It reads messages with a decoder of its own (RFC 7252 §3), so that the
 * suite does not judge our engine by our engine.
 */
import type { DatagramTransport, Peer } from '../../transport/coap/transport.ts'

export interface Seen {
  readonly atMs: number
  readonly direction: 'in' | 'out'
  readonly type: 'CON' | 'NON' | 'ACK' | 'RST'
  /** `2.05`, `0.01` for GET, `0.00` for an empty message */
  readonly code: string
  readonly messageId: number
  /** Hex. */
  readonly token: string
  readonly options: readonly { readonly number: number; readonly value: Buffer }[]
  readonly payloadOctets: number
  readonly octets: number
}

export const Option = { etag: 4, observe: 6, uriPath: 11, block2: 23, block1: 27 } as const

function extended(datagram: Buffer, at: number, nibble: number): [value: number, next: number] {
  if (nibble === 13) return [datagram.readUInt8(at) + 13, at + 1]
  if (nibble === 14) return [datagram.readUInt16BE(at) + 269, at + 2]
  return [nibble, at]
}

export function read(datagram: Buffer, direction: 'in' | 'out', atMs: number): Seen | undefined {
  try {
    const first = datagram.readUInt8(0)
    if (first >> 6 !== 1) return undefined
    const code = datagram.readUInt8(1)
    const tokenEnd = 4 + (first & 15)
    const options: { number: number; value: Buffer }[] = []
    let at = tokenEnd
    let number = 0
    while (at < datagram.length && datagram[at] !== 0xff) {
      const head = datagram.readUInt8(at)
      let delta: number
      let length: number
      ;[delta, at] = extended(datagram, at + 1, head >> 4)
      ;[length, at] = extended(datagram, at, head & 15)
      number += delta
      options.push({ number, value: datagram.subarray(at, at + length) })
      at += length
    }
    return {
      atMs,
      direction,
      type: (['CON', 'NON', 'ACK', 'RST'] as const)[(first >> 4) & 3]!,
      code: `${code >> 5}.${String(code & 31).padStart(2, '0')}`,
      messageId: datagram.readUInt16BE(2),
      token: datagram.toString('hex', 4, tokenEnd),
      options,
      payloadOctets: Math.max(0, datagram.length - at - 1),
      octets: datagram.length,
    }
  } catch {
    return undefined
  }
}

export function optionOf(seen: Seen, number: number): Buffer | undefined {
  return seen.options.find((option) => option.number === number)?.value
}

export function uintOf(value: Buffer | undefined): number | undefined {
  if (value === undefined) return undefined
  return value.length === 0 ? 0 : value.readUIntBE(0, value.length)
}

/** One message as people read it: `  123.4 > CON 0.01 #1a2b t=00ff 6:, 11:6f6273`. */
export function lineOf({ atMs, direction, type, code, messageId, token, options, payloadOctets }: Seen): string {
  const listed = options.map(({ number, value }) => `${number}:${value.toString('hex')}`).join(' ')
  const arrow = direction === 'in' ? '<' : '>'
  return `${atMs.toFixed(1).padStart(9)} ${arrow} ${type} ${code} #${messageId.toString(16)} t=${token} ${listed} +${payloadOctets}`
}

export class Tap implements DatagramTransport {
  onmessage: DatagramTransport['onmessage']
  readonly seen: Seen[] = []
  /** What DTLS knew of the last peer when its datagram came; undefined on plain CoAP. */
  secure: { readonly authorized: boolean; readonly names: string | undefined } | undefined
  readonly #inner: DatagramTransport

  constructor(inner: DatagramTransport) {
    this.#inner = inner
    inner.onmessage = (datagram, peer, multicast) => {
      this.#note(datagram, 'in')
      if (peer.secure !== undefined) {
        this.secure = { authorized: peer.secure.authorized, names: peer.secure.certificate?.subjectAltName }
      }
      this.onmessage?.(datagram, peer, multicast)
    }
    inner.onpeergone = (peer) => this.onpeergone?.(peer)
    inner.onunreachable = (peer, cause) => this.onunreachable?.(peer, cause)
  }

  onpeergone: ((peer: Peer) => void) | undefined
  onunreachable: ((peer: Peer | undefined, cause: Error) => void) | undefined

  #note(datagram: Uint8Array, direction: 'in' | 'out'): void {
    const copy = Buffer.from(datagram)
    const seen = read(copy, direction, performance.now())
    if (seen !== undefined) this.seen.push(seen)
  }

  send(datagram: Uint8Array, peer: Peer): void {
    this.#note(datagram, 'out')
    this.#inner.send(datagram, peer)
  }

  close(): Promise<void> {
    return this.#inner.close()
  }

  get address(): DatagramTransport['address'] {
    return this.#inner.address
  }
}
