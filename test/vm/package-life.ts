/** The packages as a Debian user meets them: installed, upgraded, stopped, removed, installed again, purged. */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { numberOf } from './member.ts'
import {
  APT_MS,
  active,
  apt,
  ENROL_UNIT,
  type Guest,
  installation,
  type Scene,
  START_MS,
  STATE,
  show,
  UNIT,
  WATCHDOG_MS,
} from './scene.ts'

const ROOT = resolve(import.meta.dirname, '..', '..', '..')
const CONFIG = '/etc/iotchain/device.yaml'

export function laterThanThis(): string {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  return `${version}+1`
}

export async function install({ report, shell, first }: Guest): Promise<void> {
  await shell.run(installation(first), APT_MS)
  const enabled = await shell.run(`systemctl is-enabled ${UNIT} ${ENROL_UNIT}`)
  report.check(
    'apt installs the packages and enables the units',
    enabled === 'enabled\nenabled',
    enabled.replace('\n', ', '),
  )
  const { ActiveState, ConditionResult } = await show(shell, UNIT, 'ActiveState', 'ConditionResult')
  report.check(
    'a device that is not enrolled stays off, without a failure',
    ActiveState === 'inactive' && ConditionResult === 'no',
    `${ActiveState}, condition ${ConditionResult}`,
  )
  const units = [UNIT, ENROL_UNIT].map((unit) => `/etc/systemd/system/${unit}.d`)
  // An emulated processor on a busy host needs longer than the units allow; nothing else of them is changed.
  await shell.run(`for d in ${units.join(' ')}; do
mkdir -p $d && printf '[Service]\\nTimeoutStartSec=${START_MS / 1000}\\n' > $d/slow.conf
done
printf 'WatchdogSec=${WATCHDOG_MS / 1000}\\n' >> /etc/systemd/system/${UNIT}.d/slow.conf
cat /share/conf/device.yaml > ${CONFIG} && systemctl daemon-reload`)
}

export async function upgrade({ report, shell, reader, later }: Scene): Promise<void> {
  const counter = await numberOf(reader, 'energy')
  const before = await active(shell)
  const enrolment = 'cd /etc/iotchain && sha256sum device.yaml device/*'
  const had = await shell.run(enrolment)
  await shell.run(installation(later), APT_MS)
  const after = await active(shell)
  const version = await shell.run('dpkg -s iotchain-device | sed -n "s/^Version: //p"')
  const has = await shell.run(enrolment)
  const again = await numberOf(reader, 'energy')
  report.check(
    'an upgrade to another default asks nothing and restarts the service',
    version === laterThanThis() && after['MainPID'] !== before['MainPID'],
    version,
  )
  report.check(
    'it keeps configuration, enrolment and state',
    has === had && again >= counter,
    `${has.split('\n').length} files are the same, counter ${counter}, then ${again}`,
  )
}

export async function remove({ report, shell, reader, later }: Scene): Promise<void> {
  const counter = await numberOf(reader, 'energy')
  await shell.run(`systemctl stop ${UNIT}`, START_MS)
  const { ActiveState, Result } = await show(shell, UNIT, 'ActiveState', 'Result')
  report.check(
    'it stops when asked to',
    ActiveState === 'inactive' && Result === 'success',
    `${ActiveState}, ${Result}`,
  )
  await shell.run(`systemctl start ${UNIT}`, START_MS)
  const started = await active(shell)
  report.check('it starts when asked to', started['ActiveState'] === 'active', `process ${started['MainPID']}`)
  await shell.run(apt('remove iotchain-device'), APT_MS)
  const left = await shell.run(`ls -d ${CONFIG} /etc/iotchain/device/device.key ${STATE}/sequence
ls /usr/bin/iotchain-device 2>&1 || true; ls -d /proc/${started['MainPID']} 2>&1 || true
systemctl start ${UNIT} 2>&1 || echo refused`)
  report.check(
    'a removal stops it; configuration, keys and state are there, the program is not',
    left.startsWith('/etc') && left.match(/No such file/g)?.length === 2 && left.endsWith('refused'),
    'kept',
  )
  await shell.run(installation(later.slice(1)), APT_MS)
  await active(shell)
  const again = await numberOf(reader, 'energy')
  report.check('installed again it goes on where it ended', again >= counter, `${counter}, then ${again}`)
}

export async function purge({ report, shell }: Guest): Promise<void> {
  await shell.run(`rm -r /etc/systemd/system/*.service.d && ${apt('purge iotchain-device iotchain-runtime')}`, APT_MS)
  const left = await shell.run(
    // What systemd leaves of a private /tmp when the disk is read-only at the end of a service goes with the next start.
    "find / -xdev -name '*iotchain*' -not -path '/share/*' -not -path '/proc/*' -not -path '/var/log/*' " +
      "-not -path '*/tmp/systemd-private-*'; " +
      "systemctl list-units --all --no-legend '*iotchain*'",
    300_000,
  )
  report.check('after a purge nothing is left', left === '', left.replaceAll('\n', ' ') || 'nothing')
}
