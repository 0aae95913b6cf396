/**
 * `npm run test:network [-- --verbose]`: multicast and discovery between hosts. Six network namespaces on two bridges
 * are made here and removed again; the daemons and `iotchain discover` run in them. Ends with
 * `N passed, N failed, N skipped`. Needs root and Linux; without them: skipped, and why.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { inside, whyNot } from '../hostile/namespaces.ts'
import { Lan } from './lan.ts'

function skip(why: string): never {
  process.stdout.write(`skipped: ${why}\n0 passed, 0 failed, 1 skipped\n`)
  process.exit(0)
}

const reason = whyNot()
if (reason !== undefined) skip(reason)
const tag = `iotn${process.pid}`
const lan = new Lan(tag)
try {
  await lan.make()
} catch (error) {
  skip((error as Error).message)
}
const scenes = [process.execPath, join(import.meta.dirname, 'scenes.js'), tag, ...process.argv.slice(2)]
const [command, ...args] = inside(lan.namespace('keyserver'), scenes)
const child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit'] })
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
child.on('close', (code) => {
  lan.remove()
  process.exit(code ?? 1)
})
