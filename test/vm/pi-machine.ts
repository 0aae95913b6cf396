/** An emulated Raspberry Pi 3 with a card: what its firmware would load is loaded from the card's own partition. */
import { Machine } from './machine.ts'
import type { Card } from './pi-image.ts'

export const QEMU = 'qemu-system-aarch64'
/** The folder on the firmware partition that the test lays there; nothing of the test is in the image. */
export const TEST_FOLDER = 'image-test'
export const TEST_OVER = 'IMAGE TEST OVER'

/** Runs the test's script once the system is up. It reaches systemd as a credential on the kernel's command line. */
const TEST_UNIT = `[Unit]
After=multi-user.target
RequiresMountsFor=/boot/firmware
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh /boot/firmware/${TEST_FOLDER}/run
`

/** What the firmware of a Pi does with config.txt and cmdline.txt. */
export async function bootPi(card: Card, work: string): Promise<Machine> {
  const config = await card.text('config.txt')
  const named = (pattern: RegExp): string => {
    const found = config.match(pattern)?.[1]
    if (found === undefined) throw new Error(`config.txt has no line like ${pattern}:\n${config}`)
    return found
  }
  const kernel = await card.take(named(/^kernel=(\S+)$/m), work)
  const initrd = await card.take(named(/^initramfs (\S+)/m), work)
  const tree = await card.take('bcm2837-rpi-3-b.dtb', work)
  const unit = Buffer.from(TEST_UNIT).toString('base64')
  const commandLine = [
    (await card.text('cmdline.txt')).trim(),
    `systemd.set_credential_binary=systemd.extra-unit.image-test.service:${unit}`,
    'systemd.wants=image-test.service',
    // Four emulated processors on fewer real ones wait for each other's locks longer than they work: one does it all.
    'maxcpus=1',
    'systemd.default_timeout_start_sec=1200',
    'systemd.default_device_timeout_sec=1200',
  ].join(' ')
  return new Machine({
    program: QEMU,
    work,
    ...(process.env['IOTCHAIN_VM_CONSOLE'] === '1' ? { onLine: (line: string) => console.log(`  | ${line}`) } : {}),
    args: [
      ...['-M', 'raspi3b', '-accel', 'tcg,thread=single'],
      ...['-kernel', kernel, '-initrd', initrd, '-dtb', tree, '-append', commandLine],
      ...['-drive', `file=${card.file},format=raw,if=sd`],
      // A Pi 3 gives its first serial port to Bluetooth; the console is the second, which comes next.
      ...['-serial', 'null'],
    ],
  })
}
