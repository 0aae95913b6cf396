import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dial } from '../../transport/dial.ts'
import { bundleCommand } from './bundle-command.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const folder = mkdtempSync(join(tmpdir(), 'iotchain-proxy-cli-'))
let program: string
const children = new Set<ChildProcess>()

beforeAll(async () => {
  program = await bundleCommand('iotchain-proxy')
})
afterAll(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

const KEY_SERVER = `keyservers:\n  - uri: coaps://127.0.0.1:1\n    spki: "${'ab'.repeat(32)}"\n`

function config(text: string): string {
  const path = join(mkdtempSync(join(folder, 'c-')), 'proxy.yaml')
  writeFileSync(path, text)
  return path
}

function start(args: readonly string[]): ChildProcess & { text: () => string } {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  children.add(child)
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      text += chunk
    })
  }
  return Object.assign(child, { text: () => text })
}

function run(args: readonly string[]): Promise<{ code: number | null; text: string }> {
  const child = start(args)
  return new Promise((done) => child.on('close', (code) => done({ code, text: child.text() })))
}

describe('iotchain-proxy', () => {
  test('check loads the whole daemon with the example, and no ethers', async () => {
    expect(await run(['check', '--config', join(ROOT, 'deploy/examples/proxy.yaml')])).toMatchObject({ code: 0 })
    const parts = readdirSync(dirname(program)).map((name) => readFileSync(join(dirname(program), name), 'utf8'))
    expect(parts.length).toBeGreaterThan(0)
    expect(parts.filter((text) => /["']ethers["'/]/.test(text))).toEqual([])
  })

  test('--print-config prints what check takes', async () => {
    const { code, text } = await run(['--print-config'])
    expect(code).toBe(0)
    expect(
      await run(['check', '--config', config(text.replace('ca: ca.pem', `spki: "${'ab'.repeat(32)}"`))]),
    ).toMatchObject({
      code: 0,
    })
  })

  test('bad configurations: one sentence, no stack', async () => {
    const cases: [string, RegExp][] = [
      ['coap: {}', /keyservers: is missing/],
      ['keyservers: []', /at least one key server/],
      ['keyservers:\n  - uri: coaps://x', /needs spki or ca/],
      ['keyservers:\n  - uri: coap://x\n    spki: "00"', /must begin with coaps/],
      [`${KEY_SERVER}colour: red`, /there is no setting "colour"/],
      [`${KEY_SERVER}http:\n  listen: nonsense`, /no address with a port/],
      [`${KEY_SERVER}accept:\n  maxSkew: soon`, /no duration/],
      [KEY_SERVER.replace('spki', 'ca').replace(/"[0-9a-f]+"/, 'nowhere.pem'), /CA file .*nowhere\.pem cannot be read/],
      [
        KEY_SERVER.replace('spki', 'ca').replace(/"[0-9a-f]+"/, 'proxy.yaml'),
        /proxy\.yaml: there is no certificate in PEM \[pki\/bad-certificate\]\n {2}openssl x509/,
      ],
    ]
    for (const [text, sentence] of cases) {
      const { code, text: said } = await run(['check', '--config', config(text)])
      expect(said).toMatch(sentence)
      expect(said).not.toMatch(/^\s+at /m)
      expect(code).toBe(1)
    }
  })

  test('a busy port is told', async () => {
    const socket = createSocket('udp4')
    await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
    const { code, text } = await run([
      'run',
      '--config',
      config(`${KEY_SERVER}state: state\ncoap: { host: 127.0.0.1, port: ${socket.address().port} }`),
    ])
    socket.close()
    expect(text).toMatch(/in use|busy/)
    expect(text).not.toMatch(/^\s+at /m)
    expect(code).toBe(1)
  })

  test('runs without its key server, outlives garbage and an upload that never ends, stops at SIGTERM', async () => {
    const child = start(['run', '--config', config(`${KEY_SERVER}state: state\ncoap: { host: 127.0.0.1, port: 0 }`)])
    await expect.poll(child.text, { timeout: 15_000 }).toMatch(/"msg":"ready"/)
    const port = Number(/"coap":(\d+)/.exec(child.text())?.[1])
    const socket = createSocket('udp4')
    const send = (hex: string) =>
      new Promise<void>((done) => socket.send(Buffer.from(hex, 'hex'), port, '127.0.0.1', () => done()))
    for (const hex of ['', '00', '40000001', 'ff'.repeat(40), '4f010203', '40030005b1640df1', 'c0010203'])
      await send(hex)
    // PUT /d/0x00 with Block1 number 0, more to come; the rest never comes.
    await send(`44030099aabbccddb16404307830302112${'d10e07'}ff${'00'.repeat(64)}`)
    const client = await dial(`coap://127.0.0.1:${port}`)
    expect((await client.get('/.well-known/core')).codeText).toBe('2.05')
    const put = await client.put(`/d/0x${'01'.repeat(20)}/s/x`, new Uint8Array(100), { contentFormat: 18 })
    expect(put.codeText).toBe('4.00')
    await client.close()
    socket.close()
    const ended = new Promise((done) => child.on('close', done))
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
    expect(child.text()).toMatch(/"msg":"stopped"/)
  })
})
