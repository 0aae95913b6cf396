import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'

/** The build at install, and what a machine without the binding says. */
const root = resolve(import.meta.dirname, '../../..')
const script = join(root, 'tools', 'build-dtls.mjs')
const folder = mkdtempSync(join(tmpdir(), 'iotchain-build-'))
const out = join(folder, 'dtls.node')

afterAll(() => rmSync(folder, { recursive: true, force: true }))
afterEach(() => {
  vi.unstubAllEnvs()
  vi.resetModules()
})

function build(args: string[], environment: Record<string, string> = {}) {
  const { npm_lifecycle_event: _, IOTCHAIN_REQUIRE_DTLS: __, ...own } = process.env
  const run = spawnSync(process.execPath, [script, '--out', out, ...args], {
    encoding: 'utf8',
    env: { ...own, ...environment },
  })
  return { status: run.status, said: run.stderr.trim() }
}

const compiler = spawnSync('cc', ['--version']).error === undefined
const skipped = compiler ? '' : ' (skipped: no C compiler)'

describe('the build', () => {
  test.skipIf(!compiler)(`takes seconds, warns of nothing, and leaves what is up to date alone${skipped}`, () => {
    expect(build([])).toEqual({ status: 0, said: '' })
    const before = statSync(out).mtimeMs
    expect(build([])).toEqual({ status: 0, said: '' })
    expect(statSync(out).mtimeMs).toBe(before)
    expect(readdirSync(folder).sort()).toEqual(['dtls.node', 'dtls.node.json'])
  })

  test('without a compiler says what to install in one sentence, and does not break the installation', () => {
    const without = ['--force', '--cc', join(folder, 'no-such-compiler')]
    const install = build(without, { npm_lifecycle_event: 'install' })
    expect(install.status).toBe(0)
    expect(install.said).toMatch(
      /^iotchain: DTLS \(coaps:\/\/\) is not available: there is no C compiler .*apt install gcc[^\n]*$/,
    )
    expect(build(without, { npm_lifecycle_event: 'install', IOTCHAIN_REQUIRE_DTLS: '1' }).status).toBe(1)
    expect(build(without)).toEqual({ status: 1, said: install.said })
  })

  test.skipIf(!compiler)(`without headers likewise${skipped}`, () => {
    const empty = join(folder, 'include')
    mkdirSync(empty)
    const run = build(['--force', '--include', empty], { npm_lifecycle_event: 'install' })
    expect(run.status).toBe(0)
    expect(run.said).toMatch(/^iotchain: DTLS .*a header is missing .*apt install [^\n]*libssl-dev[^\n]*$/)
    rmSync(empty, { recursive: true })
  })
})

describe('a machine without the binding', () => {
  const load = async () => (await import('../../../transport/dtls/binding.ts')).dtlsAvailable()

  test('says that it is not built, when coaps is first used', async () => {
    vi.stubEnv('IOTCHAIN_DTLS_BINDING', join(folder, 'nowhere.node'))
    expect(await load()).toMatchObject({ available: false, error: { code: 'dtls/not-built', hint: /build-dtls/ } })
    const { connect } = await import('../../../transport/dtls/connect.ts')
    expect(() => connect('127.0.0.1', 5684, { expectSpki: new Uint8Array(32) })).toThrow(
      expect.objectContaining({ code: 'dtls/not-built' }),
    )
  })

  test('or built for another machine', async () => {
    const file = join(folder, 'other.node')
    writeFileSync(file, 'not a library')
    vi.stubEnv('IOTCHAIN_DTLS_BINDING', file)
    const found = await load()
    expect(found).toMatchObject({ available: false, error: { code: 'dtls/unsupported' } })
    expect((found as { error: Error }).error.message).not.toContain('\n')
  })

  test('here it is there', async () => {
    expect(await load()).toMatchObject({ available: true, openssl: expect.stringMatching(/^OpenSSL 3\./) })
  })
})
