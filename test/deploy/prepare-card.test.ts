import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

const SCRIPT = resolve(import.meta.dirname, '../../deploy/prepare-card')

let work: string
let boot: string
let packages: string

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), 'iotchain-card-'))
  boot = join(work, 'boot')
  packages = join(work, 'packages')
  for (const folder of [boot, packages]) mkdirSync(folder)
  writeFileSync(join(boot, 'config.txt'), '')
  for (const name of ['runtime', 'device']) writeFileSync(join(packages, `iotchain-${name}_1.0.0_arm64.deb`), name)
})
afterEach(() => rmSync(work, { recursive: true, force: true }))

const prepare = (...args: string[]): string =>
  execFileSync(SCRIPT, [boot, '--packages', packages, ...args], { encoding: 'utf8' })
const onCard = (file: string): string => readFileSync(join(boot, file), 'utf8')

function refusal(...args: string[]): string {
  const { status, stderr } = spawnSync(SCRIPT, args, { encoding: 'utf8' })
  expect(status).toBe(1)
  return stderr
}

describe('prepare-card', () => {
  test('a trixie card gets a cloud-init step, once', () => {
    writeFileSync(join(boot, 'user-data'), '#cloud-config\nhostname: pi\n')
    prepare()
    expect(prepare()).toContain('cloud-init')
    expect(onCard('user-data')).toBe(
      '#cloud-config\nhostname: pi\n\nruncmd:\n  - sh /boot/firmware/iotchain/install.sh\n',
    )
    expect(onCard('iotchain/iotchain-device_1.0.0_arm64.deb')).toBe('device')
  })

  test('a bookworm card gets a script on its kernel command line, which takes itself off again', () => {
    writeFileSync(join(boot, 'cmdline.txt'), 'console=tty1 root=PARTUUID=1 rootwait\n')
    prepare()
    expect(prepare()).toContain('firstrun.sh')
    const line = onCard('cmdline.txt')
    expect(line.match(/systemd\.run=/g)).toHaveLength(1)
    expect(line.trimEnd().split('\n')).toHaveLength(1)
    // The script's own line: what it leaves must be what was there, else no later boot reaches its services.
    const clean = onCard('firstrun.sh').match(/^sed -i '(.*)' \/boot\/firmware\/cmdline\.txt$/m)?.[1] as string
    const cleaned = execFileSync('sed', [clean, join(boot, 'cmdline.txt')], { encoding: 'utf8' })
    expect(cleaned.trimEnd()).toBe('console=tty1 root=PARTUUID=1 rootwait')
    for (const script of ['firstrun.sh', 'iotchain/install.sh']) execFileSync('sh', ['-n', join(boot, script)])
  })

  test('an imager\u2019s own first-run script is kept and gets one line more', () => {
    writeFileSync(join(boot, 'cmdline.txt'), 'rootwait systemd.run=/boot/firmware/firstrun.sh\n')
    writeFileSync(join(boot, 'firstrun.sh'), '#!/bin/sh\nhostname pi\nexit 0\n')
    prepare()
    prepare()
    expect(onCard('firstrun.sh')).toBe(
      '#!/bin/sh\nhostname pi\nsh /boot/firmware/iotchain/install.sh || true\nexit 0\n',
    )
  })

  test('an enrolment file lies where the device looks for it', () => {
    writeFileSync(join(boot, 'user-data'), '#cloud-config\n')
    const file = join(work, 'enrol.yaml')
    writeFileSync(file, 'keyserver: coaps://keys.example\n')
    prepare('--enrol-file', file)
    expect(onCard('iotchain-enroll.yaml')).toContain('keys.example')
  })

  test('what is wrong is said in a sentence, and nothing is written', () => {
    expect(refusal(work, '--packages', packages)).toMatch(/holds no config\.txt/)
    expect(refusal(boot)).toMatch(/--packages/)
    expect(refusal(boot, '--packages', boot)).toMatch(/npm run package -- arm64/)
    expect(refusal(boot, '--frobnicate')).toMatch(/no option --frobnicate/)
    expect(refusal(boot, '--packages', packages)).toMatch(/flash Raspberry Pi OS/)
  })
})
