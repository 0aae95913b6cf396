/** The demo's process tree: daemons started as a person would, and stopped whatever happens. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { join, resolve } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'

const ROOT = resolve(import.meta.dirname, '..', '..')
const BIN = join(ROOT, 'dist', 'bin')
const KEPT_LINES = 40
const STOP_MS = 6_000

export interface Running {
  readonly name: string
  readonly pid: number
  stop(): Promise<void>
}

/** Everything that was started, so that one call stops it all, last first. */
export class ProcessTree {
  readonly #running: Running[] = []
  #stopping = false

  add(running: Running): void {
    this.#running.push(running)
  }

  get names(): string[] {
    return this.#running.map((r) => r.name)
  }

  /** Starts `bin/<command>` and resolves when it logs that it is ready. @throws `demo/daemon-failed` with its last words */
  async daemon(command: string, args: readonly string[], readyWithinMs = 20_000): Promise<Running> {
    const child = spawn(process.execPath, [join(BIN, `${command}.js`), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_ENV: 'production' },
    })
    const last: string[] = []
    const running: Running = { name: command, pid: child.pid ?? 0, stop: () => terminate(child) }
    this.add(running)
    await new Promise<void>((ready, failed) => {
      const fail = (why: string): void =>
        failed(
          new IotchainError(
            'demo/daemon-failed',
            `${command} ${why}${last.length > 0 ? `:\n  ${last.slice(-6).join('\n  ')}` : ''}`,
          ),
        )
      const timer = setTimeout(() => fail(`was not ready within ${readyWithinMs / 1000} s`), readyWithinMs)
      const onLine = (line: string): void => {
        last.push(line)
        if (last.length > KEPT_LINES) last.shift()
        if (isReady(line)) {
          clearTimeout(timer)
          ready()
        }
      }
      byLine(child.stdout, onLine)
      byLine(child.stderr, onLine)
      child.once('error', (error) => fail(`could not be started (${error.message})`))
      child.once('exit', (status, signal) => {
        clearTimeout(timer)
        fail(`ended with ${signal ?? `status ${status}`}`)
        if (!this.#stopping) this.onUnexpectedEnd?.(command, last.slice(-6))
      })
    })
    return running
  }

  /** Called when a daemon that was ready ends without having been asked to. */
  onUnexpectedEnd: ((name: string, lastLines: readonly string[]) => void) | undefined

  async stop(): Promise<void> {
    this.#stopping = true
    for (const running of this.#running.splice(0).reverse()) await running.stop().catch(() => undefined)
  }
}

/** Runs `bin/<command>` to its end and gives its standard output. @throws `demo/command-failed` */
export async function runToEnd(command: string, args: readonly string[], input?: string): Promise<string> {
  const child = spawn(process.execPath, [join(BIN, `${command}.js`), ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  let out = ''
  let error = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    error += text
  })
  child.stdin.end(input ?? '')
  const status = await new Promise<number | null>((done, failed) => {
    child.once('error', failed)
    child.once('close', done)
  })
  if (status !== 0) {
    throw new IotchainError(
      'demo/command-failed',
      `${command} ${args[0] ?? ''} ended with status ${status}: ${(error || out).trim()}`,
    )
  }
  return out
}

/** UDP ports that are free on the loopback address just now. */
export async function freeUdpPorts(count: number): Promise<number[]> {
  const sockets = Array.from({ length: count }, () => createSocket('udp4'))
  const ports = await Promise.all(
    sockets.map((s) => new Promise<number>((done) => s.bind(0, '127.0.0.1', () => done(s.address().port)))),
  )
  await Promise.all(sockets.map((s) => new Promise<void>((done) => s.close(() => done()))))
  return ports
}

function isReady(line: string): boolean {
  if (!line.startsWith('{')) return false
  try {
    return (JSON.parse(line) as { msg?: unknown }).msg === 'ready'
  } catch {
    return false
  }
}

function byLine(stream: NodeJS.ReadableStream | null, onLine: (line: string) => void): void {
  let rest = ''
  stream?.setEncoding('utf8')
  stream?.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line !== '') onLine(line)
  })
}

async function terminate(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise<void>((done) => child.once('exit', () => done()))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  await ended
  clearTimeout(timer)
}
