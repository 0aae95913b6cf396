/** The `openssl` program on PATH as the foreign peer. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Version text, or undefined where there is no openssl. */
export const OPENSSL: string | undefined = (() => {
  try {
    return execFileSync('openssl', ['version']).toString().trim()
  } catch {
    return undefined
  }
})()

export const SKIPPED = OPENSSL === undefined ? ' (skipped: no openssl on PATH)' : ''

/** A folder of PEM files for command lines. */
export class Files {
  readonly folder = mkdtempSync(join(tmpdir(), 'iotchain-openssl-'))

  write(name: string, content: string | Uint8Array): string {
    const path = join(this.folder, name)
    writeFileSync(path, content)
    return path
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export interface Run {
  readonly process: ChildProcess
  /** Everything on stdout and stderr so far. */
  output(): string
  /** Resolves when the output matches; rejects with the output after 10 s or at the end. */
  until(pattern: RegExp): Promise<string>
  /** Closes its input and resolves with all output. */
  end(): Promise<string>
  kill(): void
}

export function openssl(args: string[]): Run {
  const child = spawn('openssl', args, { stdio: ['pipe', 'pipe', 'pipe'] })
  let text = ''
  let ended = false
  const watchers = new Set<() => void>()
  const changed = (): void => {
    for (const watcher of [...watchers]) watcher()
  }
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      changed()
    })
  }
  const closed = new Promise<void>((resolve) => {
    child.on('close', () => {
      ended = true
      changed()
      resolve()
    })
  })
  child.stdin.on('error', () => undefined)
  return {
    process: child,
    output: () => text,
    until: (pattern) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => settle(new Error(`no ${pattern} in:\n${text}`)), 10_000)
        const settle = (error?: Error): void => {
          clearTimeout(timer)
          watchers.delete(check)
          if (error === undefined) resolve(text)
          else reject(error)
        }
        const check = (): void => {
          if (pattern.test(text)) settle()
          else if (ended) settle(new Error(`ended without ${pattern}:\n${text}`))
        }
        watchers.add(check)
        check()
      }),
    end: async () => {
      child.stdin.end()
      await closed
      return text
    },
    kill: () => child.kill('SIGKILL'),
  }
}
