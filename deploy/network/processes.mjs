// @ts-check
// Long-running programs of a development network: each with its log, its pid file and its ports, all in one folder, so
// that a later command finds and stops them. Nothing here is started twice, and only what was started here is stopped.
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'

/** @param {number} ms */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

let closed = false

/** From now on `start` refuses: somebody is clearing up. */
export function startNothingMore() {
  closed = true
}

/**
 * Starts a program that outlives this one.
 * @param {{folder: string, name: string, command: string, args: string[], env?: Record<string, string>}} what
 */
export function start({ folder, name, command, args, env }) {
  if (closed) throw new Error(`${name} is not started any more`)
  if (isRunning(folder, name)) throw new Error(`${name} runs already: stop it first`)
  const log = openSync(join(folder, `${name}.log`), 'a')
  const child = spawn(command, args, { detached: true, stdio: ['ignore', log, log], env: { ...process.env, ...env } })
  child.on('error', (error) => {
    throw new Error(`${name} cannot be started: ${error.message}`)
  })
  closeSync(log)
  writeFileSync(join(folder, `${name}.pid`), String(child.pid))
  child.unref()
}

/** The process, if it is there and is the one that was started here. @param {string} folder @param {string} name */
function pidOf(folder, name) {
  const file = join(folder, `${name}.pid`)
  if (!existsSync(file)) return undefined
  const pid = Number(readFileSync(file, 'utf8'))
  try {
    // a pid may have been given to another program since: ours has its folder in its arguments
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
    return line.includes(folder) ? pid : undefined
  } catch {
    return undefined
  }
}

/** @param {string} folder @param {string} name */
export function isRunning(folder, name) {
  return pidOf(folder, name) !== undefined
}

/**
 * Asks a program to end, and ends it if it does not.
 * @param {string} folder @param {string} name @param {{graceMs?: number}} [options]
 */
export async function stop(folder, name, { graceMs = 15_000 } = {}) {
  const pid = pidOf(folder, name)
  if (pid === undefined) return false
  const end = Date.now() + graceMs
  signal(pid, 'SIGTERM')
  while (pidOf(folder, name) !== undefined && Date.now() < end) await pause(50)
  if (pidOf(folder, name) !== undefined) signal(pid, 'SIGKILL')
  while (pidOf(folder, name) !== undefined) await pause(20)
  rmSync(join(folder, `${name}.pid`), { force: true })
  return true
}

/** @param {number} pid @param {NodeJS.Signals} name */
function signal(pid, name) {
  try {
    process.kill(pid, name)
  } catch {
    // it is gone already
  }
}

const PORTS = { first: 15_000, last: 31_999 }

/**
 * Ports that nobody uses now, TCP and UDP, below those that systems hand out to outgoing connections: one of these might be
 * taken by anybody before the program that gets it here listens.
 * @param {number} count @returns {Promise<number[]>}
 */
export async function freePorts(count) {
  /** @type {Set<number>} */
  const found = new Set()
  for (let tries = 0; found.size < count; tries++) {
    if (tries > 50 * count) throw new Error('there are no free ports')
    const port = randomInt(PORTS.first, PORTS.last + 1)
    if ((await isFree(port, 'tcp')) && (await isFree(port, 'udp'))) found.add(port)
  }
  return [...found]
}

/** @param {number} port @param {'tcp' | 'udp'} protocol @returns {Promise<boolean>} */
function isFree(port, protocol) {
  return new Promise((resolve) => {
    if (protocol === 'tcp') {
      const server = createServer()
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    } else {
      const socket = createSocket('udp4')
      socket.once('error', () => resolve(false))
      socket.bind(port, '127.0.0.1', () => socket.close(() => resolve(true)))
    }
  })
}

/**
 * @template T @param {string} what @param {() => Promise<T | undefined | false>} probe @param {number} ms
 * @param {() => string | undefined} [hopeless] why waiting longer makes no sense
 * @returns {Promise<T>}
 */
export async function until(what, probe, ms, hopeless = () => undefined) {
  const end = Date.now() + ms
  for (;;) {
    const found = await probe().catch(() => undefined)
    if (found !== undefined && found !== false) return found
    const why = hopeless()
    if (why !== undefined) throw new Error(why)
    if (Date.now() > end) throw new Error(`${what}: not within ${Math.round(ms / 1000)} s`)
    await pause(200)
  }
}

/** The last line that a program said. @param {string} folder @param {string} name */
export function tailOf(folder, name) {
  return (
    readFileSync(join(folder, `${name}.log`), 'utf8')
      .trim()
      .split('\n')
      .at(-1) ?? ''
  )
}

/** JSON-RPC over HTTP. @param {string} url @param {string} method @param {unknown[]} [params] */
export async function rpc(url, method, params = []) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
    signal: AbortSignal.timeout(5_000),
  })
  const { result, error } = await response.json()
  if (error) throw new Error(`${method}: ${error.message}`)
  return result
}

/** JSON-RPC over a node's socket file, where its administration is. @param {string} path @param {string} method @param {unknown[]} [params] */
export function ipc(path, method, params = []) {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path)
    let text = ''
    socket.setTimeout(5_000, () => socket.destroy(new Error(`${method}: no answer`)))
    socket.on('error', reject)
    socket.on('data', (chunk) => {
      text += chunk
      let answer
      try {
        answer = JSON.parse(text)
      } catch {
        return
      }
      socket.end()
      if (answer.error) reject(new Error(`${method}: ${answer.error.message}`))
      else resolve(answer.result)
    })
    socket.write(JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }))
  })
}
