import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'

const FOLDER = resolve(import.meta.dirname, '../systemd')
const HIGHEST = 2.0

const UNITS = readdirSync(FOLDER).filter((name) => name.endsWith('.service'))

function analyze(...args: string[]) {
  const { status, stdout, stderr, error } = spawnSync('systemd-analyze', args, { encoding: 'utf8' })
  return { missing: error !== undefined, status, text: `${stdout}${stderr}` }
}

/** What CI is to prove it must not leave out. */
function needed(missing: boolean, skip: (why: string) => void): void {
  if (!missing) return
  if (process.env['CI'] !== undefined) throw new Error('systemd-analyze is missing: apt install systemd')
  skip('skipped: no systemd-analyze here')
}

/** From 0, safe, to 10; NaN when systemd says nothing. */
const exposure = (text: string): number => Number(/exposure level for [^:]+: ([\d.]+)/.exec(text)?.[1])

/** What `systemd-analyze verify` says about a unit; programs are not installed where it is looked at. */
const complaints = (text: string, unit: string): string[] =>
  text.split('\n').filter((line) => line.includes(unit) && !line.includes('is not executable'))

test('every unit of the packages is looked at', () => {
  const roles = ['device', 'device-enroll', 'keyserver', 'proxy']
  expect(UNITS.sort()).toEqual(roles.map((role) => `iotchain-${role}.service`).sort())
})

describe.each(UNITS)('%s', (name) => {
  const file = join(FOLDER, name)

  test('is exposed little, as systemd judges', ({ skip }) => {
    const { missing, text } = analyze('security', '--offline=true', '--no-pager', file)
    needed(missing, skip)
    expect(exposure(text)).toBeLessThanOrEqual(HIGHEST)
    expect(exposure(text)).toBeGreaterThan(0)
  })

  test('has no setting that systemd does not know', ({ skip }) => {
    const { missing, text } = analyze('verify', '--no-pager', file)
    needed(missing, skip)
    expect(complaints(text, name)).toEqual([])
  })
})

test('the judge finds an open unit and an unknown setting', ({ skip }) => {
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-unit-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'iotchain-open.service')
  const unit = readFileSync(join(FOLDER, 'iotchain-device.service'), 'utf8')
  writeFileSync(file, `${unit.replace(/^(Protect|Private|Restrict|Capab).*\n/gm, '')}[Service]\nProtectSistem=strict\n`)
  const { missing, text } = analyze('security', '--offline=true', '--no-pager', file)
  needed(missing, skip)
  expect(exposure(text)).toBeGreaterThan(HIGHEST)
  expect(complaints(analyze('verify', '--no-pager', file).text, 'iotchain-open.service')).toEqual([
    expect.stringContaining('ProtectSistem'),
  ])
})

describe.each(['device', 'keyserver', 'proxy'])('iotchain-%s.service', (role) => {
  const unit = readFileSync(join(FOLDER, `iotchain-${role}.service`), 'utf8')

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
