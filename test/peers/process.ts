/** One foreign program at work: lines in, JSON lines out, and an end that is certain. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import type { CoapPeer } from './coap-peers.ts'
import {
  type CoapDriver,
  commandLine,
  type ObserveCommand,
  type ObserveOutcome,
  type Outcome,
  type RequestCommand,
} from './protocol.ts'

export class PeerProcess {
  readonly child: ChildProcess
  /** The last 4 000 characters of standard error. */
  stderr = ''
  /** Everything on standard output, at most 64 000 characters. */
  stdout = ''
  readonly exited: Promise<number | null>
  #lines: string[] = []
  #waiting: ((line: string | undefined) => void) | undefined
  #over = false

  constructor(command: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}) {
    const [program, ...args] = command
    this.child = spawn(program!, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
    })
    this.child.stdin?.on('error', () => {})
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-4000)
    })
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      this.stdout = `${this.stdout}${line}\n`.slice(-64_000)
      this.#hand(line)
    })
    this.exited = new Promise((resolve) => {
      this.child.on('error', (error) => {
        this.stderr += error.message
        this.#end()
        resolve(null)
      })
      this.child.on('close', (code) => {
        this.#end()
        resolve(code)
      })
    })
  }

  #hand(line: string): void {
    if (this.#waiting === undefined) {
      this.#lines.push(line)
      if (this.#lines.length > 1000) this.#lines.shift()
      return
    }
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting(line)
  }

  #end(): void {
    this.#over = true
    this.#waiting?.(undefined)
    this.#waiting = undefined
  }

  /** The next line of standard output; undefined when there is none in time. */
  async line(timeoutMs: number): Promise<string | undefined> {
    const ready = this.#lines.shift()
    if (ready !== undefined || this.#over) return ready
    return await new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting = undefined
        resolve(undefined)
      }, timeoutMs)
      this.#waiting = (line) => {
        clearTimeout(timer)
        resolve(line)
      }
    })
  }

  write(text: string): void {
    this.child.stdin?.write(text)
  }

  /** Waits until standard output or standard error shows `pattern`. */
  async shows(pattern: RegExp, timeoutMs: number): Promise<boolean> {
    const end = performance.now() + timeoutMs
    while (performance.now() < end) {
      if (pattern.test(this.stdout) || pattern.test(this.stderr)) return true
      if (this.#over) return false
      await delay(20)
    }
    return false
  }

  /** Ends its input, then the program. */
  async stop(): Promise<void> {
    this.child.stdin?.end()
    const gentle = await Promise.race([this.exited.then(() => true), delay(300, false, { ref: false })])
    if (!gentle) {
      this.child.kill('SIGTERM')
      const ended = await Promise.race([this.exited.then(() => true), delay(2000, false, { ref: false })])
      if (!ended) this.child.kill('SIGKILL')
    }
    await this.exited
  }
}

/** A UDP port on `host` that was free a moment ago, for programs that cannot take port 0. */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
  await new Promise<void>((resolve, reject) => {
    socket.on('error', reject)
    socket.bind(0, host, () => resolve())
  })
  const { port } = socket.address()
  await new Promise<void>((resolve) => socket.close(() => resolve()))
  return port
}

/** Starts a peer's server. @throws Error with what it said when it does not come up in 20 s */
export async function startCoapServer(peer: CoapPeer, host: string): Promise<{ process: PeerProcess; port: number }> {
  const port = await freePort(host)
  const process = new PeerProcess([...peer.command, 'server', host, String(port)])
  const line = await process.line(20_000)
  if (line === undefined || !line.includes('"ready"')) {
    await process.stop()
    throw new Error(`${peer.name} server did not start: ${process.stderr.trim() || line || 'it said nothing'}`)
  }
  return { process, port }
}

/** A peer's client as a driver. */
export class PeerClient implements CoapDriver {
  readonly #process: PeerProcess
  #nextId = 1

  constructor(peer: CoapPeer, host: string, port: number) {
    this.#process = new PeerProcess([...peer.command, 'client', host, String(port)])
  }

  async #ask(op: 'request' | 'observe', command: RequestCommand | ObserveCommand): Promise<Outcome & ObserveOutcome> {
    const id = this.#nextId++
    this.#process.write(commandLine(op, id, command))
    for (;;) {
      const line = await this.#process.line(20_000)
      if (line === undefined) return { error: `the client program ended: ${this.#process.stderr.trim().slice(-200)}` }
      try {
        const result = JSON.parse(line) as Outcome & ObserveOutcome & { id?: number }
        if (result.id === id) return result
      } catch {
        // not a result: a library that prints
      }
    }
  }

  request(command: RequestCommand): Promise<Outcome> {
    return this.#ask('request', command)
  }

  observe(command: ObserveCommand): Promise<ObserveOutcome> {
    return this.#ask('observe', command)
  }

  close(): Promise<void> {
    return this.#process.stop()
  }
}
