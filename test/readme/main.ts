/**
 * `npm run test:readme`: a person's path. Runs the shell blocks of README's "By hand", as they are written and in order, in
 * one shell. A block marked `<!-- test: fails -->` must end in an error of one sentence.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

const ROOT = resolve(import.meta.dirname, '..', '..', '..')
const BLOCK_LIMIT_MS = 120_000

interface Block {
  readonly title: string
  readonly script: string
  readonly fails: boolean
}

/** The ```sh blocks between the marker of the path and the next heading. */
function blocksOf(readme: string): Block[] {
  const path = readme.split('<!-- test: the person')[1]?.split(/\n## /)[0]
  if (path === undefined) throw new Error('README has no marked path')
  let title = 'preparation'
  let fails = false
  const blocks: Block[] = []
  for (const part of path.split('```')) {
    if (part.startsWith('sh\n')) {
      blocks.push({ title, script: part.slice(3), fails })
      fails = false
      continue
    }
    title = part.match(/\*\*(.+?)\*\*/)?.[1] ?? title
    if (part.includes('<!-- test: fails -->')) fails = true
  }
  return blocks
}

/** One bash that runs block after block; each ends with a line that tells its exit code. */
class Shell {
  readonly #child = spawn('bash', ['--noprofile', '--norc'], {
    cwd: ROOT,
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
  #output = ''
  #wake: (() => void) | undefined

  constructor() {
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text
        this.#wake?.()
      })
    }
  }

  async run(script: string): Promise<{ status: number; output: string }> {
    this.#output = ''
    // In the shell itself: variables and background jobs stay for the next block. Any command that fails is noticed.
    this.#child.stdin.write(`failed=0\ntrap 'failed=1' ERR\n${script}\ntrap - ERR\necho "=== status $failed"\n`)
    const until = Date.now() + BLOCK_LIMIT_MS
    for (;;) {
      const end = this.#output.match(/=== status (\d+)\n/)
      if (end !== null) return { status: Number(end[1]), output: this.#output.slice(0, end.index) }
      const left = until - Date.now()
      if (left <= 0) return { status: 124, output: `${this.#output}\n(no end within ${BLOCK_LIMIT_MS / 1000} s)` }
      await new Promise<void>((wake) => {
        const timer = setTimeout(wake, left)
        this.#wake = () => {
          clearTimeout(timer)
          wake()
        }
      })
    }
  }

  stop(): void {
    if (this.#child.pid !== undefined) process.kill(-this.#child.pid, 'SIGKILL')
  }
}

const blocks = blocksOf(readFileSync(join(ROOT, 'README.md'), 'utf8'))
const shell = new Shell()
let passed = 0
let failed = 0
const begun = Date.now()
for (const { title, script, fails } of blocks) {
  const { status, output } = await shell.run(script)
  const stack = /\n\s+at .+:\d+:\d+\)?\n/.test(output)
  const good = fails ? status === 1 && !stack : status === 0
  console.log(
    `${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${good ? 'ok    ' : 'FAILED'}  ${title}${fails ? ' (must fail)' : ''}`,
  )
  if (good && fails) console.log(`          ${output.trim().split('\n').at(-1)}`)
  if (good) passed++
  else {
    failed++
    console.log(`status ${status}\n${output.trim()}`)
    break
  }
}
shell.stop()
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 && passed > 0 ? 0 : 1)
