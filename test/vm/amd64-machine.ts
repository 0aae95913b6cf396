/** An amd64 virtual machine with simulated GPIO and I2C, a state disk that survives its power cuts, and a shell. */
import { execFile } from 'node:child_process'
import { copyFile, cp, mkdir, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Stage } from '../../demo/stage.ts'
import { accelerator } from './accelerator.ts'
import { DebianSuite } from './debian.ts'
import { kernelWithGpioSim, type SimulatedKernel } from './gpio-sim.ts'
import { guestRoot } from './guest.ts'
import { GuestShell, SHELL_LOOP } from './guest-shell.ts'
import { buildInitrd, NINE_P_AND_NETWORK } from './initrd.ts'
import { Machine } from './machine.ts'

const run = promisify(execFile)

/** Each after what it needs; what this kernel has built in is passed over. */
export const AMD64_MODULES = [
  ...NINE_P_AND_NETWORK,
  ...['virtio_blk', 'crc16', 'crc32c_generic', 'libcrc32c', 'mbcache', 'jbd2', 'ext4'],
  ...['configfs', 'i2c_dev', 'i2c_stub', 'regmap_i2c', 'lm75', 'industrialio', 'kfifo_buf'],
  ...['industrialio_triggered_buffer', 'bmp280', 'bmp280_i2c'],
]

/** A host without KVM that has other work takes its time. */
export const BOOT_LIMIT_MS = 600_000
/** Likewise for Node, the device and what it needs from the network. */
export const READY_LIMIT_MS = 600_000

export interface Parts {
  readonly kernel: SimulatedKernel
  readonly busybox: string
  readonly guest: string
}

export async function amd64Parts(root: string, cache: string): Promise<Parts> {
  const kernels = new DebianSuite({ suite: 'bookworm-backports', arch: 'amd64', cache })
  const programs = new DebianSuite({ suite: 'trixie', arch: 'amd64', cache })
  await kernels.update()
  await programs.update()
  const kernel = await kernelWithGpioSim(kernels, cache)
  const busybox = join(await programs.unpack('busybox-amd64', ['busybox-static']), 'usr/bin/busybox')
  const guest = await guestRoot({
    root,
    arch: 'amd64',
    cache,
    suite: programs,
    busybox,
    packages: ['i2c-tools', 'libi2c0'],
  })
  await mkdir(join(guest, 'modules'), { recursive: true })
  for (const name of ['irq_sim.ko', 'gpio-sim.ko'])
    await copyFile(join(kernel.modules, name), join(guest, 'modules', name))
  return { kernel, busybox, guest }
}

/** A file with an empty ext4 on it. */
export async function stateDisk(work: string): Promise<string> {
  const file = join(work, 'state.img')
  await writeFile(file, '')
  await truncate(file, 64 << 20)
  await run('mke2fs', ['-q', '-t', 'ext4', '-F', file])
  return file
}

/** Puts the device's folder where the guest finds it. */
export async function shareConfiguration(parts: Parts, stage: Stage): Promise<void> {
  await rm(join(parts.guest, 'conf'), { recursive: true, force: true })
  await cp(join(stage.folder, 'device'), join(parts.guest, 'conf'), { recursive: true })
}

/** Boots until the guest takes commands; its state disk is mounted on /state. */
export async function bootAmd64(
  parts: Parts,
  options: { work: string; disk: string; deviceUri: string },
): Promise<{ machine: Machine; shell: GuestShell }> {
  const { kernel, busybox, guest } = parts
  const { work, disk, deviceUri } = options
  const ctl = join(work, 'ctl')
  await rm(ctl, { recursive: true, force: true })
  await mkdir(ctl)
  const initrd = await buildInitrd({
    work,
    kernelRoot: kernel.root,
    busybox,
    modules: AMD64_MODULES,
    now: Math.floor(Date.now() / 1000),
    parameters: { i2c_stub: 'chip_addr=0x48,0x76' },
    script: `export PATH=/bin:/usr/sbin HOME=/tmp
mkdir -p /state
mount -t ext4 /dev/vda /state || echo 'GUEST no state disk'
${SHELL_LOOP}`,
  })
  const machine = await startAmd64({
    kernel,
    initrd,
    work,
    shares: { share: guest, ctl },
    drives: [`file=${disk},format=raw,if=virtio,cache=writethrough`],
    deviceUri,
  })
  return { machine, shell: await shellOf(machine, ctl) }
}

/** Waits for the guest's shell and sets its clock again: booting took time that the first setting did not know of. */
export async function shellOf(machine: Machine, ctl: string): Promise<GuestShell> {
  try {
    await machine.line(/GUEST shell/, BOOT_LIMIT_MS)
    const shell = new GuestShell(ctl)
    await shell.run(setClock())
    return shell
  } catch (error) {
    await machine.kill()
    throw error
  }
}

/** Shell text: the guest's clock is this host's, and `seconds` more. */
export const setClock = (seconds = 0): string => `date -u -s @${Math.floor(Date.now() / 1000) + seconds} > /dev/null`

export interface Amd64Options {
  readonly kernel: SimulatedKernel
  readonly initrd: string
  readonly work: string
  /** 9p tag → folder of this host */
  readonly shares: Readonly<Record<string, string>>
  /** qemu's words for each disk */
  readonly drives: readonly string[]
  /** the address on this host that leads to the guest's port 5683 */
  readonly deviceUri: string
}

/** Switches the machine on. */
export async function startAmd64({ kernel, initrd, work, shares, drives, deviceUri }: Amd64Options): Promise<Machine> {
  const boot = await readdir(join(kernel.root, 'boot'))
  const port = new URL(deviceUri.replace('coap:', 'http:')).port
  return new Machine({
    program: 'qemu-system-x86_64',
    work,
    ...(process.env['IOTCHAIN_VM_CONSOLE'] === '1' ? { onLine: (line: string) => console.log(`  | ${line}`) } : {}),
    args: [
      ...['-M', 'q35', '-cpu', 'max', '-smp', '2', '-m', '1024', '-nodefaults'],
      ...(await accelerator()),
      ...['-kernel', join(kernel.root, 'boot', boot.find((f) => f.startsWith('vmlinuz')) as string), '-initrd', initrd],
      ...['-append', 'console=ttyS0 quiet panic=-1 no_timer_check'],
      ...Object.entries(shares).flatMap(([tag, folder]) => [
        ...['-fsdev', `local,id=${tag},path=${folder},security_model=none,multidevs=remap`],
        ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
      ]),
      ...drives.flatMap((drive) => ['-drive', drive]),
      ...['-netdev', `user,id=net,hostfwd=udp:127.0.0.1:${port}-:5683`],
      ...['-device', 'virtio-net-pci,netdev=net,romfile='],
    ],
  })
}

export const START_DEVICE =
  '/app/node /app/iotchain-device/iotchain-device.mjs run --config /conf/device.yaml > /tmp/device.log 2>&1 &'
