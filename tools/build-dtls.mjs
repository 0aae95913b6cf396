#!/usr/bin/env node
// @ts-check
/**
 * Builds native/build/dtls.node from native/*.c: the DTLS binding over the OpenSSL inside Node, and UDP
 * sockets for servers on Linux. Runs at `npm install` in a few seconds, needs a C compiler and headers, downloads nothing. One
 * binary serves Node 20 and later, so an up-to-date one is left alone whichever Node runs this.
 *
 *   node tools/build-dtls.mjs [--force] [--sanitize] [--cc COMPILER] [--include FOLDER] [--out FILE]
 *
 * At `npm install` a failure is one sentence and the installation goes on: everything but coaps:// works without the
 * binding, and whatever needs it says so (`dtls/not-built`). IOTCHAIN_REQUIRE_DTLS=1 makes it fatal, as it is when
 * the script is run by hand.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values: options } = parseArgs({
  options: {
    force: { type: 'boolean', default: false },
    sanitize: { type: 'boolean', default: false },
    cc: { type: 'string' },
    include: { type: 'string' },
    out: { type: 'string' },
  },
})

const native = fileURLToPath(new URL('../native', import.meta.url))
const out = options.out ?? join(native, 'build', options.sanitize ? 'dtls-sanitize.node' : 'dtls.node')
const stamp = `${out}.json`
const compiler = options.cc ?? process.env['CC'] ?? 'cc'
const toInstall =
  process.platform === 'darwin'
    ? 'xcode-select --install && brew install openssl@3'
    : 'apt install gcc libc6-dev libssl-dev'

/** Ends the run; under `npm install` without breaking the installation. @param {string} sentence */
function giveUp(sentence) {
  console.error(`iotchain: DTLS (coaps://) is not available: ${sentence}`)
  const soft = process.env['npm_lifecycle_event'] === 'install' && process.env['IOTCHAIN_REQUIRE_DTLS'] !== '1'
  process.exit(soft ? 0 : 1)
}

/** Folders with node_api.h and openssl/ssl.h: Node's own, else Node-API's from npm with the system's OpenSSL 3. */
function includeFolders() {
  if (options.include !== undefined) return [options.include]
  const own = join(dirname(dirname(realpathSync(process.execPath))), 'include', 'node')
  if (existsSync(join(own, 'node_api.h')) && existsSync(join(own, 'openssl', 'ssl.h'))) return [own]
  /** @type {string | undefined} */
  let api = existsSync(join(own, 'node_api.h')) ? own : undefined
  if (api === undefined) {
    try {
      api = createRequire(import.meta.url)('node-api-headers').include_dir
    } catch {
      giveUp(`the headers of Node are missing; reinstall with the dependencies, or ${toInstall}`)
    }
  }
  const system = [
    '/usr/include',
    '/usr/local/include',
    '/opt/homebrew/opt/openssl@3/include',
    '/usr/local/opt/openssl@3/include',
  ]
  const openssl = system.find((folder) => existsSync(join(folder, 'openssl', 'ssl.h')))
  if (openssl === undefined) giveUp(`the headers of OpenSSL 3 are missing: ${toInstall}, then npm run build:dtls`)
  return [String(api), ...(openssl?.startsWith('/usr/include') ? [] : [String(openssl)])]
}

const sources = readdirSync(native)
  .filter((name) => /\.[ch]$/.test(name))
  .sort()
const flags = [
  ...(options.sanitize ? ['-O1', '-g', '-fno-omit-frame-pointer', '-fsanitize=address,undefined'] : ['-O2']),
  ...['-fPIC', '-shared', '-fvisibility=hidden', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Wno-cast-function-type'],
  // nodelete: Node unloads an addon with the last worker that has it; OpenSSL keeps what library.c gave it
  ...(process.platform === 'darwin'
    ? ['-undefined', 'dynamic_lookup']
    : ['-Wl,-z,lazy', '-Wl,-z,relro', '-Wl,-z,nodelete']),
]
const hash = createHash('sha256')
for (const name of sources) hash.update(name).update(readFileSync(join(native, name)))
const wanted = JSON.stringify({
  sources: hash.digest('hex'),
  flags: flags.join(' '),
  compiler: options.cc ?? 'cc',
  target: `${process.platform}-${process.arch}`,
})

if (!options.force && existsSync(out) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) process.exit(0)
if (process.platform === 'win32') giveUp('it is built on Linux and macOS only; use WSL')

const folders = includeFolders()
mkdirSync(dirname(out), { recursive: true })
rmSync(stamp, { force: true })
const partial = `${out}.${process.pid}`
const files = sources.filter((name) => name.endsWith('.c')).map((name) => join(native, name))
const run = spawnSync(compiler, [...flags, ...folders.map((f) => `-I${f}`), ...files, '-o', partial], {
  encoding: 'utf8',
})
if (run.error !== undefined) giveUp(`there is no C compiler (${compiler}): ${toInstall}, then npm run build:dtls`)
if (run.status !== 0) {
  rmSync(partial, { force: true })
  const first = run.stderr.split('\n').find((line) => /error/.test(line)) ?? run.stderr.trim()
  if (/No such file or directory|headers of OpenSSL 3 are needed|fatal error/.test(first)) {
    giveUp(`a header is missing (${first.replace(/^.*?error: /, '')}): ${toInstall}, then npm run build:dtls`)
  }
  giveUp(`${compiler} failed: ${first}`)
}
if (run.stderr !== '') console.error(run.stderr)
// Renamed into place: a process that has the old binary mapped keeps it.
renameSync(partial, out)
writeFileSync(stamp, wanted)
