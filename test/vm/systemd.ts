/**
 * `npm run test:vm:systemd`: the Debian packages on a Debian with systemd, in an amd64 virtual machine: installed by apt,
 * enrolled by a file on the boot partition, watched, reloaded, upgraded, removed, purged; a full disk, a read-only one and
 * a clock that is wrong; edges of a GPIO line counted through all of it.
 * Last line `N passed, N failed` or `skipped: why`.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { startChain } from '../../demo/chain.ts'
import { ProcessTree } from '../../demo/processes.ts'
import { READERS, type Stage, setUpDaemons, setUpOwner } from '../../demo/stage.ts'
import { clockFaults, fullDisk, readOnlyDisk } from './adversity.ts'
import { buildDebs, digests, laterVersion } from './debs.ts'
import { enrolFile, enrolled, letEnrol } from './enrolment.ts'
import { install, laterThanThis, purge, remove, upgrade } from './package-life.ts'
import { Report } from './report.ts'
import { type Guest, UNIT } from './scene.ts'
import { commands, edgesCount, reload, serve, watchdog } from './service.ts'
import { laidOut, PULSE_LINE, plugGpio } from './simulated-hardware.ts'
import { bootSystemd, systemdParts } from './systemd-machine.ts'

const ROOT = resolve(import.meta.dirname, '..', '..', '..')

const report = new Report()

async function suite(tree: ProcessTree, work: string): Promise<void> {
  const cache = join(process.env['IOTCHAIN_PEERS'] ?? join(homedir(), '.cache/iotchain-peers'), 'vm')
  const parts = await systemdParts(cache)
  report.say(`Debian bookworm with kernel ${parts.kernel.release}`)
  const share = join(work, 'share')
  const debs = join(share, 'debs')
  const first = await packagesTwice(work, debs)
  const later: string[] = []
  for (const deb of first) later.push(await laterVersion(deb, laterThanThis(), debs, work))
  const chain = await startChain(tree)
  const stage = await setUpDaemons(work, chain, await setUpOwner(work, chain), {
    thisHost: '10.0.2.2',
    listen: 'coap://0.0.0.0:5683',
    settings: {},
  })
  await letEnrol(stage)
  await tree.daemon('iotchain-keyserver', ['run', '--config', stage.configs.keyserver])
  await tree.daemon('iotchain-proxy', ['run', '--config', stage.configs.proxy])
  await shareConfiguration(stage, share)
  const { machine, shell } = await bootSystemd(parts, { work, share, deviceUri: stage.deviceUri })
  tree.add({ name: 'virtual machine', pid: 0, stop: () => machine.kill() })
  const names = { first: first.map((f) => basename(f)), later: later.map((f) => basename(f)) }
  const guest: Guest = { report, shell, stage, ...names }
  try {
    report.say(`machine up: ${(await shell.run('systemctl --version')).split('\n')[0]}`)
    const chips = await plugGpio(shell, 'as-on-a-pi')
    report.check('the GPIO chip is at 512, as on a Raspberry Pi', laidOut(chips, 'as-on-a-pi'), JSON.stringify(chips))
    await install(guest)
    const scene = await enrolled(guest, await enrolFile(stage))
    try {
      await serve(scene)
      await edgesCount(scene)
      await watchdog(scene)
      await reload(scene)
      await commands(scene)
      await fullDisk(scene)
      await readOnlyDisk(scene)
      await clockFaults(scene)
      await upgrade(scene)
      await remove(scene)
    } finally {
      await scene.reader.close()
    }
    await purge(guest)
  } catch (error) {
    report.say(
      await shell
        .run(`journalctl -u '*iotchain*' --no-pager -n 40 -o cat; systemctl status ${UNIT} --no-pager -n 0 || true`)
        .catch(String),
    )
    throw error
  } finally {
    await machine.kill()
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

/** What a person makes of the packaged configuration for this guest's lines, before the device is enrolled. */
async function shareConfiguration(stage: Stage, share: string): Promise<void> {
  const made = JSON.parse(await readFile(stage.configs.device, 'utf8')) as { device: object }
  const config = parseDocument(await readFile(join(ROOT, 'deploy/debian/device.yaml'), 'utf8'))
  config.set('device', config.createNode(made.device))
  const pulses = { path: '/s/energy', driver: 'gpio-pulse', bcm: PULSE_LINE, pulsesPerUnit: 1, unit: 'count' }
  config.set('resources', config.createNode([{ ...pulses, group: READERS, every: '1s' }]))
  await mkdir(join(share, 'conf'), { recursive: true })
  await writeFile(join(share, 'conf/device.yaml'), config.toString({ lineWidth: 0 }))
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
  'mkfs.vfat',
  'apt-get',
  'dpkg',
  'dpkg-deb',
  'mmdebstrap',
]
const status = await report.run(PROGRAMS, () => suite(tree, work))
await tree.stop()
await rm(work, { recursive: true, force: true })
process.exit(status)
