/**
 * The maintainer scripts of a daemon's package against a root in a folder, with stand-ins for systemd's programs that
 * write down what they are asked. On a real Debian: `npm run test:vm:systemd`.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { DAEMONS } from '../../tools/package/plans.ts'
import { daemonScripts } from '../../tools/package/scripts.ts'

const UNITS = ['iotchain-device.service', 'iotchain-device-enroll.service']
const CONFIG = 'etc/iotchain/device.yaml'
const KEY = 'etc/iotchain/device/device.key'
const STATE = 'var/lib/private/iotchain-device/sequence'

function debian() {
  const root = mkdtempSync(join(tmpdir(), 'iotchain-debian-'))
  onTestFinished(() => rmSync(root, { recursive: true }))
  const at = (path: string): string => join(root, path)
  const put = (path: string, text: string, mode = 0o644): void => {
    mkdirSync(dirname(at(path)), { recursive: true })
    writeFileSync(at(path), text, { mode })
  }
  for (const name of ['deb-systemd-helper', 'deb-systemd-invoke', 'systemctl', 'systemd-sysusers', 'udevadm'])
    put(`usr/bin/${name}`, `#!/bin/sh\necho ${name} "$@" >> ${at('calls')}\n`, 0o755)
  mkdirSync(at('run/systemd/system'), { recursive: true })
  mkdirSync(at('var/lib'), { recursive: true })
  put('usr/share/iotchain/device.yaml', 'first: 1\n')
  const scripts = daemonScripts(UNITS, { state: 'iotchain-device', keys: 'device', config: 'device.yaml' })
  /** Runs a script as dpkg would. @returns what it asked of systemd */
  const run = (name: string, ...args: string[]): string => {
    rmSync(at('calls'), { force: true })
    const text = (scripts[name] as string).replaceAll(/ \/(etc|usr|var|run)\//g, ` ${root}/$1/`)
    const env = { PATH: `${at('usr/bin')}:/usr/bin:/bin` }
    execFileSync('/bin/sh', ['-c', text, name, ...args], { env })
    return existsSync(at('calls')) ? readFileSync(at('calls'), 'utf8') : ''
  }
  return { at, put, run }
}

test('the first installation makes the configuration and starts; upgrades leave it alone and restart', () => {
  const { at, put, run } = debian()
  const first = run('postinst', 'configure', '')
  expect(readFileSync(at(CONFIG), 'utf8')).toBe('first: 1\n')
  expect(statSync(at(CONFIG)).mode & 0o777).toBe(0o644)
  for (const unit of UNITS) expect(first).toContain(`deb-systemd-helper enable ${unit}\n`)
  expect(first).toContain(`deb-systemd-invoke start ${UNITS.join(' ')}\n`)
  put(CONFIG, 'mine: 1\n')
  put('usr/share/iotchain/device.yaml', 'second: 1\n')
  const later = run('postinst', 'configure', '0.1.0')
  expect(readFileSync(at(CONFIG), 'utf8')).toBe('mine: 1\n')
  expect(later).toContain(`deb-systemd-invoke restart ${UNITS.join(' ')}\n`)
  expect(run('prerm', 'upgrade', '0.2.0')).toBe('')
})

test('a configuration that its user deleted stays deleted', () => {
  const { at, run } = debian()
  run('postinst', 'configure', '')
  rmSync(at(CONFIG))
  run('postinst', 'configure', '0.1.0')
  expect(existsSync(at(CONFIG))).toBe(false)
})

test('a removal stops and keeps; a purge leaves nothing of the package, and what others have there', () => {
  const { at, put, run } = debian()
  run('postinst', 'configure', '')
  put(KEY, 'key')
  put(STATE, 'state')
  symlinkSync('private/iotchain-device', at('var/lib/iotchain-device'))
  put('etc/iotchain/proxy.yaml', 'of another package')
  expect(run('prerm', 'remove')).toContain(`deb-systemd-invoke stop ${UNITS.join(' ')}\n`)
  expect(run('postrm', 'remove')).toContain(`deb-systemd-helper mask ${UNITS.join(' ')}\n`)
  for (const path of [CONFIG, KEY, STATE]) expect(existsSync(at(path))).toBe(true)
  expect(run('postrm', 'purge')).toContain(`deb-systemd-helper purge ${UNITS.join(' ')}\n`)
  for (const path of [CONFIG, dirname(KEY), dirname(STATE), 'var/lib/iotchain-device'])
    expect(existsSync(at(path))).toBe(false)
  expect(existsSync(at('etc/iotchain/proxy.yaml'))).toBe(true)
})

test('no package lays a file of /etc that its own program writes into', () => {
  for (const { files } of DAEMONS) for (const [, to] of files) expect(to).not.toMatch(/^etc\//)
})
