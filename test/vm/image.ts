/**
 * `npm run test:image`: the image for a Raspberry Pi is built and booted on an emulated Pi 3 from an emulated card, with
 * the kernel, initrd and device tree of its own firmware partition. What it must be: a system that comes up, a device that
 * stays off until it is enrolled and then drives a line of the real pinctrl-bcm2835 driver.
 * Last line `N passed, N failed` or `skipped: why`.
 */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { runToEnd } from '../../demo/processes.ts'
import { createOwnerCa, issueForDevice } from '../../owner/authority.ts'
import { OwnerFolder } from '../../owner/folder.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { builtImage, Card } from './pi-image.ts'
import { bootPi, QEMU, TEST_FOLDER, TEST_OVER } from './pi-machine.ts'
import { Report } from './report.ts'
import { ENROL_UNIT, UNIT } from './scene.ts'

const ROOT = resolve(import.meta.dirname, '..', '..', '..')
const CHIP = { label: 'pinctrl-bcm2835', base: 512, lines: 54 }
const RELAY = 17
const DOOR = 4
const lineOf = (bcm: number): string => `/sys/class/gpio/gpio${CHIP.base + bcm}`
const WAITS_FOR_NETWORK = 'systemd-networkd-wait-online.service '
/** An emulated processor on a host that others use too. */
const BOOT_MS = 1_500_000
const TEST_MS = 1_800_000

const report = new Report()

/** Keys and a certificate as an enrolment leaves them, and a configuration with lines of the header. */
async function enrolledFolder(folder: string, work: string): Promise<void> {
  const made = JSON.parse(await runToEnd('iotchain-device', ['init', '--dir', folder, '--json'])) as {
    address: Address
  }
  const home = new OwnerFolder(join(work, 'owner'))
  home.create({ rpcUrl: 'http://127.0.0.1:8545', chainId: 1 })
  const password = 'only for this test'
  const ca = await createOwnerCa(home, password, 'image test')
  const csr = await readFile(join(folder, 'device.csr'))
  const { chain } = await issueForDevice(home, password, csr, { address: made.address })
  await writeFile(join(folder, 'device.crt'), chain)
  await copyFile(ca.root, join(folder, 'ca.crt'))
  const config = parseDocument(await readFile(join(ROOT, 'deploy/debian/device.yaml'), 'utf8'))
  config.set('keyserver', 'coaps://127.0.0.1:5684')
  config.set(
    'resources',
    config.createNode([
      { path: '/a/relay', driver: 'gpio-out', bcm: RELAY, safe: 'on', group: 0, every: '1s' },
      { path: '/s/door', driver: 'gpio-digital', bcm: DOOR, group: 0, every: '1s' },
    ]),
  )
  await writeFile(join(folder, 'device.yaml'), config.toString({ lineWidth: 0 }))
}

