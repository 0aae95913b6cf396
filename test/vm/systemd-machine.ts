/** An amd64 virtual machine that runs Debian bookworm with systemd from a disk of its own, and a shell for the test. */
import { execFile } from 'node:child_process'
import { copyFile, mkdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { AMD64_MODULES, shellOf, startAmd64 } from './amd64-machine.ts'
import { DebianSuite, debianMirror, Unavailable } from './debian.ts'
import { kernelWithGpioSim, type SimulatedKernel } from './gpio-sim.ts'
import { type GuestShell, SHELL_LOOP } from './guest-shell.ts'
import { buildInitrd, INIT_OF_DISK } from './initrd.ts'
import type { Machine } from './machine.ts'

const run = promisify(execFile)
const BUFFER = { maxBuffer: 64 << 20 }
const FAT = ['fat', 'vfat', 'nls_cp437', 'nls_ascii']
const DISK_BYTES = 1 << 30

/** What a small Debian has beside the essential packages; the product's dependencies are among them. */
const PACKAGES = [
  ...['systemd', 'systemd-sysv', 'udev', 'dbus', 'kmod', 'init-system-helpers'],
  ...['libatomic1', 'libstdc++6'],
]

const SHELL_UNIT = `[Unit]
Description=Commands of the test
[Service]
ExecStart=/bin/sh -c 'exec /bin/sh /opt/test-shell >/dev/console 2>&1'
[Install]
WantedBy=multi-user.target
`

const SHELL = `mkdir -p /share
mount -t 9p -o trans=virtio,version=9p2000.L,ro share /share
ln -sfn /share/modules /modules
mkdir -p /boot/firmware && mount -t vfat /dev/vdb /boot/firmware
${SHELL_LOOP}
`

export interface SystemdParts {
  readonly kernel: SimulatedKernel
  readonly busybox: string
  /** the disk with Debian, never written to: each run works on a throw-away layer */
  readonly disk: string
}

export async function systemdParts(cache: string): Promise<SystemdParts> {
  const kernels = new DebianSuite({ suite: 'bookworm-backports', arch: 'amd64', cache })
  const programs = new DebianSuite({ suite: 'trixie', arch: 'amd64', cache })
  await kernels.update()
  await programs.update()
  const kernel = await kernelWithGpioSim(kernels, cache)
  const busybox = join(await programs.unpack('busybox-amd64', ['busybox-static']), 'usr/bin/busybox')
  return { kernel, busybox, disk: await debianDisk(cache) }
}

/** Made once, kept in the cache until its list of packages or its shell changes. */
async function debianDisk(cache: string): Promise<string> {
  const disk = join(cache, 'debian-systemd-amd64.img')
  const mark = `${disk}.packages`
  const wanted = `${PACKAGES.join(' ')}\n${SHELL_UNIT}${SHELL}`
  if ((await readFile(mark, 'utf8').catch(() => '')) === wanted) return disk
  if (process.getuid?.() !== 0) throw new Unavailable('only root can make the disk with Debian on it')
  const root = join(cache, 'debian-systemd-amd64.root')
  await rm(root, { recursive: true, force: true })
  const source = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${await debianMirror()} bookworm main`
  try {
    await run(
      'mmdebstrap',
      ['--mode=root', '--variant=minbase', `--include=${PACKAGES.join(',')}`, 'bookworm', root, source],
      BUFFER,
    )
  } catch (cause) {
    throw new Unavailable(`Debian bookworm cannot be put together (${String(cause).trim().split('\n').at(-1)})`)
  }
  await writeFile(join(root, 'etc/systemd/system/test-shell.service'), SHELL_UNIT)
  await writeFile(join(root, 'opt/test-shell'), SHELL)
  await run('chroot', [root, 'systemctl', 'enable', 'test-shell.service'])
  const partial = `${disk}.partial`
  await writeFile(partial, '')
  await truncate(partial, DISK_BYTES)
  await run('mke2fs', ['-q', '-t', 'ext4', '-F', '-d', root, partial], BUFFER)
  await rename(partial, disk)
  await rm(root, { recursive: true })
  await writeFile(mark, wanted)
  return disk
}

/** A file with an empty FAT on it, as a Raspberry Pi's firmware reads. */
async function bootPartition(work: string): Promise<string> {
  const file = join(work, 'boot.img')
  await writeFile(file, '')
  await truncate(file, 32 << 20)
  await run('mkfs.vfat', ['-n', 'bootfs', file])
  return file
}

/** Boots until systemd has started the shell. @param share what the guest sees, read-only, as /share */
export async function bootSystemd(
  { kernel, busybox, disk }: SystemdParts,
  options: { work: string; share: string; deviceUri: string },
): Promise<{ machine: Machine; shell: GuestShell }> {
  const { work, share, deviceUri } = options
  const ctl = join(work, 'ctl')
  await mkdir(ctl, { recursive: true })
  await mkdir(join(share, 'modules'), { recursive: true })
  for (const name of ['irq_sim.ko', 'gpio-sim.ko'])
    await copyFile(join(kernel.modules, name), join(share, 'modules', name))
  const initrd = await buildInitrd({
    work,
    kernelRoot: kernel.root,
    busybox,
    modules: [...AMD64_MODULES.filter((name) => name !== 'i2c_stub'), ...FAT],
    now: Math.floor(Date.now() / 1000),
    script: INIT_OF_DISK,
  })
  const drives = [
    `file=${disk},format=raw,if=virtio,snapshot=on`,
    `file=${await bootPartition(work)},format=raw,if=virtio`,
  ]
  const machine = await startAmd64({ kernel, initrd, work, shares: { share, ctl }, drives, deviceUri })
  return { machine, shell: await shellOf(machine, ctl) }
}
