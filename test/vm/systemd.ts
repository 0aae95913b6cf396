/**
 * `npm run test:vm:systemd`: the Debian packages on a Debian with systemd, in an amd64 virtual machine: installed,
 * enrolled, watched, reloaded, upgraded, removed, purged; edges of a GPIO line counted through all of it.
 * Last line `N passed, N failed` or `skipped: why`.
 */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { startChain } from '../../demo/chain.ts'
import { ProcessTree } from '../../demo/processes.ts'
import type { Reader } from '../../demo/reader.ts'
import { READERS, type Stage, setUpDaemons, setUpOwner } from '../../demo/stage.ts'
import { buildDebs, digests, laterVersion } from './debs.ts'
import type { GuestShell } from './guest-shell.ts'
import { member, numberOf, readingOf } from './member.ts'
import { eventually, Report } from './report.ts'
import { edges, edgesLimitMs, PULSE_LINE, plugGpio } from './simulated-hardware.ts'
import { bootSystemd, systemdParts } from './systemd-machine.ts'

const ROOT = resolve(import.meta.dirname, '..', '..', '..')
const UNIT = 'iotchain-device.service'
const STATE = '/var/lib/private/iotchain-device'
const PULSES = 20
/** dpkg unpacks a hundred megabytes on an emulated processor. */
const DPKG_MS = 600_000
const START_MS = 360_000
const DYNAMIC_UIDS = [61184, 65519] as const

const report = new Report()

interface Scene {
  readonly shell: GuestShell
  readonly reader: Reader
  /** file names below /share/debs, the runtime first */
  readonly first: readonly string[]
  readonly later: readonly string[]
}

async function suite(tree: ProcessTree, work: string): Promise<void> {
  const cache = join(process.env['IOTCHAIN_PEERS'] ?? join(homedir(), '.cache/iotchain-peers'), 'vm')
  const parts = await systemdParts(cache)
  report.say(`Debian bookworm with kernel ${parts.kernel.release}`)
  const share = join(work, 'share')
  const debs = join(share, 'debs')
  const first = await packagesTwice(work, debs)
  const later: string[] = []
  for (const deb of first) later.push(await laterVersion(deb, await nextVersion(), debs, work))
  const chain = await startChain(tree)
  const stage = await setUpDaemons(work, chain, await setUpOwner(work, chain), {
    thisHost: '10.0.2.2',
    listen: 'coap://0.0.0.0:5683',
    settings: {},
  })
  await tree.daemon('iotchain-keyserver', ['run', '--config', stage.configs.keyserver])
  await tree.daemon('iotchain-proxy', ['run', '--config', stage.configs.proxy])
  await shareIdentity(stage, share)
  const reader = await member(stage)
  const { machine, shell } = await bootSystemd(parts, { work, share, deviceUri: stage.deviceUri })
  tree.add({ name: 'virtual machine', pid: 0, stop: () => machine.kill() })
  try {
    report.say(`machine up: ${(await shell.run('systemctl --version')).split('\n')[0]}`)
    const scene = { shell, reader, first: first.map((f) => basename(f)), later: later.map((f) => basename(f)) }
    await plugGpio(shell)
    await install(scene)
    await serve(scene)
    await edgesCount(scene)
    await watchdog(scene)
    await reload(scene)
    await upgrade(scene)
    await remove(scene)
    await purge(scene)
  } catch (error) {
    report.say(
      await shell
        .run(`journalctl -u ${UNIT} --no-pager -n 25 -o cat; systemctl status ${UNIT} --no-pager -n 0`, 60_000)
        .catch(String),
    )
    throw error
  } finally {
    await machine.kill()
    await reader.close()
  }
}

/** @returns the files of the first build */
async function packagesTwice(work: string, debs: string): Promise<string[]> {
  const epoch = 1_700_000_000
  const files = await buildDebs(ROOT, 'amd64', debs, epoch)
  const again = join(work, 'again')
  await buildDebs(ROOT, 'amd64', again, epoch)
  const [one, two] = [await digests(debs), await digests(again)]
  const differing = [...one].filter(([file, digest]) => two.get(file) !== digest).map(([file]) => file)
  report.check(
    'two builds of the packages with the same SOURCE_DATE_EPOCH are the same octets',
    one.size === files.length && two.size === one.size && differing.length === 0,
    differing.join(', ') || `${one.size} packages`,
  )
  await rm(again, { recursive: true })
  return files
}

async function nextVersion(): Promise<string> {
  return `${(JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version}+1`
}

