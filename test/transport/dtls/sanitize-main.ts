/**
 * npm run test:sanitize: builds the binding with AddressSanitizer and UndefinedBehaviorSanitizer and fuzzes it. Needs
 * gcc and its libasan; without them it says so and is skipped.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

const associations = process.env['IOTCHAIN_FUZZ_ASSOCIATIONS'] ?? '6000'
const rounds = process.env['IOTCHAIN_FUZZ_ROUNDS'] ?? '3000'
const root = projectRoot()
const file = join(root, 'native', 'build', 'dtls-sanitize.node')

const compiler = process.env['CC'] ?? 'gcc'
const libraries = ['libasan.so', 'libubsan.so'].map((name) => {
  const run = spawnSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' })
  if (run.error !== undefined) skip(`there is no C compiler (${compiler}): apt install gcc libc6-dev`)
  const path = run.stdout.trim()
  if (!path.includes('/')) skip(`${compiler} has no ${name}: apt install libgcc-12-dev or what your gcc calls it`)
  return path
})

step(
  'building with -fsanitize=address,undefined',
  [join(root, 'tools', 'build-dtls.mjs'), '--sanitize', '--cc', compiler],
  {},
)
const sanitized = {
  IOTCHAIN_DTLS_BINDING: file,
  LD_PRELOAD: libraries.join(':'),
  // Node itself keeps memory until the end; leaks of the binding show in `npm run test:soak`.
  ASAN_OPTIONS: 'detect_leaks=0:halt_on_error=1:abort_on_error=0:exitcode=77',
  UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1:exitcode=78',
}
step(
  `fuzzing ${associations} associations`,
  [join(import.meta.dirname, 'fuzz-main.js'), '--associations', associations],
  sanitized,
)
step(
  `fuzzing UDP sockets, ${rounds} rounds`,
  ['--expose-gc', join(import.meta.dirname, '..', 'udp', 'fuzz-main.js'), '--rounds', rounds],
  sanitized,
)
console.log('passed: no octet out of bounds, nothing undefined')

function step(what: string, args: string[], environment: Record<string, string>): void {
  console.log(what)
  const run = spawnSync(process.execPath, args, { stdio: 'inherit', env: { ...process.env, ...environment } })
  if (run.status !== 0) {
    console.error(`failed: ${what} ended with ${run.status ?? run.signal}`)
    process.exit(1)
  }
}

function skip(why: string): never {
  console.log(`skipped: ${why}`)
  process.exit(0)
}

function projectRoot(): string {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'tools', 'build-dtls.mjs'))) return folder
    if (folder === dirname(folder)) throw new Error('the project’s root is not above this file')
  }
}
