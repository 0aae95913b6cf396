#!/usr/bin/env node
// @ts-check
// Runs slither over contracts/ and compares its findings with those answered in docs/contracts.md. slither is taken from
// PATH or installed from PyPI into the cache of foreign programs; where neither is possible it says "skipped" and why.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { homedir, tmpdir } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const VERSION = '0.11.6'
const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..')

/** @param {string} command @param {string[]} args @param {import('node:child_process').SpawnSyncOptions} [options] */
const run = (command, args, options = {}) =>
  spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024, ...options })

function findSlither() {
  if (run('slither', ['--version']).status === 0) return 'slither'
  const cache = process.env['IOTCHAIN_PEERS'] || join(homedir(), '.cache', 'iotchain-peers')
  const environment = join(cache, `slither-${VERSION}`)
  const slither = join(environment, 'bin', 'slither')
  if (existsSync(slither)) return slither
  if (run('python3', ['-m', 'venv', '--clear', environment]).status !== 0) return undefined
  const installed = run(join(environment, 'bin', 'pip'), ['install', '--quiet', `slither-analyzer==${VERSION}`])
  return installed.status === 0 ? slither : undefined
}

/** Rows `| detector | contract, contract | answer |` below the heading "slither". */
function answered() {
  const text = readFileSync(join(ROOT, 'docs/contracts.md'), 'utf8').split('\n## slither\n')[1] ?? ''
  /** @type {Map<string, Set<string>>} */
  const rows = new Map()
  for (const [, detector, where] of text.matchAll(/^\| ([a-z0-9-]+) \| ([^|]+) \|/gm)) {
    if (detector !== 'detector')
      rows.set(
        String(detector),
        new Set(
          String(where)
            .split(',')
            .map((c) => c.trim()),
        ),
      )
  }
  return rows
}

/** slither wants `forge` on PATH and a tree of its own to build in. @param {string} slither @param {string} folder */
function analyse(slither, folder) {
  const cpu = process.arch === 'x64' ? 'amd64' : process.arch
  const forge = createRequire(import.meta.url).resolve(`@foundry-rs/forge-${process.platform}-${cpu}/package.json`)
  mkdirSync(join(folder, 'bin'))
  symlinkSync(join(dirname(forge), 'bin', 'forge'), join(folder, 'bin', 'forge'))
  mkdirSync(join(folder, 'tools'))
  cpSync(join(ROOT, 'tools/solc.mjs'), join(folder, 'tools/solc.mjs'))
  cpSync(join(ROOT, 'foundry.toml'), join(folder, 'foundry.toml'))
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  cpSync(join(ROOT, 'contracts'), join(folder, 'contracts'), {
    recursive: true,
    filter: (path) => !/contracts\/(test|out|cache)$/.test(path),
  })
  const report = join(folder, 'report.json')
  const args = ['.', '--foundry-out-directory', 'contracts/out', '--filter-paths', 'node_modules', '--json', report]
  const path = [join(folder, 'bin'), dirname(slither), process.env['PATH'] ?? ''].join(delimiter)
  const result = run(slither, args, { cwd: folder, env: { ...process.env, PATH: path } })
  if (!existsSync(report)) throw new Error(`slither wrote no report:\n${result.stdout}${result.stderr}`.slice(-2000))
  return JSON.parse(readFileSync(report, 'utf8'))
}

/** The contract that a finding is about. @param {any} finding */
function contractOf(finding) {
  const [first] = finding.elements
  const parent = first?.type === 'contract' ? first : (first?.type_specific_fields?.parent ?? first)
  const owner = parent?.type === 'contract' ? parent : (parent?.type_specific_fields?.parent ?? parent)
  return String(owner?.name ?? 'unknown')
}

const slither = findSlither()
if (slither === undefined) {
  console.log(`skipped: slither ${VERSION} is neither on PATH nor to be had from PyPI`)
} else {
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-slither-'))
  try {
    const report = analyse(slither, folder)
    if (report.success !== true) throw new Error(`slither failed: ${report.error}`)
    const findings = report.results.detectors ?? []
    const rows = answered()
    const open = findings.filter((/** @type {any} */ f) => !rows.get(f.check)?.has(contractOf(f)))
    console.log(`${findings.length} findings, ${open.length} not answered in docs/contracts.md`)
    for (const f of open) console.log(`  ${f.check} in ${contractOf(f)}: ${f.description.split('\n')[0]}`)
    if (findings.length === 0) console.log('  (none at all: is the report what it should be?)')
    if (open.length > 0 || findings.length === 0) process.exitCode = 1
    if (process.env['IOTCHAIN_KEEP_REPORT']) writeFileSync(process.env['IOTCHAIN_KEEP_REPORT'], JSON.stringify(report))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
