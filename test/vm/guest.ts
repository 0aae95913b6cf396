/** The root that a guest shares with the host: Debian's C libraries, Node, the bundled device and its folder. */

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, copyFile, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bundle } from '../../tools/package/bundle.ts'
import { nativeParts } from '../../tools/package/native-parts.ts'
import { type Arch, NODE_VERSION, nodeRuntime } from '../../tools/package/node-runtime.ts'
import type { DebianSuite } from './debian.ts'

const LIBRARIES = ['libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1']
const APPLETS = [
  'sh',
  'cat',
  'ls',
  'echo',
  'sleep',
  'mkdir',
  'kill',
  'mv',
  'mount',
  'umount',
  'insmod',
  'sync',
  'pidof',
  'mkfs.ext2',
  'seq',
  'test',
]

export interface GuestOptions {
  readonly root: string
  readonly arch: Arch
  readonly cache: string
  readonly suite: DebianSuite
  readonly busybox: string
  /** further Debian packages whose programs the guest runs */
  readonly packages?: readonly string[]
}

/** @returns the folder to share; made anew in each run but for what is costly */
export async function guestRoot({ root, arch, cache, suite, busybox, packages = [] }: GuestOptions): Promise<string> {
  const guest = await suite.unpack(`guest-${arch}`, [...LIBRARIES, ...packages])
  for (const folder of ['proc', 'sys', 'dev', 'tmp', 'bin', 'app', 'conf'])
    await mkdir(join(guest, folder), { recursive: true })
  for (const folder of ['lib', 'lib64']) {
    if (!existsSync(join(guest, folder)) && existsSync(join(guest, 'usr', folder)))
      await symlink(`usr/${folder}`, join(guest, folder))
  }
  await copyFile(busybox, join(guest, 'bin/busybox'))
  await chmod(join(guest, 'bin/busybox'), 0o755)
  for (const applet of APPLETS) {
    await rm(join(guest, 'bin', applet), { force: true })
    await symlink('busybox', join(guest, 'bin', applet))
  }
  const node = await nodeRuntime(arch, cache)
  const mark = join(guest, 'app/.made')
  const wanted = await fingerprint(root)
  if ((await readFile(mark, 'utf8').catch(() => '')) !== wanted) {
    await rm(join(guest, 'app'), { recursive: true, force: true })
    await mkdir(join(guest, 'app'))
    await nativeParts({ root, arch, node, out: join(guest, 'app') })
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
