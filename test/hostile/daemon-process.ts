/** One daemon under attack: whether it lives, how much memory it has, how much it logs. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { packageRoot } from '../peers/install.ts'
import { PeerProcess } from '../peers/process.ts'

export class DaemonProcess {
  readonly name: string
  readonly #process: PeerProcess
  readonly #probe: string
  #lines = 0
  #bytes = 0
  readonly #samples = new Map<string, number>()

  private constructor(name: string, process: PeerProcess, probe: string) {
    this.name = name
    this.#probe = probe
    this.#process = process
    process.child.stdout?.on('data', (chunk: Buffer) => this.#count(chunk))
    process.child.stderr?.on('data', (chunk: Buffer | string) => this.#count(Buffer.from(chunk)))
  }

  /**
   * Starts `dist/bin/<name>.js run --config F` and waits until it says that it is ready.
   * @param where makes of the command line one that runs somewhere else
   */
  static async start(
    name: string,
    config: string,
    where: (command: readonly string[]) => readonly string[] = (command) => command,
  ): Promise<DaemonProcess> {
    const program = join(packageRoot(), 'dist', 'bin', `${name}.js`)
    const command = where([process.execPath, program, 'run', '--config', config])
    return await DaemonProcess.#started(name, command, /"msg":"ready"/)
  }

  /** Starts a program of this folder. */
  static async program(name: string, args: readonly string[]): Promise<DaemonProcess> {
    const program = join(import.meta.dirname, `${name}.js`)
    return await DaemonProcess.#started(name, [process.execPath, program, ...args], /ready/)
  }

  static async #started(name: string, command: readonly string[], ready: RegExp): Promise<DaemonProcess> {
    const probe = join(mkdtempSync(join(tmpdir(), 'iotchain-memory-')), 'alive')
    const options = `--import=${pathToFileURL(join(import.meta.dirname, 'memory-probe.js')).href}`
    const child = new PeerProcess(command, {
      env: { NODE_ENV: 'production', NODE_OPTIONS: options, IOTCHAIN_MEMORY_PROBE: probe },
    })
    const daemon = new DaemonProcess(name, child, probe)
    if (!(await child.shows(ready, 30_000))) {
      await child.stop()
      throw new Error(
        `${name} was not ready: ${(child.stdout + child.stderr).trim().split('\n').slice(-4).join(' | ')}`,
      )
    }
    return daemon
  }

  #count(chunk: Buffer): void {
    this.#bytes += chunk.length
    for (const line of chunk.toString().split('\n')) {
      if (line === '') continue
      this.#lines++
      const what = /"msg":"([^"]*)"/.exec(line)?.[1] ?? line.slice(0, 60)
      if (this.#samples.size < 100) this.#samples.set(what, (this.#samples.get(what) ?? 0) + 1)
    }
  }

  /** The number that a program of this folder said after "ready". */
  get port(): number {
    return Number(/^ready (\d+)$/m.exec(this.#process.stdout)?.[1])
  }

  get pid(): number {
    return this.#process.child.pid ?? 0
  }

  get alive(): boolean {
    return this.#process.child.exitCode === null && this.#process.child.signalCode === null
  }

  /** Log lines so far. */
  get lines(): number {
    return this.#lines
  }

  /** The message that was logged most. */
  get mostLogged(): string {
    const [first] = [...this.#samples].sort((a, b) => b[1] - a[1])
    return first === undefined ? '' : `${first[1]} × ${first[0]}`
  }

  get lastWords(): string {
    return (this.#process.stderr + this.#process.stdout).trim().split('\n').slice(-3).join(' | ').slice(-600)
  }

  /** Resident memory, MiB. */
  rss(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, 'latin1')
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024
  }

  /** What is alive after a garbage collection, on the heap of V8 and outside, MiB. @throws Error when it does not tell */
  async keeps(): Promise<number> {
    rmSync(this.#probe, { force: true })
    process.kill(this.pid, 'SIGUSR2')
    for (let i = 0; i < 200; i++) {
      await delay(100)
      if (existsSync(this.#probe)) return Number(readFileSync(this.#probe, 'latin1')) / 2 ** 20
    }
    throw new Error(`${this.name} does not tell its memory`)
  }

  async stop(): Promise<void> {
    await this.#process.stop()
    rmSync(dirname(this.#probe), { recursive: true, force: true })
  }
}
