/** One virtual machine under qemu without KVM: its console by line, its QMP monitor, and its end. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export interface MachineOptions {
  readonly program: string
  readonly args: readonly string[]
  /** a folder for the monitor's socket */
  readonly work: string
  /** every console line, terminal codes removed */
  readonly onLine?: (line: string) => void
}

export class Machine {
  readonly lines: string[] = []
  readonly #child: ChildProcess
  readonly #waiting = new Set<() => void>()
  readonly #monitorPath: string
  #monitor: Socket | undefined
  #ended = false

  constructor(options: MachineOptions) {
    this.#monitorPath = join(options.work, 'qmp.sock')
    this.#child = spawn(
      options.program,
      [
        ...options.args,
        '-display',
        'none',
        '-serial',
        'stdio',
        '-monitor',
        'none',
        '-no-reboot',
        '-qmp',
        `unix:${this.#monitorPath},server=on,wait=off`,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    let rest = ''
    const take = (text: string): void => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      for (const raw of lines) {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: terminal codes begin with ESC
        const line = raw.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '').replaceAll('\r', '')
        this.lines.push(line)
        options.onLine?.(line)
      }
      for (const wake of this.#waiting) wake()
    }
    this.#child.stdout?.setEncoding('utf8').on('data', take)
    this.#child.stderr?.setEncoding('utf8').on('data', take)
    this.#child.once('exit', () => {
      this.#ended = true
      for (const wake of this.#waiting) wake()
    })
  }

  /** Resolves with the first line (from `from` on) that matches. Rejects when the machine ends or the time is up. */
  async line(pattern: RegExp, limitMs: number, from = 0): Promise<string> {
    const until = Date.now() + limitMs
    for (let at = from; ; ) {
      for (; at < this.lines.length; at++) if (pattern.test(this.lines[at] as string)) return this.lines[at] as string
      const last = (): string => this.lines.slice(-15).join('\n')
      if (this.#ended) throw new Error(`the machine ended before ${pattern} was seen; its last lines:\n${last()}`)
      const left = until - Date.now()
      if (left <= 0) throw new Error(`${pattern} was not seen within ${limitMs / 1000} s; the last lines:\n${last()}`)
      await new Promise<void>((wake) => {
        const timer = setTimeout(done, left)
        const waiting = this.#waiting
        function done(): void {
          clearTimeout(timer)
          waiting.delete(done)
          wake()
        }
        waiting.add(done)
      })
    }
  }

  /** Presses the power button `count` times: on `-M virt` each is one pulse (1, then 0 after 100 ms) at line 3 of the PL061. */
  async pulses(count: number, gapMs = 250): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.#command('system_powerdown')
      await sleep(gapMs)
    }
  }

  /** Cuts the power: nothing in the guest can react. */
  async kill(): Promise<void> {
    if (this.#ended) return
    const exit = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exit
  }

  async #command(name: string): Promise<void> {
    this.#monitor ??= await this.#connect()
    const answered = once(this.#monitor, 'data')
    this.#monitor.write(`${JSON.stringify({ execute: name })}\n`)
    await answered
  }

  async #connect(): Promise<Socket> {
    const socket = connect(this.#monitorPath)
    await once(socket, 'data') // the greeting
    const answered = once(socket, 'data')
    socket.write('{"execute":"qmp_capabilities"}\n')
    await answered
    return socket
  }
}