/** In the guest. Facts are files of the card, where no line of the kernel can come between. */
const script = (nowSeconds: number): string => `here=/boot/firmware/${TEST_FOLDER}
fact() { cat >"$here/$1.fact"; echo "fact $1: $(tr '\\n' ' ' <"$here/$1.fact" | cut -c 1-200)" >/dev/console; }
unit() { systemctl show "$1" -p ActiveState -p UnitFileState -p ConditionResult -p ConditionTimestampMonotonic; }
uname -r | fact kernel
tr -d '\\0' </proc/device-tree/model | fact model
{ systemctl is-active multi-user.target; systemctl --failed --plain --no-legend; } 2>&1 | fact system
unit ${UNIT} | fact device
unit ${ENROL_UNIT} | fact enrolment
{ findmnt -nro SOURCE,FSTYPE /state; findmnt -nro SOURCE /etc/iotchain; findmnt -nro SOURCE /var/lib/private; } | fact state
{ df --output=size -BM /state | tail -n 1; systemctl show iotchain-grow-state -p Result; } | fact size
{ journalctl --header | grep '^File path'; ls -A /var/log/journal; } 2>&1 | fact journal
{ awk -F: '$2 !~ /^[!*]/ { print $1 }' /etc/shadow; ls -d /root/.ssh/authorized_keys /usr/sbin/sshd; } 2>&1 | fact logins
for c in /sys/class/gpio/gpiochip*; do echo "$(cat $c/label) $(cat $c/base) $(cat $c/ngpio)"; done | fact chips
date -s @${nowSeconds} >/dev/null
mkdir -p /etc/iotchain/device
for f in "$here"/enrolled/*; do install -m 600 "$f" /etc/iotchain/device/; done
mv /etc/iotchain/device/device.yaml /etc/iotchain/device.yaml && chmod 644 /etc/iotchain/device.yaml
{ iotchain-device check --config /etc/iotchain/device.yaml; echo "exit $?"; } 2>&1 | fact check
mkdir -p /run/systemd/system/${UNIT}.d
printf '[Service]\\nTimeoutStartSec=900\\nTimeoutStopSec=300\\nWatchdogSec=300\\n' >/run/systemd/system/${UNIT}.d/slow.conf
systemctl daemon-reload
ls -d ${lineOf(RELAY)} ${lineOf(DOOR)} 2>/dev/null | fact before
systemctl start ${UNIT}
{ systemctl show ${UNIT} -p ActiveState -p SubState -p MainPID; } | fact started
# Ready is who serves; drivers start beside it.
n=0; until [ "$(cat ${lineOf(RELAY)}/direction)$(cat ${lineOf(DOOR)}/edge)" = outboth ] || [ $n -ge 300 ]; do sleep 1; n=$((n + 1)); done 2>/dev/null
pid=$(systemctl show ${UNIT} -p MainPID --value)
{ stat -c 'uid %u' /proc/$pid; stat -c '%G' ${lineOf(RELAY)}/value; } 2>&1 | fact user
{ cat ${lineOf(RELAY)}/direction ${lineOf(RELAY)}/value; } 2>&1 | fact relay
{ cat ${lineOf(DOOR)}/direction ${lineOf(DOOR)}/edge; } 2>&1 | fact door
{ iotchain-device doctor --config /etc/iotchain/device.yaml; echo "exit $?"; } 2>&1 | fact doctor
systemctl stop ${UNIT}
{ systemctl show ${UNIT} -p ActiveState -p Result; ls -d ${lineOf(RELAY)} ${lineOf(DOOR)} 2>/dev/null; } | fact stopped
journalctl -u ${UNIT} -u ${ENROL_UNIT} -u iotchain-grow-state -o cat --no-pager | tail -n 40 >"$here/journal.txt"
sync
echo '${TEST_OVER}' >/dev/console
`

async function suite(work: string): Promise<void> {
  const cache = join(process.env['IOTCHAIN_PEERS'] ?? join(homedir(), '.cache/iotchain-peers'), 'image')
  const say = report.say.bind(report)
  const card = await Card.flashed(await builtImage(ROOT, cache, work, say), work)
  report.check(
    'firmware, root and state have a partition each',
    card.partitions.map((p) => p.type).join(' ') === 'c 83 83' && card.partitions[0]?.bootable === true,
    card.partitions.map((p) => `${p.size / 2048} MiB`).join(', '),
  )
  const files = await card.list()
  const needed = ['bootcode.bin', 'start.elf', 'start4.elf', 'fixup.dat', 'fixup4.dat', 'bcm2711-rpi-4-b.dtb']
  const missing = needed.filter((name) => !files.includes(name))
  report.check(
    'the firmware of a Pi 3 and of a Pi 4 finds its files',
    missing.length === 0,
    missing.length === 0 ? `${files.length} files` : `without ${missing.join(', ')}`,
  )
  const folder = join(work, TEST_FOLDER)
  await mkdir(join(folder, 'enrolled'), { recursive: true })
  await enrolledFolder(join(folder, 'enrolled'), work)
  await writeFile(join(folder, 'run'), script(Math.floor(Date.now() / 1000)))
  await card.lay(folder)
  const machine = await bootPi(card, work)
  try {
    await machine.line(/systemd\[1\]: .*(Hostname set|Detected architecture)|Welcome to Debian/, BOOT_MS)
    say('systemd runs')
    await machine.line(/fact kernel: /, BOOT_MS)
    say('the system is up')
    await machine.line(new RegExp(TEST_OVER), TEST_MS)
  } finally {
    // It does not end when the guest powers off.
    await machine.kill()
  }
  try {
    await judge(card)
  } finally {
    if (report.failed > 0) say(await card.text(`/${TEST_FOLDER}/journal.txt`).catch(String))
  }
}

