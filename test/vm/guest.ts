/** The root that an arm64 guest shares with the host: Debian's C libraries, Node, the bundled device and its folder. */

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, copyFile, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bundle } from '../../tools/package/bundle.ts'
import { nativeParts } from '../../tools/package/native-parts.ts'
import { NODE_VERSION, nodeRuntime } from '../../tools/package/node-runtime.ts'
import type { DebianSuite } from './debian.ts'

const LIBRARIES = ['libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1']
const APPLETS = ['sh', 'cat', 'ls', 'echo', 'sleep', 'mkdir', 'kill']

export interface GuestOptions {
  readonly root: string
  readonly cache: string
  readonly suite: DebianSuite
  readonly busybox: string
}

/** @returns the folder to share; made anew in each run but for what is costly */
export async function guestRoot({ root, cache, suite, busybox }: GuestOptions): Promise<string> {
  const guest = await suite.unpack('guest-arm64', LIBRARIES)
  for (const folder of ['proc', 'sys', 'dev', 'tmp', 'bin', 'app', 'conf'])
    await mkdir(join(guest, folder), { recursive: true })
  if (!existsSync(join(guest, 'lib'))) await symlink('usr/lib', join(guest, 'lib'))
  await copyFile(busybox, join(guest, 'bin/busybox'))
  await chmod(join(guest, 'bin/busybox'), 0o755)
  for (const applet of APPLETS) {
    await rm(join(guest, 'bin', applet), { force: true })
    await symlink('busybox', join(guest, 'bin', applet))
  }
  const node = await nodeRuntime('arm64', cache)
  const mark = join(guest, 'app/.made')
  const wanted = await fingerprint(root)
  if ((await readFile(mark, 'utf8').catch(() => '')) !== wanted) {
    await rm(join(guest, 'app'), { recursive: true, force: true })
    await mkdir(join(guest, 'app'))
    await nativeParts({ root, arch: 'arm64', node, out: join(guest, 'app') })
    await cp(join(node, 'bin/node'), join(guest, 'app/node'))
    await writeFile(mark, wanted)
  }
  await rm(join(guest, 'app/iotchain-device'), { recursive: true, force: true })
  await bundle({ root, commands: ['iotchain-device'], out: join(guest, 'app/iotchain-device') })
  return guest
}

/** Changes with the native sources, the lockfile and Node. */
async function fingerprint(root: string): Promise<string> {
  const hash = createHash('sha256').update(NODE_VERSION)
  hash.update(await readFile(join(root, 'package-lock.json')))
  const native = join(root, 'native')
  for (const file of (await readdir(native)).filter((f) => /\.[ch]$/.test(f)).sort()) {
    hash.update(await readFile(join(native, file)))
  }
  return hash.digest('hex')
}
