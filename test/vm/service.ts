/** The packaged device as a service: what systemd gives it, edges, the watchdog, a reload. */
import { READERS } from '../../demo/stage.ts'
import { numberOf, readingOf } from './member.ts'
import { eventually } from './report.ts'
import { active, processOf, type Scene, START_MS, STATE, sameProcess, show, UNIT } from './scene.ts'
import { edges, edgesLimitMs, PULSE_LINE } from './simulated-hardware.ts'

const PULSES = 20
const DYNAMIC_UIDS = [61184, 65519] as const

export async function serve({ report, shell }: Scene): Promise<void> {
  await active(shell)
  const { Type, ActiveState, MainPID } = await show(shell, UNIT, 'Type', 'ActiveState', 'MainPID')
  const ready = await shell.run(`journalctl -u ${UNIT} -o cat --no-pager | grep -c '"msg":"ready"' || true`)
  report.check(
    'the unit is active when the device has told that it is ready',
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

export async function edgesCount({ report, shell, reader }: Scene): Promise<void> {
  await eventually(START_MS, () => reader.join())
  await reader.listen()
  const before = await numberOf(reader, 'energy')
  await shell.run(edges(PULSE_LINE, PULSES), edgesLimitMs(PULSES))
  await readingOf(reader, 'energy', (r) => Number(r.records[0]?.value) >= before + PULSES)
  const counted = (await numberOf(reader, 'energy')) - before
  report.check('it counts edges by group gpio and the udev rule alone', counted === PULSES, `${counted} of ${PULSES}`)
}

export async function watchdog({ report, shell, reader }: Scene): Promise<void> {
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

export async function reload({ report, shell, reader }: Scene): Promise<void> {
  const before = await active(shell)
  const added = `  - { path: /s/added, driver: simulated, seed: 7, unit: Cel, group: ${READERS}, every: 1s }`
  await shell.run(`echo '${added}' >> /etc/iotchain/device.yaml && systemctl reload ${UNIT}`)
  await readingOf(reader, 'added')
  const after = await active(shell)
  report.check(
    'systemctl reload takes a new resource into the running process',
    sameProcess(before, after),
    processOf(after),
  )
}

/** What an administrator types, as root, without systemd's credentials. */
export async function commands({ report, shell, reader }: Scene): Promise<void> {
  const config = '--config /etc/iotchain/device.yaml'
  const checked = await shell.run(`iotchain-device check ${config}`)
  report.check(
    'check reads the keys where the unit takes them from',
    checked.endsWith(': ok'),
    checked.split('\n').at(-1) ?? '',
  )
  const found = await shell.run(`iotchain-device doctor ${config} || echo "exit $?"`)
  report.check(
    'doctor sees a device that serves',
    !/^fail/m.test(found) && /^ok +certificate/m.test(found) && /^ok +daemon/m.test(found),
    found.replace(/ +/g, ' ').replaceAll('\n', '; '),
  )
  await shell.run(`iotchain-device forget /s/added ${config} && systemctl reload ${UNIT}`)
  const left = await eventually(START_MS, async () => {
    const orders = await shell.run(`ls ${STATE}/forget`)
    if (orders !== '') throw new Error(`still ordered: ${orders}`)
    return shell.run(`find ${STATE} -uid 0 | wc -l`)
  })
  await readingOf(reader, 'energy')
  report.check(
    'an order that root leaves in the state is carried out',
    left === '0',
    `${left} files of root in the state`,
  )
}
