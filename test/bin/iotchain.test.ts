import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createIotchain } from '../../bin/program.ts'
import { runProgram } from '../../bin/terminal/command.ts'
import { Membership } from '../../client/group.ts'
import { ClientHome } from '../../client/home.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { Router } from '../../transport/coap/router.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { parsePath } from '../../transport/coap/uri.ts'
import { CHAIN, TestClock, TestDevice, TestKeyServer } from '../client/sealed-world.ts'
import { bundleCommand } from './bundle-command.ts'

/** `iotchain` as people run it: its words and its exit code; the last section as a process of its own. */
const folder = mkdtempSync(join(tmpdir(), 'iotchain-cli-'))
let program: string
let files = 0

beforeAll(async () => {
  program = await bundleCommand('iotchain')
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Outcome {
  code: number | null
  out: string
  err: string
}
interface Surroundings {
  home?: string
  passwordFile?: string
}

const surroundings = (options: Surroundings) => ({
  IOTCHAIN_HOME: options.home ?? join(folder, 'nowhere'),
  IOTCHAIN_PASSWORD_FILE: options.passwordFile ?? '',
})

/** The command in this process, with streams of its own. */
async function run(args: readonly string[], options: Surroundings = {}): Promise<Outcome> {
  const argv = ['node', 'iotchain', ...args]
  let out = ''
  let err = ''
  const streams = {
    stdout: { write: (text: string) => (out += text) },
    stderr: { write: (text: string) => (err += text) },
  }
  const code = await runProgram(await createIotchain(argv), argv, { streams, env: surroundings(options) })
  return { code, out, err }
}

/** The command as a process. */
function spawned(args: readonly string[], options: Surroundings = {}): Promise<Outcome> {
  const env = { ...process.env, ...surroundings(options) }
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk) => {
      out += chunk
    })
    child.stderr.on('data', (chunk) => {
      err += chunk
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, out, err }))
  })
}

/** A failure as a person wants it: exit 1, one sentence, no stack. */
async function fails(args: readonly string[], sentence: RegExp, options: Surroundings = {}): Promise<void> {
  const { code, out, err } = await run(args, options)
  expect(err).toMatch(sentence)
  expect(err).not.toMatch(/^\s+at /m)
  expect(err.split('\n').filter((l) => l.startsWith('error: ')).length).toBe(1)
  expect({ code, out }).toEqual({ code: 1, out: '' })
}

function file(content: string): string {
  const path = join(folder, `file-${files++}`)
  writeFileSync(path, content)
  return path
}

function newHome(config: Record<string, unknown> = {}): string {
  const home = join(folder, `home-${files++}`)
  new ClientHome(home).writeConfig({ ...CHAIN, ...config } as never)
  return home
}

/** A CoAP server in this process. */
async function serve(router: Router): Promise<{ uri: string; close: () => Promise<void> }> {
  const endpoint = new CoapEndpoint(await bindUdp({ host: '127.0.0.1', port: 0 }), { router })
  return { uri: `coap://127.0.0.1:${endpoint.address.port}`, close: () => endpoint.close() }
}

