#!/usr/bin/env node
// @ts-check
/**
 * `npm run test:all [-- NAME…]`: every suite one after the other, each with its output in a file; last line
 * `N passed, N failed, N skipped`. Names (`vm`, `interop`, …) choose some of them.
 */
import { spawn } from 'node:child_process'
import { createWriteStream, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(import.meta.dirname, '..')
/** How much of a suite's end is looked at and, when it fails, shown. */
const KEPT_LINES = 30

/** name → npm script, the quick ones first */
export const SUITES = /** @type {Readonly<Record<string, string>>} */ ({
  test: 'test',
  vectors: 'vectors',
  contracts: 'test:contracts',
  adversary: 'test:adversary',
  crash: 'test:crash',
  fuzz: 'test:fuzz',
  readme: 'test:readme',
  sanitize: 'test:sanitize',
  arm64: 'test:arm64',
  soak: 'test:soak',
  second: 'test:second',
  network: 'test:network',
  hostile: 'test:hostile',
  interop: 'test:interop',
  geth: 'test:geth',
  pos: 'test:pos',
  vm: 'test:vm',
  'vm:full': 'test:vm:full',
  image: 'test:image',
})

/**
 * What became of a suite. One that says `skipped: why` in place of its result has tested nothing; one that says so beside
 * a result has left a part out, and its result counts.
 * @param {number | null} status exit code; null when it was killed
 * @param {readonly string[]} lines the end of its output
 * @returns {{ result: 'passed' | 'failed' | 'skipped', says: string }}
 */
export function outcome(status, lines) {
  const said = lines.map((line) => line.trim()).filter((line) => line !== '')
  const last = said.at(-1) ?? 'said nothing'
  if (status !== 0) return { result: 'failed', says: `exit code ${status ?? 'none'}: ${last}` }
  const counts = said.findLast((line) => /\b\d+ passed\b/.test(line))
  const skipped = said.findLast((line) => line.startsWith('skipped: '))
  const nothing = counts === undefined || /(^|\D)0 passed\b/.test(counts)
  if (skipped !== undefined && nothing) return { result: 'skipped', says: skipped }
  return { result: 'passed', says: [counts ?? last, skipped].filter((part) => part !== undefined).join('; ') }
}

/**
 * @param {string} script
 * @param {string} log
 * @returns {Promise<{ status: number | null, lines: string[] }>}
 */
function run(script, log) {
  return new Promise((done) => {
    const file = createWriteStream(log)
    const env = { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' }
    const child = spawn('npm', ['run', '--silent', script], { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] })
    /** @type {string[]} */
    let lines = []
    let rest = ''
    const take = (/** @type {Buffer} */ octets) => {
      file.write(octets)
      const parts = (rest + octets.toString()).split('\n')
      rest = parts.pop() ?? ''
      lines = [...lines, ...parts].slice(-KEPT_LINES)
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    const end = (/** @type {number | null} */ status) => file.end(() => done({ status, lines: [...lines, rest] }))
    child.once('error', (error) => {
      rest = `npm cannot be started: ${error.message}`
      end(null)
    })
    child.once('close', end)
  })
}

/** @param {readonly string[]} names */
async function main(names) {
  const unknown = names.find((name) => !(name in SUITES))
  if (unknown !== undefined) {
    console.error(`test:all: there is no suite ${unknown}; there are ${Object.keys(SUITES).join(', ')}`)
    return 2
  }
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-test-all-'))
  console.log(`outputs in ${folder}`)
  const count = { passed: 0, failed: 0, skipped: 0 }
  for (const [name, script] of Object.entries(SUITES)) {
    if (names.length > 0 && !names.includes(name)) continue
    const begun = Date.now()
    const log = join(folder, `${name.replace(':', '-')}.log`)
    const { status, lines } = await run(script, log)
    const { result, says } = outcome(status, lines)
    count[result]++
    const seconds = ((Date.now() - begun) / 1000).toFixed(0)
    console.log(`${result.padEnd(8)}${name.padEnd(10)}${seconds.padStart(5)} s  ${says}`)
    if (result === 'failed') for (const line of lines) console.log(`  | ${line}`)
  }
  console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`)
  return count.failed === 0 ? 0 : 1
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = await main(process.argv.slice(2))
}