/** What an enrolment leaves in /etc/iotchain, and a configuration for this guest's lines. */
async function shareIdentity(stage: Stage, share: string): Promise<void> {
  await cp(join(stage.folder, 'device'), join(share, 'device'), { recursive: true })
  const made = JSON.parse(await readFile(stage.configs.device, 'utf8')) as Record<string, unknown>
  const pulses = { path: '/s/energy', driver: 'gpio-pulse', bcm: PULSE_LINE, pulsesPerUnit: 1, unit: 'count' }
  const config = (...more: object[]): string =>
    JSON.stringify({
      ...made,
      identity: {
        certificate: 'credential:device.crt',
        request: 'credential:device.csr',
        key: 'credential:device.key',
        ca: 'credential:ca.crt',
        signingKey: 'credential:signing.key',
      },
      state: '/var/lib/iotchain-device',
      resources: [{ ...pulses, group: READERS, every: '1s' }, ...more],
    })
  await mkdir(join(share, 'conf'), { recursive: true })
  await writeFile(join(share, 'conf/device.yaml'), config())
  const added = { path: '/s/added', driver: 'simulated', seed: 7, unit: 'Cel', group: READERS, every: '1s' }
  await writeFile(join(share, 'conf/reloaded.yaml'), config(added))
}

const dpkg = (files: readonly string[]): string =>
  `DEBIAN_FRONTEND=noninteractive dpkg -i ${files.map((file) => `/share/debs/${file}`).join(' ')}`

/** Properties of the unit. */
async function show(shell: GuestShell, ...names: string[]): Promise<Record<string, string>> {
  const text = await shell.run(`systemctl show ${UNIT} ${names.map((name) => `-p ${name}`).join(' ')}`, 60_000)
  return Object.fromEntries(text.split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]))
}

async function active(shell: GuestShell): Promise<Record<string, string>> {
  return eventually(START_MS, async () => {
    const state = await show(shell, 'ActiveState', 'SubState', 'MainPID', 'NRestarts', 'StatusText')
    if (state['ActiveState'] !== 'active') throw new Error(`${UNIT} is ${state['ActiveState']} (${state['SubState']})`)
    return state
  })
}

async function install({ shell, first }: Scene): Promise<void> {
  await shell.run(dpkg(first), DPKG_MS)
  const enabled = await shell.run(`systemctl is-enabled ${UNIT} iotchain-device-enroll.service`)
  report.check('the packages install and enable the units', enabled === 'enabled\nenabled', enabled.replace('\n', ', '))
  const { ActiveState, ConditionResult } = await show(shell, 'ActiveState', 'ConditionResult')
  report.check(
    'a device that is not enrolled stays off, without a failure',
    ActiveState === 'inactive' && ConditionResult === 'no',
    `${ActiveState}, condition ${ConditionResult}`,
  )
}

async function serve({ shell }: Scene): Promise<void> {
  // An emulated processor needs longer to start Node than the unit allows; nothing else of the unit is changed.
  await shell.run(`mkdir -p /etc/iotchain/device /etc/systemd/system/${UNIT}.d
printf '[Service]\\nTimeoutStartSec=300\\n' > /etc/systemd/system/${UNIT}.d/slow.conf
cp /share/device/*.crt /share/device/*.csr /share/device/*.key /etc/iotchain/device/
chown -R root:root /etc/iotchain/device && chmod 700 /etc/iotchain/device && chmod 600 /etc/iotchain/device/*
cp /share/conf/device.yaml /etc/iotchain/device.yaml && chmod 644 /etc/iotchain/device.yaml
systemctl daemon-reload`)
  await shell.run(`systemctl start ${UNIT}`, START_MS)
  const { Type, ActiveState, MainPID } = await show(shell, 'Type', 'ActiveState', 'MainPID')
  const ready = await shell.run(`journalctl -u ${UNIT} -o cat --no-pager | grep -c '"msg":"ready"' || true`)
  report.check(
    'systemctl start returns when the device has told that it is ready',
    Type === 'notify' && ActiveState === 'active' && Number(ready) >= 1,
    `Type=${Type}, ${ActiveState}`,
  )
  const uid = Number(await shell.run(`stat -c %u /proc/${MainPID}`))
  const named = await shell.run('grep -c iotchain /etc/passwd || true')
  report.check(
    'it runs as a user that exists only meanwhile',
    uid >= DYNAMIC_UIDS[0] && uid <= DYNAMIC_UIDS[1] && named === '0',
    `uid ${uid}`,
  )
  const groups = await shell.run(`grep ^Groups: /proc/${MainPID}/status; getent group gpio`)
  const gpio = groups.match(/gpio:x:(\d+)/)?.[1] ?? 'none'
  report.check('it is in group gpio', groups.split('\n')[0]?.split(/\s+/).includes(gpio) === true, `gid ${gpio}`)
  const credentials = await shell.run(`ls /run/credentials/${UNIT}; stat -c '%a %U' /etc/iotchain/device/device.key`)
  const own = await shell.run(`tr '\\0' '\\n' < /proc/${MainPID}/environ | grep ^CREDENTIALS_DIRECTORY=`)
  report.check(
    'it takes its keys from systemd’s credentials; the originals are for root alone',
    ['device.crt', 'device.key', 'signing.key', 'ca.crt', '600 root'].every((name) => credentials.includes(name)) &&
      own.endsWith(UNIT),
    credentials.replaceAll('\n', ' '),
  )
  const state = await shell.run(`stat -c '%a' ${STATE}; readlink /var/lib/iotchain-device`)
  report.check('its state is its own', state === '700\nprivate/iotchain-device', state.replace('\n', ', '))
}

