import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'

const FOLDER = resolve(import.meta.dirname, '../systemd')
const HIGHEST = 2.0

function analyze(...args: string[]) {
  const { status, stdout, stderr, error } = spawnSync('systemd-analyze', args, { encoding: 'utf8' })
  return { missing: error !== undefined, status, text: `${stdout}${stderr}` }
}

describe.each(['device', 'keyserver', 'proxy'])('iotchain-%s.service', (role) => {
  const file = join(FOLDER, `iotchain-${role}.service`)
  const unit = readFileSync(file, 'utf8')

  test('is exposed little, as systemd judges', ({ skip }) => {
    const { missing, text } = analyze('security', '--offline=true', '--no-pager', file)
    if (missing) skip('skipped: no systemd-analyze here')
    const level = Number(/exposure level for [^:]+: ([\d.]+)/.exec(text)?.[1])
    expect(level).toBeLessThanOrEqual(HIGHEST)
    expect(level).toBeGreaterThan(0)
  })

  test('has no setting that systemd does not know', ({ skip }) => {
    const { missing, text } = analyze('verify', '--no-pager', file)
    if (missing) skip('skipped: no systemd-analyze here')
    const complaints = text.split('\n').filter((line) => line.includes(`iotchain-${role}.service`))
    expect(complaints.filter((line) => !line.includes('is not executable'))).toEqual([])
  })

  test('notifies, is watched, restarted, and stopped in time', () => {
    for (const line of [
      'Type=notify',
      'NotifyAccess=main',
      'WatchdogSec=20',
      'Restart=always',
      'DynamicUser=yes',
      'UMask=0077',
    ]) {
      expect(unit).toContain(`\n${line}\n`)
    }
    expect(unit).toContain(`ExecStart=/usr/bin/iotchain-${role} run --config /etc/iotchain/${role}.yaml\n`)
    expect(unit).not.toMatch(/^MemoryDenyWriteExecute=yes/m)
  })
})

test('udev changes groups without following the links of /sys', () => {
  const rules = readFileSync(join(FOLDER, 'udev/60-iotchain-gpio.rules'), 'utf8')
  expect(rules).toMatch(/chgrp -R gpio/)
  expect(
    rules
      .split('\n')
      .filter((l) => !l.startsWith('#'))
      .join('\n'),
  ).not.toMatch(/-RL|-LR/)
})
