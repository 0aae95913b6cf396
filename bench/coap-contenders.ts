/** Starts the servers that the CoAP bench compares, each in its own process, and reads what they cost. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { readdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export interface Contender {
  readonly name: string
  /** The path that is asked for. */
  readonly path: string
  readonly port: number
  readonly pid: number
  stop(): void
}

const STARTUP_MS = 10_000

/** A server on Node. */
export async function startNode(name: string, kind: string, path: string): Promise<Contender> {
  const script = fileURLToPath(new URL('./coap-server.js', import.meta.url))
  const child = spawn(process.execPath, [script, kind], { stdio: ['pipe', 'pipe', 'inherit'] })
  const port = await new Promise<number>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${name} did not start`)), STARTUP_MS)
    child.once('exit', () => reject(new Error(`${name} ended at once`)))
    createInterface(child.stdout).on('line', (line) => {
      const match = /^ready (\d+)$/.exec(line)
      if (match === null) return
      clearTimeout(timer)
      resolve(Number(match[1]))
    })
  })
  return contender(name, path, port, child)
}

/** libcoap's example server without TLS, with the object put into it. @returns why not, if it cannot be had */
export async function startLibcoap(object: Uint8Array): Promise<Contender | string> {
  const port = await freePort()
  const child = spawn('coap-server-notls', ['-A', '127.0.0.1', '-p', String(port), '-d', '10', '-v', '1'], {
    stdio: 'ignore',
  })
  const failed = await new Promise<string | undefined>((resolve) => {
    child.once('error', () => resolve('coap-server-notls is not installed (Debian package libcoap3-bin)'))
    child.once('exit', (code) => resolve(`coap-server-notls ended with code ${code}`))
    putUntilTaken(port, 'sealed', object).then(
      () => resolve(undefined),
      (error: unknown) => resolve(`coap-server-notls takes no PUT: ${String(error)}`),
    )
  })
  if (failed !== undefined) {
    child.kill()
    return failed
  }
  return contender('libcoap', 'sealed', port, child)
}

function contender(name: string, path: string, port: number, child: ChildProcess): Contender {
  const stop = () => void child.kill('SIGKILL')
  process.once('exit', stop)
  return { name, path, port, pid: child.pid as number, stop }
}

/** CPU seconds of all threads of a process so far (Linux). */
export function cpuSeconds(pid: number): number {
  let nanoseconds = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0])
    } catch {
      // a thread that ended between the two calls
    }
  }
  return nanoseconds / 1e9
}

/** Resident set in octets (Linux). */
export function residentOctets(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) * 1024
}

/** Nothing says when libcoap listens: a PUT is repeated until it is answered. */
function putUntilTaken(port: number, path: string, payload: Uint8Array): Promise<void> {
  const head = [0x40, 3, 0x7f, 0x01, 0xb0 + path.length, ...Buffer.from(path), 0x11, 18, 0xff]
  const put = Buffer.concat([Buffer.from(head), payload])
  const socket = createSocket('udp4')
  return new Promise<void>((resolve, reject) => {
    let tries = 0
    const timer = setInterval(() => {
      if (++tries > 40) reject(new Error('no answer'))
      else socket.send(put, port, '127.0.0.1')
    }, 100)
    socket.on('error', () => {})
    socket.on('message', (datagram) => {
      const codeClass = (datagram[1] ?? 0) >> 5
      clearInterval(timer)
      if (codeClass === 2) resolve()
      else reject(new Error(`code class ${codeClass}`))
    })
  }).finally(() => socket.close())
}

function freePort(): Promise<number> {
  const socket = createSocket('udp4')
  return new Promise((resolve) => {
    socket.bind(0, '127.0.0.1', () => {
      const { port } = socket.address()
      socket.close(() => resolve(port))
    })
  })
}
