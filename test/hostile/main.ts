/**
 * `npm run test:hostile [-- --verbose] [--target NAME] [--attack PART-OF-TITLE]`: the daemons in one network namespace,
 * the attackers in another, made here and removed again. Ends with `N passed, N failed, N skipped`. Needs root and
 * Linux; without them: skipped, and why.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { inside, makeNamespaces, type Namespaces, whyNot } from './namespaces.ts'

function skip(why: string): never {
  process.stdout.write(`skipped: ${why}\n0 passed, 0 failed, 1 skipped\n`)
  process.exit(0)
}

const reason = whyNot()
if (reason !== undefined) skip(reason)
let namespaces: Namespaces
try {
  namespaces = makeNamespaces()
} catch (error) {
  skip((error as Error).message)
}
const [command, ...args] = inside(namespaces.server, [
  process.execPath,
  join(import.meta.dirname, 'siege.js'),
  namespaces.outside,
  ...process.argv.slice(2),
])
const child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit'] })
// the siege stops its daemons by itself; a second signal would only be in its way
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
child.on('close', (code) => {
  namespaces.remove()
  process.exit(code ?? 1)
})
