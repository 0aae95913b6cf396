/**
 * npm run test:arm64: builds the binding for a 64-bit Pi with Debian's cross compiler and lets it shake hands under
 * qemu on an arm64 Node from npm. What is missing is installed as for the interop suite, or skipped with the reason.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nodeRuntime } from '../../../tools/package/node-runtime.ts'
import { cacheFolder, debianCommand, PeerMissing, packageRoot } from '../../peers/install.ts'

const SYSROOT = '/usr/aarch64-linux-gnu'
const root = packageRoot()

try {
  const compiler = await debianCommand('aarch64-linux-gnu-gcc', ['gcc-aarch64-linux-gnu', 'libc6-dev-arm64-cross'])
  const qemu = await debianCommand('qemu-aarch64', ['qemu-user', 'libstdc++6-arm64-cross'])
  const node = await arm64Node()
  await inCopy((copy) => {
    const out = join(copy, 'native', 'build', 'dtls.node')
    step('cross build', process.execPath, [
      join(copy, 'tools', 'build-dtls.mjs'),
      ...['--force', '--cc', compiler, '--include', join(node, 'include', 'node'), '--out', out],
    ])
    step('handshakes under qemu', qemu, [
      ...['-L', SYSROOT, join(node, 'bin', 'node')],
      ...[join(copy, 'dist', 'test', 'transport', 'dtls', 'fuzz-main.js'), '--associations', '200'],
    ])
  })
  console.log('passed: the arm64 binding shakes hands')
} catch (error) {
  if (!(error instanceof PeerMissing)) throw error
  console.log(`skipped: ${error.message}`)
}

/** Folder of an arm64 Node with its headers, in the cache of foreign programs. */
async function arm64Node(): Promise<string> {
  return nodeRuntime('arm64', cacheFolder()).catch((error: Error) => {
    throw new PeerMissing(`there is no arm64 Node: ${error.message.split('\n')[0]}`)
  })
}

/** Works in a copy, so that the binding of this machine stays where it is. */
async function inCopy(work: (copy: string) => void): Promise<void> {
  const copy = mkdtempSync(join(tmpdir(), 'iotchain-arm64-'))
  try {
    for (const name of ['native', 'tools', 'dist', 'package.json']) {
      cpSync(join(root, name), join(copy, name), { recursive: true, filter: (path) => !path.endsWith('native/build') })
    }
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
    work(copy)
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

function step(what: string, command: string, args: string[]): void {
  console.log(what)
  const result = spawnSync(command, args, { stdio: 'inherit' })
  if (result.status === 0) return
  console.error(`failed: ${what} ended with ${result.status ?? result.signal}`)
  process.exit(1)
}
