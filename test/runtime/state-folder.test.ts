import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { orderForget } from '../../device/forget.ts'
import { giveBack, inStateFolder } from '../../runtime/state-folder.ts'
import { bundleProgram } from '../child-program.ts'

const DAEMON = 61234

/** A state folder as systemd keeps it: of a user without a name, behind a door that is only root's. */
function state(): string {
  const private_ = mkdtempSync(join(tmpdir(), 'iotchain-state-'))
  onTestFinished(() => rmSync(private_, { recursive: true }))
  const folder = join(private_, 'daemon')
  mkdirSync(folder, { mode: 0o700 })
  chownSync(folder, DAEMON, DAEMON)
  return folder
}

const root = process.geteuid?.() === 0

describe('what a command of the administrator leaves for the daemon', () => {
  test.skipIf(!root)('is the daemon’s', async () => {
    const folder = state()
    // In a process of its own: users belong to processes, not to the threads of a test runner.
    const program = await bundleProgram('test/runtime/state-folder-child.ts')
    expect(execFileSync(process.execPath, [program, folder, '/s/temp'], { encoding: 'utf8' })).toBe('0 0\n')
    const order = join(folder, 'forget', '%2Fs%2Ftemp')
    for (const path of [join(folder, 'forget'), order]) {
      expect(statSync(path)).toMatchObject({ uid: DAEMON, gid: DAEMON })
    }
  })

  test.skipIf(!root)('is not written where a link of the daemon leads', async () => {
    const folder = state()
    const elsewhere = mkdtempSync(join(tmpdir(), 'iotchain-elsewhere-'))
    onTestFinished(() => rmSync(elsewhere, { recursive: true }))
    chmodSync(elsewhere, 0o755)
    symlinkSync(elsewhere, join(folder, 'forget'))
    const program = await bundleProgram('test/runtime/state-folder-child.ts')
    expect(() => execFileSync(process.execPath, [program, folder, '/s/temp'], { stdio: 'pipe' })).toThrow(
      /cannot be written/,
    )
    expect(statSync(resolve(elsewhere)).uid).toBe(0)
  })

  test.skipIf(!root)('is the daemon’s again after root has worked on its store', () => {
    const folder = state()
    mkdirSync(join(folder, 'store'))
    writeFileSync(join(folder, 'store', 'LOCK'), '')
    symlinkSync('/etc/hostname', join(folder, 'link'))
    const before = statSync('/etc/hostname').uid
    giveBack(folder)
    for (const name of ['store', 'store/LOCK', 'link']) expect(lstatSync(join(folder, name)).uid).toBe(DAEMON)
    expect(statSync('/etc/hostname').uid).toBe(before)
  })

  test('a folder that is not there yet, or one’s own, is used as it is', () => {
    const folder = mkdtempSync(join(tmpdir(), 'iotchain-state-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    expect(inStateFolder(join(folder, 'later'), (name) => name)).toBe(join(folder, 'later'))
    inStateFolder(folder, (name) => orderForget(name, '/s/x'))
    expect(statSync(join(folder, 'forget', '%2Fs%2Fx')).uid).toBe(process.geteuid?.() ?? 0)
  })
})
