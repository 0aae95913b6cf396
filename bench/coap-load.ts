/** Asks a server for one resource again and again, a fixed number of requests in flight. */
import { createSocket, type Socket } from 'node:dgram'

export interface LoadResult {
  readonly requests: number
  /** Not answered within the patience, and asked again. */
  readonly lost: number
  readonly seconds: number
}

/** Longer than any server needs, shorter than a person notices. */
const PATIENCE_MS = 1000

export class LoadGenerator {
  readonly #socket: Socket
  readonly #port: number
  readonly #template: Buffer
  readonly #pending = new Uint8Array(0x10000)
  #messageId = 1
  #onAnswer: () => void = () => {}

  private constructor(socket: Socket, port: number, path: string, code: number) {
    this.#socket = socket
    this.#port = port
    // CON, token of 4 octets, Uri-Path
    this.#template = Buffer.from([0x44, code, 0, 0, 0, 0, 0, 0, 0xb0 + path.length, ...Buffer.from(path)])
    socket.on('message', (datagram) => {
      const messageId = datagram.readUInt16BE(2)
      if (this.#pending[messageId] !== 1) return
      this.#pending[messageId] = 0
      this.#onAnswer()
    })
  }

  static async open(port: number, path: string, code = 1): Promise<LoadGenerator> {
    const socket = createSocket({
      type: 'udp4',
      recvBufferSize: 1024 * 1024,
      lookup: (address, _options, callback) => callback(null, address, 4),
    })
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', () => resolve()))
    return new LoadGenerator(socket, port, path, code)
  }

  /** @param window requests in flight */
  async run(requests: number, window: number): Promise<LoadResult> {
    let sent = 0
    let answered = 0
    let lost = 0
    let progress = 0
    const start = performance.now()
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        if (answered === progress && sent > answered) {
          // what is still pending is lost
          const missing = sent - answered
          lost += missing
          this.#pending.fill(0)
          for (let i = 0; i < missing; i++) this.#send()
        }
        progress = answered
      }, PATIENCE_MS)
      this.#onAnswer = () => {
        answered++
        if (sent < requests) {
          sent++
          this.#send()
        } else if (answered === requests) {
          clearInterval(timer)
          resolve()
        }
      }
      for (; sent < Math.min(window, requests); sent++) this.#send()
    })
    return { requests, lost, seconds: (performance.now() - start) / 1000 }
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()))
  }

  #send(): void {
    const id = this.#messageId
    this.#messageId = (id + 1) & 0xffff
    this.#pending[id] = 1
    const datagram = Buffer.from(this.#template)
    datagram.writeUInt16BE(id, 2)
    datagram.writeUInt32BE(Math.imul(id, 0x9e3779b1) >>> 0, 4)
    this.#socket.send(datagram, this.#port, '127.0.0.1')
  }
}
