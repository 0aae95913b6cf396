/** A first root for a virtual machine: busybox, the modules that 9p and the network need, and one script. */
import { execFile, spawn } from 'node:child_process'
import { chmod, copyFile, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { Unavailable } from './debian.ts'

const run = promisify(execFile)

const APPLETS = [
  'sh',
  'mount',
  'insmod',
  'mkdir',
  'ip',
  'chroot',
  'poweroff',
  'sleep',
  'cat',
  'echo',
  'ln',
  'date',
  'umount',
  'switch_root',
]

/** Loaded in this order, each after what it needs. */
export const NINE_P_AND_NETWORK = [
  'netfs',
  '9pnet',
  '9pnet_virtio',
  '9p',
  'failover',
  'net_failover',
  'virtio_net',
  'overlay',
]

/** As a script: mount /dev/vda and hand over to its /sbin/init. */
export const INIT_OF_DISK = Symbol('init of the disk')

export interface InitrdOptions {
  /** where the initrd is made */
  readonly work: string
  /** the unpacked kernel package */
  readonly kernelRoot: string
  /** an unpacked static busybox of the guest's architecture */
  readonly busybox: string
  readonly modules: readonly string[]
  /** module → its parameters */
  readonly parameters?: Readonly<Record<string, string>>
  /** the guest's clock, unix seconds: the machine has none that can be trusted */
  readonly now: number
  /** shell text that runs in the shared root after everything is mounted; INIT_OF_DISK starts a system */
  readonly script: string | typeof INIT_OF_DISK
}

/** @returns the file, gzip-compressed cpio */
export async function buildInitrd(options: InitrdOptions): Promise<string> {
  const root = join(options.work, 'initrd')
  await rm(root, { recursive: true, force: true })
  for (const folder of ['bin', 'dev', 'proc', 'sys', 'mnt', 'modules'])
    await mkdir(join(root, folder), { recursive: true })
  await copyFile(options.busybox, join(root, 'bin/busybox'))
  await chmod(join(root, 'bin/busybox'), 0o755)
  for (const applet of APPLETS) await symlink('busybox', join(root, 'bin', applet))
  const files = await moduleFiles(options.kernelRoot)
  for (const name of options.modules) {
    const file = files.get(name)
    if (file === undefined) continue // built into this kernel
    await unpackModule(file, join(root, 'modules', `${name}.ko`))
  }
  await writeFile(join(root, 'init'), initScript(options), { mode: 0o755 })
  const out = join(options.work, 'initrd.gz')
  await run('sh', ['-c', `cd '${root}' && find . | cpio --quiet -o -H newc | gzip -1 > '${out}'`])
  return out
}

async function moduleFiles(kernelRoot: string): Promise<Map<string, string>> {
  const base = join(kernelRoot, 'usr/lib/modules')
  const alternative = join(kernelRoot, 'lib/modules')
  const folder = await readdir(base).then(
    () => base,
    () => alternative,
  )
  const found = new Map<string, string>()
  for (const file of await readdir(folder, { recursive: true })) {
    const match = basename(file).match(/^(.*)\.ko(\.xz|\.zst)?$/)
    if (match !== null) found.set((match[1] as string).replaceAll('-', '_'), join(folder, file))
  }
  if (found.size === 0) throw new Unavailable('the kernel package holds no modules')
  return found
}

async function unpackModule(from: string, to: string): Promise<void> {
  if (from.endsWith('.xz')) await run('sh', ['-c', `xz -dc '${from}' > '${to}'`])
  else if (from.endsWith('.zst')) await run('sh', ['-c', `zstd -qdc '${from}' > '${to}'`])
  else await copyFile(from, to)
}

function initScript({ modules, now, script, parameters = {} }: InitrdOptions): string {
  const load = modules
    .map((m) => `[ -f /modules/${m}.ko ] && insmod /modules/${m}.ko ${parameters[m] ?? ''}`)
    .join('\n')
  return `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
${load}
date -u -s @${now} >/dev/null
ip link set lo up
ip link set eth0 up 2>/dev/null && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
${script === INIT_OF_DISK ? SWITCH_ROOT : sharedRoot(script)}`
}

const SWITCH_ROOT = `mount -t ext4 /dev/vda /mnt || echo 'GUEST no disk'
umount /proc /sys /dev
echo 'GUEST up'
exec switch_root /mnt /sbin/init
`

function sharedRoot(script: string): string {
  return `mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose share /mnt || echo 'GUEST no shared root'
mount -t proc proc /mnt/proc
mount -t sysfs sysfs /mnt/sys
mount -t devtmpfs dev /mnt/dev
mount -t tmpfs tmpfs /mnt/tmp
cat > /mnt/tmp/guest.sh <<'GUEST_SCRIPT'
${script}
GUEST_SCRIPT
echo 'GUEST up'
chroot /mnt /bin/sh /tmp/guest.sh
echo "GUEST ended with $?"
poweroff -f
`
}

/** True if `program` can be started on this host. */
export function hasProgram(program: string): Promise<boolean> {
  return new Promise((done) => {
    const child = spawn(program, ['--version'], { stdio: 'ignore' })
    child.once('error', () => done(false))
    child.once('exit', () => done(true))
  })
}