async function judge(card: Card): Promise<void> {
  const fact = async (name: string): Promise<string> => (await card.text(`/${TEST_FOLDER}/${name}.fact`)).trim()
  const check = (what: string, holds: boolean, seen: string): void =>
    report.check(what, holds, seen.replace(/\s*\n\s*/g, '; ').replace(/ +/g, ' '))
  const model = await fact('model')
  check('the kernel knows its board', model.includes('Raspberry Pi 3 Model B'), `${model}, ${await fact('kernel')}`)
  const system = await fact('system')
  // The emulated board has no network: the one unit that waits for one gives up.
  const [target, ...failed] = system.split('\n').filter((line) => !line.startsWith(WAITS_FOR_NETWORK))
  check(
    'it boots, and no unit fails but the wait for a network that is not there',
    target === 'active' && failed.length === 0,
    system,
  )
  const device = await fact('device')
  const off = ['ActiveState=inactive', 'UnitFileState=enabled', 'ConditionResult=no']
  const asked = (text: string): boolean => /ConditionTimestampMonotonic=[1-9]/.test(text)
  check(
    'the device is enabled and stays off while it is not enrolled',
    off.every((p) => device.includes(p)) && asked(device),
    device,
  )
  const enrolment = await fact('enrolment')
  check(
    'so does the enrolment without its file',
    off.every((p) => enrolment.includes(p)) && asked(enrolment),
    enrolment,
  )
  const state = (await fact('state')).split('\n')
  const part = state[0]?.split(' ')[0] ?? 'none'
  check(
    'keys, configuration and state are on a partition of their own',
    part.endsWith('p3') && state[1] === `${part}[/iotchain]` && state[2] === `${part}[/private]`,
    state.join('\n'),
  )
  const size = await fact('size')
  const had = (card.partitions[2]?.size ?? 0) / 2048
  check(
    'that takes the rest of the card at the first boot',
    Number.parseInt(size, 10) > 4 * had,
    `${had} MiB were ${size}`,
  )
  const journal = await fact('journal')
  check('the journal is in memory', journal.includes('/run/log/journal/') && !/File path: \/var/.test(journal), journal)
  const logins = await fact('logins')
  check(
    'no password and no SSH key opens it',
    logins.split('\n').length === 2 && logins.split('\n').every((line) => line.includes('No such file')),
    logins,
  )
  const chips = await fact('chips')
  check('the controller of a Pi is at 512', chips.split('\n').includes(Object.values(CHIP).join(' ')), chips)
  const checked = await fact('check')
  check('check accepts keys and configuration', checked.endsWith('exit 0'), checked.split('\n').slice(-2).join('\n'))
  const [before, started] = [await fact('before'), await fact('started')]
  check('enrolled, the service starts', before === '' && started.includes('ActiveState=active'), started)
  const user = await fact('user')
  check('a user of no name drives lines of group gpio', /^uid 6\d{4}\ngpio$/.test(user), user)
  const relay = await fact('relay')
  check('gpio-out puts its line into the safe state', relay === 'out\n1', relay)
  const door = await fact('door')
  check('gpio-digital has the interrupts of its line', door === 'in\nboth', door)
  const doctor = await fact('doctor')
  const found = (bcm: number): boolean => doctor.includes(`BCM ${bcm} = sysfs ${CHIP.base + bcm} on ${CHIP.label}`)
  const serves = /^ok +daemon|^\S+ +reading/m.test(doctor)
  check(
    'doctor finds lines by the label of the controller, and the daemon',
    found(RELAY) && found(DOOR) && serves,
    doctor,
  )
  const stopped = await fact('stopped')
  check(
    'stopped, it gives the lines back',
    /^ActiveState=inactive$/m.test(stopped) && !stopped.includes('/sys') && stopped.includes('Result=success'),
    stopped,
  )
}

const work = await mkdtemp(join(tmpdir(), 'iotchain-image-'))
const PROGRAMS = [
  ...[QEMU, 'mmdebstrap', 'mkfs.vfat', 'mcopy', 'mdir', 'sfdisk', 'mke2fs', 'depmod', 'apt-get', 'dpkg-deb'],
  ...['aarch64-linux-gnu-gcc', 'aarch64-linux-gnu-g++'],
]
const status = await report.run(PROGRAMS, () => suite(work))
await rm(work, { recursive: true, force: true })
process.exit(status)
