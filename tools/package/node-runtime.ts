/** Nodes from the npm packages node-linux-<cpu>, binary and headers, kept in the peer cache. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The private Node of the Debian packages. */
export const NODE_VERSION = '24.21.0'

/** Debian's architecture names → npm's. */
export const CPU = { amd64: 'x64', arm64: 'arm64' } as const
export type Arch = keyof typeof CPU

/** @returns the folder with `bin/node` and `include/node` */
export async function nodeRuntime(arch: Arch, cache: string, version = NODE_VERSION): Promise<string> {
  const folder = join(cache, `node-${version}-${arch}`)
  if (existsSync(join(folder, 'bin/node'))) return folder
  const work = `${folder}.partial`
  await rm(work, { recursive: true, force: true })
  await mkdir(work, { recursive: true })
  const { stdout } = await run('npm', ['pack', '--silent', `node-linux-${CPU[arch]}@${version}`], { cwd: work })
  await run('tar', ['-xzf', stdout.trim().split('\n').at(-1) as string, '--strip-components=1'], { cwd: work })
  await rm(folder, { recursive: true, force: true })
  await rename(work, folder)
  return folder
}
