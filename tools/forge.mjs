#!/usr/bin/env node
// @ts-check
// Runs forge's native binary as npm installed it (its install script is not needed).
//   node tools/forge.mjs test …        any forge command
//   node tools/forge.mjs covered       fails unless every line and branch of our own contracts is covered
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..')

function forgeBinary() {
  const cpu = process.arch === 'x64' ? 'amd64' : process.arch
  const name = `@foundry-rs/forge-${process.platform}-${cpu}`
  const folder = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
  return join(folder, 'bin', process.platform === 'win32' ? 'forge.exe' : 'forge')
}

/** @param {string[]} args @param {'inherit' | 'pipe'} output @param {Record<string, string>} env */
function forge(args, output = 'inherit', env = {}) {
  const run = spawnSync(forgeBinary(), args, {
    cwd: ROOT,
    stdio: ['ignore', output, output],
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  if (run.error) throw run.error
  return run
}

/** Lines and branches of our contracts that no test reached. @param {string} lcov */
function uncovered(lcov) {
  const missing = []
  let file = ''
  let seen = 0
  let branches = 0
  for (const line of lcov.split('\n')) {
    if (line.startsWith('SF:')) file = line.slice(3)
    if (!/^contracts\/(?!test\/)/.test(file)) continue
    const [kind, rest] = line.split(':', 2)
    const values = (rest ?? '').split(',')
    if (kind === 'DA') {
      seen++
      if (values[1] === '0') missing.push(`${file}:${values[0]}`)
    }
    if (kind === 'BRDA') {
      branches++
      if (values[3] === '0' || values[3] === '-') missing.push(`${file}:${values[0]} branch ${values[2]}`)
    }
  }
  if (seen < 300 || branches < 70) {
    throw new Error(`only ${seen} lines and ${branches} branches were measured: the report is not what it should be`)
  }
  return { missing, seen, branches }
}

const [command, ..._rest] = process.argv.slice(2)
if (command === 'covered') {
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-coverage-'))
  const file = join(folder, 'lcov.info')
  // coverage switches the optimizer off, so the bars on gas do not hold in it; in code for Paris it loses a line that
  // returns zero, in code for Shanghai it does not
  const run = forge(['coverage', '--no-match-contract', 'GasTest', '--report', 'lcov', '--report-file', file], 'pipe', {
    FOUNDRY_EVM_VERSION: 'shanghai',
  })
  if (run.status !== 0) {
    process.stderr.write(`${run.stdout}${run.stderr}`)
    process.exitCode = 1
  } else {
    const { missing, seen, branches } = uncovered(readFileSync(file, 'utf8'))
    console.log(`${seen} lines and ${branches} branches of our contracts, ${missing.length} not covered`)
    for (const place of missing) console.log(`  ${place}`)
    if (missing.length > 0) process.exitCode = 1
  }
  rmSync(folder, { recursive: true, force: true })
} else {
  const run = forge(process.argv.slice(2))
  process.exitCode = run.status ?? 1
}
