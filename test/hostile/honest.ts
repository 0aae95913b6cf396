/** Honest clients in the outer namespace: ours, and the unmodified coap-client and aiocoap. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { aiocoapPython, coapClient } from '../peers/coap-peers.ts'
import { peerSource } from '../peers/install.ts'
import { PeerProcess } from '../peers/process.ts'
import {
  commandLine,
  type ObserveCommand,
  type ObserveOutcome,
  type Outcome,
  type RequestCommand,
} from '../peers/protocol.ts'
import { inside, SERVER_ADDRESS } from './namespaces.ts'
import type { System, Target } from './system.ts'

export class Outside {
  readonly namespace: string
  /** What aiocoap said last when it did not get what it wanted: a code, or its own error. */
  aiocoapSaid = ''
  /** Started, each waits for its one command. */
  readonly #ready: PeerProcess[] = []

  constructor(namespace: string) {
    this.namespace = namespace
  }

  start(...args: (string | number)[]): PeerProcess {
    const program = join(import.meta.dirname, 'outside.js')
    return new PeerProcess(inside(this.namespace, [process.execPath, program, ...args.map(String)]))
  }

  /** Starts a mode that says when it is ready. @throws Error with its last words */
  async ready(...args: (string | number)[]): Promise<PeerProcess> {
    const program = this.start(...args)
    if (!(await program.shows(/"ready":true/, 20_000))) {
      await program.stop()
      throw new Error(`outside ${args[0]}: ${program.stderr.trim().split('\n').slice(-2).join(' | ')}`)
    }
    return program
  }

  /** Ends its input and gives the last line that it printed. */
  async end<T>(program: PeerProcess): Promise<T> {
    program.child.stdin?.end()
    await Promise.race([program.exited, delay(8000)])
    const last = program.stdout.trim().split('\n').at(-1) ?? '{}'
    await program.stop()
    return JSON.parse(last) as T
  }

  /** Our client's GET; undefined when it was answered with 2.05, else why not. Three tries. */
  async get(target: Target, system: System): Promise<string | undefined> {
    let last = ''
    for (let i = 0; i < 3; i++) {
      const program = this.start('get', target.port, target.readPath, ...(target.secure ? [system.caFile] : []))
      await Promise.race([program.exited, delay(12_000)])
      await program.stop()
      const line = program.stdout.trim().split('\n').at(-1)
      if (line) {
        const { code, error } = JSON.parse(line) as { code?: string; error?: string }
        if (code === '2.05') return undefined
        last = error ?? code ?? ''
      } else last = program.stderr.trim().split('\n').at(-1) ?? 'nothing'
    }
    return last
  }

  async #run(command: readonly string[], patienceMs: number): Promise<PeerProcess> {
    const program = new PeerProcess(inside(this.namespace, command))
    await Promise.race([program.exited, delay(patienceMs)])
    await program.stop()
    return program
  }

  /** Octets that `coap-client` fetched. */
  async coapClientGet(port: number, path: string, from: string): Promise<number> {
    const folder = mkdtempSync(join(tmpdir(), 'iotchain-coap-client-'))
    try {
      const file = join(folder, 'body')
      await this.#run(
        [await coapClient(), '-a', from, '-B', '8', '-o', file, `coap://${SERVER_ADDRESS}:${port}${path}`],
        12_000,
      )
      return readFileSync(file).length
    } catch {
      return 0
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }

  /** Notifications that `coap-client` heard in `seconds`. */
  async coapClientObserve(port: number, path: string, from: string, seconds: number): Promise<number> {
    const url = `coap://${SERVER_ADDRESS}:${port}${path}`
    const client = await coapClient()
    const program = await this.#run(
      [client, '-a', from, '-v', '7', '-s', String(seconds), '-B', String(seconds + 3), url],
      (seconds + 5) * 1000,
    )
    return [...`${program.stdout}\n${program.stderr}`.matchAll(/c:2\.05 .*Observe/g)].length
  }

  /** Starts aiocoap's programs for a port; Python takes seconds on a busy machine, and they are not what is tried. */
  async prepareAiocoap(port: number, count: number): Promise<void> {
    this.aiocoapSaid = ''
    for (const left of this.#ready.splice(0)) await left.stop()
    const driver = [await aiocoapPython(), peerSource('aiocoap', 'peer.py'), 'client', SERVER_ADDRESS, String(port)]
    for (let i = 0; i < count; i++) this.#ready.push(new PeerProcess(inside(this.namespace, driver)))
    for (const program of this.#ready) {
      // no number: answered with an error, and nothing is sent
      program.write('observe id=0 count=none\n')
      if ((await program.line(60_000)) === undefined) throw new Error(`aiocoap did not start: ${program.stderr.trim()}`)
    }
  }

  /** One command to aiocoap, through the program that the interop suite drives it with. */
  async #aiocoap(
    op: 'request' | 'observe',
    command: RequestCommand | ObserveCommand,
  ): Promise<Outcome & ObserveOutcome> {
    const program = this.#ready.pop()
    if (program === undefined) throw new Error('no aiocoap was prepared')
    program.write(commandLine(op, 1, command))
    const line = await program.line(15_000)
    await program.stop()
    const outcome = JSON.parse(line ?? '{"error":"nothing in 15 s"}') as Outcome & ObserveOutcome
    const refused = outcome.error ?? outcome.code ?? outcome.notifications?.find((each) => each.code !== '2.05')?.code
    if (refused !== undefined && refused !== '2.05') this.aiocoapSaid = refused
    return outcome
  }

  async aiocoapGet(path: string): Promise<number> {
    const { code, payload } = await this.#aiocoap('request', { path })
    return code === '2.05' ? (payload ?? '').length / 2 : 0
  }

  /** Representations that aiocoap heard of `count`. Its own command-line client ends an observation at once (0.4.17). */
  async aiocoapObserve(path: string, count: number): Promise<number> {
    const { notifications } = await this.#aiocoap('observe', { path, count, cancel: 'rst' })
    return notifications?.length ?? 0
  }
}