async function edgesCount({ shell, reader }: Scene): Promise<void> {
  await eventually(60_000, () => reader.join())
  await reader.listen()
  const before = await numberOf(reader, 'energy')
  await shell.run(edges(PULSE_LINE, PULSES), edgesLimitMs(PULSES))
  await readingOf(reader, 'energy', (r) => Number(r.records[0]?.value) >= before + PULSES)
  const counted = (await numberOf(reader, 'energy')) - before
  report.check('it counts edges by group gpio and the udev rule alone', counted === PULSES, `${counted} of ${PULSES}`)
}

async function watchdog({ shell, reader }: Scene): Promise<void> {
  const counter = await numberOf(reader, 'energy')
  const before = await active(shell)
  await shell.run(`kill -STOP ${before['MainPID']}`)
  const after = await eventually(START_MS, async () => {
    const state = await active(shell)
    if (state['MainPID'] === before['MainPID']) throw new Error('the stopped process is still the service')
    return state
  })
  const why = await shell.run(`journalctl -u ${UNIT} --no-pager -o cat | grep -i 'watchdog timeout' | tail -n 1`)
  report.check(
    'a device that hangs is killed by the watchdog and started again',
    Number(after['NRestarts']) > Number(before['NRestarts']) && why !== '',
    why,
  )
  const again = await numberOf(reader, 'energy')
  report.check('its counter does not go back', again >= counter, `${counter}, then ${again}`)
}

async function reload({ shell, reader }: Scene): Promise<void> {
  const before = await active(shell)
  await shell.run(`cp /share/conf/reloaded.yaml /etc/iotchain/device.yaml && systemctl reload ${UNIT}`, 60_000)
  await readingOf(reader, 'added')
  const after = await active(shell)
  report.check(
    'systemctl reload takes a new resource into the running process',
    after['MainPID'] === before['MainPID'] && after['NRestarts'] === before['NRestarts'],
    `process ${after['MainPID']}`,
  )
}

async function upgrade({ shell, reader, later }: Scene): Promise<void> {
  const counter = await numberOf(reader, 'energy')
  const before = await active(shell)
  await shell.run(dpkg(later), DPKG_MS)
  const after = await active(shell)
  const version = await shell.run('dpkg -s iotchain-device | sed -n "s/^Version: //p"')
  const kept = await shell.run('cmp /share/conf/reloaded.yaml /etc/iotchain/device.yaml && echo same')
  const again = await numberOf(reader, 'energy')
  report.check(
    'an upgrade restarts the service; configuration and state stay',
    version === (await nextVersion()) && after['MainPID'] !== before['MainPID'] && kept === 'same' && again >= counter,
    `${version}, counter ${counter}, then ${again}`,
  )
}

async function remove({ shell, reader, later }: Scene): Promise<void> {
  const counter = await numberOf(reader, 'energy')
  await shell.run(`systemctl stop ${UNIT}`, 120_000)
  const { ActiveState, Result } = await show(shell, 'ActiveState', 'Result')
  report.check(
    'it stops when asked to',
    ActiveState === 'inactive' && Result === 'success',
    `${ActiveState}, ${Result}`,
  )
  await shell.run('dpkg -r iotchain-device', DPKG_MS)
  const left = await shell.run(`ls -d /etc/iotchain/device.yaml /etc/iotchain/device/device.key ${STATE}
ls /usr/bin/iotchain-device 2>&1 || true; systemctl start ${UNIT} 2>&1 || echo refused`)
  report.check(
    'after a removal configuration, keys and state are there, the program is not',
    left.startsWith('/etc') && left.includes('No such file') && left.endsWith('refused'),
    'kept',
  )
  await shell.run(dpkg(later.slice(1)), DPKG_MS)
  await active(shell)
  const again = await numberOf(reader, 'energy')
  report.check('installed again it goes on where it ended', again >= counter, `${counter}, then ${again}`)
}

async function purge({ shell }: Scene): Promise<void> {
  await shell.run(`rm -r /etc/systemd/system/${UNIT}.d && dpkg -P iotchain-device iotchain-runtime`, DPKG_MS)
  const left = await shell.run(
    "find / -xdev -name '*iotchain*' -not -path '/share/*' -not -path '/proc/*' -not -path '/var/log/*'; " +
      "systemctl list-units --all --no-legend '*iotchain*'",
    60_000,
  )
  report.check('after a purge nothing is left', left === '', left.replaceAll('\n', ' ') || 'nothing')
}

const work = await mkdtemp(join(tmpdir(), 'iotchain-systemd-'))
const tree = new ProcessTree()
const PROGRAMS = [
  'qemu-system-x86_64',
  'cpio',
  'xz',
  'make',
  'gcc',
  'mke2fs',
  'apt-get',
  'dpkg',
  'dpkg-deb',
  'mmdebstrap',
]
const status = await report.run(PROGRAMS, () => suite(tree, work))
await tree.stop()
await rm(work, { recursive: true, force: true })
process.exit(status)
