import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

const SCRIPT = resolve(import.meta.dirname, '../../deploy/build-image')

let work: string
let out: string

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), 'iotchain-build-image-'))
  out = join(work, 'pi.img')
})
afterEach(() => rmSync(work, { recursive: true, force: true }))

function refusal(...args: string[]): string {
  const { status, stderr } = spawnSync(SCRIPT, args, { encoding: 'utf8' })
  expect(status).toBe(1)
  expect(stderr.trimEnd().split('\n')).toHaveLength(1)
  expect(existsSync(out)).toBe(false)
  return stderr
}

/** What is made is looked at by `npm run test:image`. */
describe('build-image', () => {
  test('is a shell script, and tells its options', () => {
    execFileSync('sh', ['-n', SCRIPT])
    const help = execFileSync(SCRIPT, ['--help'], { encoding: 'utf8' })
    for (const option of ['--packages', '--out', '--enrol-file', '--ssh-key', '--hostname', '--mirror'])
      expect(help).toContain(option)
    expect(help).not.toContain('set -eu')
  })

  test('what is wrong is said in a sentence before anything is fetched', () => {
    const packages = ['--packages', work, '--out', out]
    expect(refusal('--out', out)).toMatch(/--packages/)
    expect(refusal('--packages', work)).toMatch(/--out/)
    expect(refusal('--out')).toMatch(/--out needs a value/)
    expect(refusal('--frobnicate')).toMatch(/no option --frobnicate/)
    expect(refusal(...packages)).toMatch(/npm run package -- arm64/)
    for (const name of ['runtime', 'device']) writeFileSync(join(work, `iotchain-${name}_1.0.0_arm64.deb`), '')
    expect(refusal(...packages, '--enrol-file', join(work, 'none.yaml'))).toMatch(/none\.yaml is not there/)
    expect(refusal(...packages, '--ssh-key', SCRIPT)).toMatch(/no public SSH key/)
    expect(refusal(...packages, '--hostname', 'Not_a_host')).toMatch(/no host name/)
  })
})