describe('iotchain, used wrongly', () => {
  test('unknown commands, missing arguments: exit 2 and a way on', async () => {
    for (const args of [
      ['frobnicate'],
      ['read'],
      ['read', 'a', 'b'],
      ['read', 'x', '--nonsense'],
      ['wallet', 'nothing'],
    ]) {
      const { code, err } = await run(args)
      expect(err).toMatch(/--help/)
      expect(err).not.toMatch(/^\s+at /m)
      expect(code).toBe(2)
    }
  })

  test('no settings, unreadable settings, wrong settings', async () => {
    await fails(['read', 'coap://127.0.0.1/s/temp'], /config\.yaml yet\nhint: run `iotchain init/)
    const home = join(folder, 'bad-settings')
    mkdirSync(home)
    writeFileSync(join(home, 'config.yaml'), 'chainId: 1\nregistry: "0x12"\nsurplus: 1\n')
    await fails(['read', 'coap://127.0.0.1/s/temp'], /config\.yaml:2.*registry.*config\.yaml:3.*surplus/, { home })
    await fails(['init', '--chain-id', 'one', '--registry', `0x${'11'.repeat(20)}`], /--chain-id is a whole number/)
    await fails(['init', '--chain-id', '1', '--registry', '0x11'], /not an Ethereum address/)
    await fails(['init', '--chain-id', '1', '--registry', CHAIN.registry], /there are settings/, { home: newHome() })
  })

  test('resources that are none, times that are none', async () => {
    const home = newHome()
    await fails(['read', '/s/temp'], /no CoAP address/, { home })
    await fails(['read', 'http://127.0.0.1/s/temp'], /cannot use/, { home })
    await fails(['read', 'coap://127.0.0.1:1'], /path of the resource is missing/, { home })
    await fails(['read', '/s/temp', '--proxy', 'coap://127.0.0.1'], /--proxy needs --device/, { home })
    await fails(['read', 'coap://[::1]/s/temp', '--device', '0x123'], /not an Ethereum address/, { home })
    const past = ['history', `coap://127.0.0.1/d/0x${'07'.repeat(20)}/s/temp`, '--from', 'yesterday']
    await fails(past, /no time/, { home })
    await fails(['join', `0x${'07'.repeat(20)}`], /there is no key in/, { home })
  })

  test('a chain that is not there', async () => {
    const home = newHome({ rpcUrl: 'http://127.0.0.1:1' })
    const key = file(`${'1'.repeat(64)}\n`)
    const passwordFile = file('secret\n')
    expect((await run(['wallet', 'import', key, '--light'], { home, passwordFile })).code).toBe(0)
    await fails(['offers', `0x${'07'.repeat(20)}`], /127\.0\.0\.1:1/, { home })
    await fails(['request', `0x${'07'.repeat(20)}`], /127\.0\.0\.1:1/, { home, passwordFile })
  })

  test('a server that is not there', async () => {
    const home = newHome()
    await fails(['discover', 'coap://127.0.0.1:1'], /127\.0\.0\.1/, { home })
    await fails(['discover', 'coap://no-such-host.invalid'], /no-such-host\.invalid/, { home })
  })

  test('--json: the failure as one line of JSON, with its code', async () => {
    const { code, out, err } = await run(['--json', 'read', '/s/temp'], { home: newHome() })
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(JSON.parse(err)).toMatchObject({ error: { code: 'client/bad-resource', message: expect.any(String) } })
  })
})

describe('iotchain wallet', () => {
  test('create, list, import', async () => {
    const home = join(folder, 'wallet')
    const passwordFile = file('correct horse\n')
    const made = await run(['wallet', 'create', '--light', '--json'], { home, passwordFile })
    expect(made.code).toBe(0)
    const { address, file: keyFile } = JSON.parse(made.out)
    expect(address).toMatch(/^0x[0-9a-f]{40}$/)
    const keystore = readFileSync(keyFile, 'utf8')
    expect(JSON.parse(keystore)).toMatchObject({ version: 3 })
    const list = await run(['wallet', 'list'], { home })
    expect(list).toMatchObject({ code: 0, out: expect.stringContaining(address) })
    const other = join(folder, 'wallet-2')
    expect((await run(['wallet', 'import', keyFile], { home: other, passwordFile })).code).toBe(0)
    await fails(['wallet', 'import', keyFile], /there is a key of/, { home: other, passwordFile })
    await fails(['wallet', 'import', keyFile], /does not open this key/, {
      home: join(folder, 'wallet-3'),
      passwordFile: file('wrong\n'),
    })
  })

  test('what cannot be imported, and passwords that are not there', async () => {
    const home = join(folder, 'wallet-4')
    const passwordFile = file('x\n')
    await fails(['wallet', 'import', '/nowhere/key'], /cannot be read/, { home, passwordFile })
    await fails(['wallet', 'import', file('not a key\n')], /no private key/, { home, passwordFile })
    await fails(['wallet', 'import', file('{"a":1}')], /no Ethereum keystore/, { home, passwordFile })
    await fails(['wallet', 'create'], /no terminal to ask at\nhint: give --password-file/, { home })
    await fails(['wallet', 'create'], /password file .* cannot be read/, { home, passwordFile: '/nowhere/password' })
    await fails(['wallet', 'create'], /the password is empty/, { home, passwordFile: file('\n') })
  })

  test('an imported private key is nowhere but in the keystore', async () => {
    const home = join(folder, 'wallet-5')
    const key = 'a1'.repeat(32)
    const { out, err } = await run(['wallet', 'import', file(key), '--light'], { home, passwordFile: file('x\n') })
    expect(out + err).not.toContain(key)
  })
})

describe('iotchain read', () => {
  const clock = new TestClock(Math.floor(Date.now() / 1000))
  const keyServer = new TestKeyServer(clock)
  const device = new TestDevice(7)
  const group = keyServer.group(device)
  const passwordFile = () => file('x\n')
  let served: Awaited<ReturnType<typeof serve>>
  let stored: Uint8Array = group.seal({ value: 21.5 }).signed

  beforeAll(async () => {
    const router = new Router()
      .add({
        pattern: '/d/:device/*path',
        observable: true,
        get: (r) =>
          r.params['path'] === 's/temp'
            ? { code: Code.content, payload: stored, contentFormat: ContentFormat.coseSign1 }
            : { code: Code.notFound },
        attributes: { rt: 'x' },
        links: () => [{ href: `/d/${device.address}/s/temp`, attributes: { ct: 18, rt: 'temperature' } }],
      })
      .add({ pattern: '/bc/:gid', get: () => ({ code: Code.content, payload: group.newest() }) })
    served = await serve(router)
  })
  afterAll(() => served.close())

  /** A home whose key is a member already, as an earlier join left it. */
  async function memberHome(): Promise<string> {
    const home = newHome()
    await run(['wallet', 'import', file('2'.repeat(64)), '--light'], { home, passwordFile: passwordFile() })
    const clientHome = new ClientHome(home)
    const client = clientHome.chooseKey(undefined, undefined)
    const response = group.join(client)
    const membership = Membership.fromJoin({ gid: group.gid, device: device.address, bit: 0, client, clock }, response)
    const { state, close } = clientHome.openState()
    await state.saveMembership({
      version: 1,
      client,
      device: device.address,
      bit: 0,
      gid: group.gid,
      ...CHAIN,
      keyServer: { uri: 'coaps://127.0.0.1:1', spki: new Uint8Array(32) },
      kdcCred: response.kdcCred,
      broadcasts: `${served.uri}/bc/x`,
      policies: response.policies,
      credentials: response.creds,
      member: membership.state(),
      joinedAt: clock.seconds,
    })
    await close()
    return home
  }

  test('opens a reading with the keys of an earlier join; a replay is refused in the next process', async () => {
    const home = await memberHome()
    const old = stored
    const read = ['read', `${served.uri}/d/${device.address}/s/temp`]
    const first = await run(read, { home })
    expect(first).toMatchObject({ code: 0, err: '' })
    expect(first.out).toMatch(/^temp 21\.5 °C {2}\d{4}-\d\d-\d\dT/)
    stored = group.seal({ value: 22 }).signed
    const json = await run([...read, '--json'], { home })
    expect(JSON.parse(json.out)).toMatchObject({
      device: device.address,
      path: '/s/temp',
      form: 'signed',
      session: 1,
      records: [{ name: 'temp', value: 22, unit: 'Cel' }],
    })
    stored = old
    await fails(read, /was offered again as the latest/, { home })
    stored = group.seal({ value: 23 }).signed
    expect((await run(['read', '/s/temp', '--proxy', served.uri, '--device', device.address], { home })).code).toBe(0)
    const watched = await run(['watch', ...read.slice(1), '--count', '1'], { home })
    expect(watched).toMatchObject({ code: 0, out: expect.stringContaining('temp 23 °C') })
    await fails(['read', `${served.uri}/d/${device.address}/s/none`], /there is no \/s\/none/, { home })
    await fails([...read, '--mac'], /proxies have signed objects only/, { home })
  })

  test('who is no member and knows no key server is told what is missing', async () => {
    const home = newHome()
    await fails(['read', `${served.uri}/d/${device.address}/s/temp`], /there is no key/, { home })
    await run(['wallet', 'import', file('3'.repeat(64)), '--light'], { home, passwordFile: passwordFile() })
    await fails(['read', `${served.uri}/d/${device.address}/s/temp`], /key server of .* is not known without a chain/, {
      home,
    })
  })

  test('lists what there is', async () => {
    const { out, code } = await run(['discover', served.uri])
    expect(code).toBe(0)
    expect(out).toContain(`${served.uri}/d/${device.address}/s/temp  ct=18  rt=temperature`)
    expect(parsePath('/s/temp').path).toEqual(['s', 'temp'])
    const json = await run(['discover', served.uri, '--rt', 'temperature', '--json'])
    expect(JSON.parse(json.out)).toHaveLength(1)
  })
})

describe('iotchain as a process', () => {
  test('says what is wrong in one sentence, on stderr, with its exit code', async () => {
    const cases: [string[], number, RegExp][] = [
      [['frobnicate'], 2, /unknown command/],
      [['read'], 2, /missing required argument/],
      [['read', 'coap://127.0.0.1/s/temp'], 1, /config\.yaml yet\nhint: run `iotchain init/],
      [['wallet', 'create'], 1, /no terminal to ask at/],
      [['discover', 'coap://127.0.0.1:1'], 1, /127\.0\.0\.1/],
      [['owner', 'list'], 1, /there is no owner/],
      [['--version'], 0, /^$/],
    ]
    const outcomes = await Promise.all(cases.map(([args]) => spawned(args)))
    for (const [i, { code, err }] of outcomes.entries()) {
      const [args, wanted, sentence] = cases[i]!
      expect({ args, code }).toEqual({ args, code: wanted })
      expect(err).toMatch(sentence)
      expect(err).not.toMatch(/^\s+at /m)
    }
  }, 60_000)

  test('--help lists what there is', async () => {
    const { code, out } = await spawned(['--help'])
    expect(code).toBe(0)
    for (const name of [
      'init',
      'wallet',
      'offers',
      'request',
      'join',
      'read',
      'history',
      'watch',
      'command',
      'discover',
      'mack',
      'owner',
    ]) {
      expect(out).toContain(`  ${name}`)
    }
  }, 60_000)
})
