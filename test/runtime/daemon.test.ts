import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bundleProgram } from '../child-program.ts'

let program: string
let folder: string
beforeAll(async () => {
  program = await bundleProgram('test/runtime/daemon-child.ts')
  folder = mkdtempSync(join(tmpdir(), 'iotchain-daemon-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function configFile(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

function run(...args: string[]) {
  return spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' })
}

/** Starts the daemon and hands out a way to wait for a line that contains a text. */
function start(config: string): {
  child: ChildProcess
  line(text: string): Promise<void>
  output(): string
  exit: Promise<number | null>
} {
  const child = spawn(process.execPath, [program, 'run', '--config', config], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  const waiting = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (data: Buffer) => {
      output += data.toString()
      for (const w of waiting) w()
    })
  }
  const exit = new Promise<number | null>((resolve) => child.on('exit', (code) => resolve(code)))
  return {
    child,
    exit,
    output: () => output,
    line: (text) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!output.includes(text)) return
          waiting.delete(look)
          resolve()
        }
        waiting.add(look)
        look()
      }),
  }
}

describe('command line of a daemon', () => {
  test('--print-config prints a configuration that check accepts', () => {
    const printed = run('--print-config')
    expect(printed.status).toBe(0)
    expect(printed.stdout).toContain('# A word.\nword: hello')
    const checked = run('check', '--config', configFile('printed.yaml', printed.stdout))
    expect(checked.stdout).toMatch(/advice: none\n.*printed\.yaml: ok\n/)
    expect(checked.status).toBe(0)
  })

  test.each([
    ['an unknown setting', 'wrod: x\n', 'bad.yaml:1: there is no setting "wrod" here'],
    ['an address that others can reach', 'metrics: { listen: "0.0.0.0:1" }\n', 'no loopback address'],
  ])('%s is one sentence and exit code 1', (_, text, message) => {
    const { status, stderr } = run('check', '--config', configFile('bad.yaml', text))
    expect(status).toBe(1)
    expect(stderr).toContain(message)
    expect(stderr).not.toMatch(/\n\s+at /)
  })

  test.each([
    ['coded', 'iotchain-test: the clock is wrong [device/clock]\n  set the clock\n'],
    [
      'busy',
      'iotchain-test: port 5683 is in use by another process [runtime/port-busy]\n  stop the other process or configure another port\n',
    ],
  ])('a failed start (%s) is one sentence, a stop of the parts, and exit code 1', (fault, message) => {
    const { status, stderr, stdout } = run('run', '--config', configFile('fault.yaml', `fault: ${fault}\n`))
    expect(status).toBe(1)
    expect(stderr).toBe(message)
    expect(stdout).toContain('parts stopped')
  })

  test('SIGHUP reads the configuration again, a bad one is refused, SIGTERM stops cleanly', async () => {
    const path = configFile('live.yaml', 'word: one\n')
    const daemon = start(path)
    await daemon.line('"msg":"ready"')
    configFile('live.yaml', 'word: two\n')
    daemon.child.kill('SIGHUP')
    await daemon.line('"word":"two"')
    configFile('live.yaml', 'wrod: three\n')
    daemon.child.kill('SIGHUP')
    await daemon.line('the new configuration is refused')
    daemon.child.kill('SIGTERM')
    expect(await daemon.exit).toBe(0)
    expect(daemon.output()).toContain('parts stopped')
  })

  test('a promise that nobody awaited does not end the daemon', async () => {
    const daemon = start(configFile('rejection.yaml', 'fault: rejection\n'))
    await daemon.line('a fault was left unhandled')
    await daemon.line('"msg":"ready"')
    daemon.child.kill('SIGINT')
    expect(await daemon.exit).toBe(0)
  })

  test('systemd is told when its addon is there, and warned about otherwise', async () => {
    const child = spawnSync(
      process.execPath,
      [program, 'run', '--config', configFile('notify.yaml', 'fault: coded\n')],
      {
        encoding: 'utf8',
        env: { ...process.env, NOTIFY_SOCKET: '@abstract' },
      },
    )
    expect(child.stdout).toContain('unix-dgram cannot be loaded')
    expect(child.status).toBe(1)
  })
})
