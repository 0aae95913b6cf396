// @ts-check
// What the commands of every development network share: the folder with its state, three nodes with their roles, an
// `up` that leaves nothing behind when it fails, and a command line of one word.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { startNothingMore, stop } from './processes.mjs'

/** `a` and `b` are the authorization servers, `k` is the key server's node (the paper's Fig. 3). */
export const NODES = /** @type {const} */ (['a', 'b', 'k'])
export const CHAIN_ID = 20180415

/** @typedef {'a' | 'b' | 'k'} Name */
/** @typedef {{graceMs?: number}} StopOptions */

/** @param {string} text */
export const say = (text) => process.stderr.write(`${text}\n`)

/** @param {Name} name */
export const roleOf = (name) => (name === 'k' ? 'key server' : 'authorization server')

/** @param {number | undefined} n */
export const number = (n) => (n === undefined ? '-' : String(n))

/** @template T @param {Promise<T>} work @returns {Promise<T | undefined>} */
export const orNothing = (work) => work.catch(() => undefined)

/** @template State */
export class Frame {
  /** @param {string} kind names the default folder */
  constructor(kind) {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { folder: { type: 'string' }, json: { type: 'boolean', default: false } },
    })
    const stateHome = process.env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state')
    this.folder = resolve(values.folder ?? join(stateHome, `iotchain-${kind}`))
    this.stateFile = join(this.folder, 'network.json')
    this.json = values.json
    this.words = positionals
  }

  /** @returns {State} */
  read() {
    if (!existsSync(this.stateFile)) throw new Error(`there is no network in ${this.folder}: bring one up first`)
    return JSON.parse(readFileSync(this.stateFile, 'utf8'))
  }

  /** @param {State} state */
  write(state) {
    writeFileSync(this.stateFile, JSON.stringify(state, null, 2), { mode: 0o600 })
  }

  /**
   * Begins a network in an empty folder. If it does not come up, what was started is stopped and what was written removed.
   * @param {() => Promise<void>} work
   */
  async raise(work) {
    if (existsSync(this.folder) && readdirSync(this.folder).length > 0) {
      throw new Error(
        existsSync(this.stateFile)
          ? `there is a network in ${this.folder}: start its nodes, or take it down first`
          : `${this.folder} holds something else: name an empty folder with --folder`,
      )
    }
    mkdirSync(this.folder, { recursive: true, mode: 0o700 })
    let interrupted = () => {}
    const cut = new Promise((_, reject) => {
      interrupted = () => reject(new Error('interrupted'))
    })
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, interrupted)
    try {
      await Promise.race([work(), cut])
    } catch (error) {
      say('the network did not come up: what was started is stopped again')
      startNothingMore()
      await this.clear()
      throw error
    }
  }

  /** Ends every program that was started in the folder, and removes it. */
  async clear() {
    const programs = readdirSync(this.folder).flatMap((file) => /^(.+)\.pid$/.exec(file)?.[1] ?? [])
    await Promise.all(programs.map((name) => this.stop(name)))
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** @param {string} program */
  stop(program) {
    // Lodestar does not heed SIGINT, and takes its time over SIGTERM
    return stop(this.folder, program, program.startsWith('beacon-') ? { graceMs: 3_000 } : {})
  }

  async down() {
    this.read()
    await this.clear()
    say('the network is down and its data removed')
  }

  /** @template {object} S @param {S} status @param {(status: S) => string[]} lines */
  report(status, lines) {
    process.stdout.write(this.json ? `${JSON.stringify(status)}\n` : `${lines(status).join('\n')}\n`)
  }

  /** @returns {Name} */
  get node() {
    const name = NODES.find((n) => n === this.words[1])
    if (name === undefined) throw new Error('name a node: a, b or k')
    return name
  }

  /** @param {Record<string, () => Promise<void>>} commands */
  async run(commands) {
    try {
      const command = Object.hasOwn(commands, this.words[0] ?? '') ? commands[this.words[0] ?? ''] : undefined
      if (command === undefined) throw new Error(`what to do? ${Object.keys(commands).join(', ')}`)
      await command()
    } catch (error) {
      say(`error: ${error instanceof Error ? error.message : String(error)}`)
      // not later: what still waits for a program has nothing to wait for any more
      process.exit(1)
    }
  }
}
