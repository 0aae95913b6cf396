import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { registerKeyServerCommands } from '../../bin/commands/keyserver.ts'
import { keccak256 } from '../../chain/account.ts'
import { deployIntent } from '../../chain/deployments.ts'
import { signDescriptor } from '../../chain/descriptor.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { Hex } from '../../chain/types.ts'
import { accountFromKey } from '../../chain/wallet.ts'
import { enrol } from '../../device/enrol.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { createCa } from '../../runtime/pki/authority.ts'
import { deviceAddressOf, parseCertificates } from '../../runtime/pki/certificate.ts'
import { savePrivateKey } from '../../runtime/pki/keys.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'
import { dial } from '../../transport/dial.ts'
import { lyingNode } from '../chain/lying-node.ts'
import { bundleProgram } from '../child-program.ts'

/** The program as a person runs it, on a real chain, with real files and ports. */
const OWNER: Address = `0x${'0a'.repeat(20)}`
const folder = mkdtempSync(join(tmpdir(), 'iotchain-keyserver-cli-'))
const file = (name: string): string => join(folder, name)
const running = new Set<ChildProcess>()
let program: string
let anvil: Anvil
let rpc: JsonRpc
let registry: Address
let ca: Awaited<ReturnType<typeof createCa>>

beforeAll(async () => {
  program = await bundleProgram('bin/iotchain-keyserver.ts')
  anvil = await startAnvil({ chainId: 20180415, blockTimeSeconds: 1 })
  rpc = new JsonRpc({ url: anvil.url })
  const account = accountFromKey(anvil.keys[0] as string)
  const sender = new TransactionSender({ rpc, chainId: anvil.chainId, account, pollMs: 50 })
  registry = (await sender.send(deployIntent({ kind: 'registry' }))).contract as Address
  ca = await createCa()
  writeFileSync(file('issuing.crt'), ca.issuing.certificate)
  writeFileSync(file('issuing-chain.crt'), ca.issuing.certificate + ca.root.certificate)
  writeFileSync(file('root.crt'), ca.root.certificate)
  savePrivateKey(file('issuing.key'), ca.issuing.key)
  savePrivateKey(file('root.key'), ca.root.key)
  writeConfig('keyserver.yaml')
}, 60_000)
afterAll(async () => {
  for (const child of running) child.kill('SIGKILL')
  await anvil?.stop()
  rmSync(folder, { recursive: true, force: true })
})

function writeConfig(name: string, more: { state?: string; coaps?: string; chain?: string } = {}): string {
  writeFileSync(
    file(name),
    `state: ${more.state ?? 'state'}
listen: { coaps: "127.0.0.1:${more.coaps ?? 0}", coap: "127.0.0.1:0" }
keys: { certificate: server.crt, key: server.key, broadcast: broadcast.key }
issuers: [issuing.crt, root.crt]
chain:
  rpcUrl: ${anvil.url}
  id: ${anvil.chainId}
  registry: "${registry}"
  confirmations: 1
${more.chain ?? ''}
enrolment: { certificate: issuing-chain.crt, key: issuing.key, days: 30 }
log: { level: info }
`,
  )
  return file(name)
}

function cli(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    encoding: 'utf8',
    timeout: 30_000,
  })
  return { code: status, out: stdout, err: stderr }
}

/** The commands beside run and check, in this process: a start of Node less. */
async function command(...args: string[]): Promise<string> {
  const said: string[] = []
  const spy = vi.spyOn(console, 'log').mockImplementation((line: unknown) => void said.push(String(line)))
  const commands = new Command().exitOverride()
  registerKeyServerCommands(commands)
  try {
    await commands.parseAsync(args, { from: 'user' })
  } finally {
    spy.mockRestore()
  }
  return said.join('\n')
}

interface Run {
  readonly child: ChildProcess
  readonly port: number
  readonly lines: string[]
  stop(): Promise<number | null>
}

function run(config: string): Promise<Run> {
  const child = spawn(process.execPath, [program, 'run', '--config', config], { stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  const lines: string[] = []
  let errors = ''
  child.stderr.on('data', (text) => {
    errors += String(text)
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  return new Promise((resolve, reject) => {
    let rest = ''
    let port = 0
    child.stdout.on('data', (text) => {
      const parts = (rest + String(text)).split('\n')
      rest = parts.pop() as string
      for (const line of parts) {
        lines.push(line)
        const fields = JSON.parse(line) as { msg: string; coaps?: { port: number } }
        if (fields.coaps !== undefined) port = fields.coaps.port
        if (fields.msg === 'ready') {
          resolve({
            child,
            port,
            lines,
            stop: () => {
              child.kill('SIGTERM')
              return ended
            },
          })
        }
      }
    })
    child.once('close', (code) => {
      running.delete(child)
      reject(new Error(`ended with ${code}: ${errors}`))
    })
  })
}

describe('the commands', () => {
  test('check says what is missing; init makes it, once', async () => {
    const before = cli('check', '--config', file('keyserver.yaml'))
    expect(before).toMatchObject({ code: 0 })
    expect(before.out).toContain('server.crt is not there yet')
    const refused = cli('run', '--config', file('keyserver.yaml'))
    expect(refused.code).toBe(1)
    expect(refused.err).toMatch(/^iotchain-keyserver: .* is not there/)
    expect(refused.err).not.toMatch(/^\s+at /m)
    const options = ['--name', '127.0.0.1', '--ca-certificate', file('root.crt'), '--ca-key', file('root.key')]
    const made = cli('init', '--config', file('keyserver.yaml'), ...options)
    expect(made.code).toBe(0)
    expect(made.out.match(/^made {2}/gm)).toHaveLength(3)
    const again = await command('init', '--config', file('keyserver.yaml'), ...options)
    expect(again.match(/^kept {2}/gm)).toHaveLength(3)
    const spki = await command('spki', '--config', file('keyserver.yaml'))
    expect(spki).toMatch(/^0x[0-9a-f]{64}$/)
    expect(again).toContain(spki)
    expect(cli('check', '--config', file('keyserver.yaml')).out).toBe(`${file('keyserver.yaml')}: ok\n`)
    expect(readFileSync(file('broadcast.key'), 'utf8')).toContain('BEGIN PRIVATE KEY')
  }, 60_000)

  test('--print-config is a configuration', () => {
    const printed = cli('--print-config')
    expect(printed.code).toBe(0)
    expect(printed.out).toContain('confirmations: 12')
  })

  test.each([
    ['an address that is none', 'message/bad-address', ['code', '--owner', '0x12']],
    ['a duration that is none', 'config/bad-duration', ['code', '--owner', OWNER, '--ttl', 'soon']],
    ['a code that nobody could use', 'config/bad-duration', ['code', '--owner', OWNER, '--ttl', '0s']],
    ['nothing to revoke', 'config/invalid', ['revoke']],
    ['a serial number that is none', 'config/invalid', ['revoke', '--serial', 'xyz']],
    ['nothing said of revocations', 'config/invalid', ['recover']],
    ['half a CA', 'config/invalid', ['init', '--ca-certificate', 'root.crt']],
    ['no names', 'config/invalid', ['init', '--ca-certificate', 'root.crt', '--ca-key', 'root.key']],
  ])('%s', async (_, code, args) => {
    await expect(command(...args, '--config', file('keyserver.yaml'))).rejects.toMatchObject({ code })
  })

  test('a wrong kind of certificate, or another key, is told before anything runs', () => {
    writeFileSync(file('wrong.yaml'), readFileSync(file('keyserver.yaml'), 'utf8').replace('server.crt', 'issuing.crt'))
    const { code, err } = cli('check', '--config', file('wrong.yaml'))
    expect(code).toBe(1)
    expect(err).toContain('is not that of the certificate')
  })

  test.each([
    [
      'a certificate in the place of a revocation list',
      'issuers:',
      'crl: [server.crt]\nissuers:',
      /server\.crt: that is not a certificate rev/,
    ],
    [
      'a key in the place of a certificate',
      'server.crt',
      'server.key',
      /server\.key: there is no certificate in PEM \[.*\]\n {2}openssl x509/,
    ],
    [
      'a file that may not be looked at',
      '[issuing.crt, root.crt]',
      '[loop.crt]',
      /CA certificate .*loop\.crt cannot be read/,
    ],
    [
      'a CA that is not trusted enrols nobody',
      '[issuing.crt, root.crt]',
      '[other.crt]',
      /could not join: .*\n {2}list issuing-chain/,
    ],
  ])('check refuses %s', async (name, from, to, expected) => {
    const other = await createCa()
    writeFileSync(file('other.crt'), other.root.certificate)
    if (to.includes('loop')) symlinkSync(file('loop.crt'), file('loop.crt'))
    const changed = file(`${name.replaceAll(' ', '-')}.yaml`)
    writeFileSync(changed, readFileSync(file('keyserver.yaml'), 'utf8').replace(from, to))
    const { code, err } = cli('check', '--config', changed)
    expect(code).toBe(1)
    expect(err).toMatch(expected)
  })

  test('a key with a passphrase: init makes it, takes it again, and tells which key does not open', async () => {
    const config = file('locked.yaml')
    writeFileSync(file('passphrase'), 'three dry words\n', { mode: 0o600 })
    const keys = 'key: locked.key, passphraseFile: passphrase'
    writeFileSync(config, readFileSync(file('keyserver.yaml'), 'utf8').replace('key: server.key', keys))
    expect(await command('init', '--config', config)).toContain('made  ')
    expect(readFileSync(file('locked.key'), 'utf8')).toContain('ENCRYPTED')
    expect(await command('init', '--config', config)).not.toContain('made  ')
    writeFileSync(file('passphrase'), 'three wet words\n')
    const { err } = cli('check', '--config', config)
    expect(err).toContain(`${file('locked.key')}: the passphrase does not open the private key`)
  })
})

describe('a running key server', () => {
  test('enrols a device by its code, drops it when it is revoked, stops cleanly', async () => {
    const server = await run(file('keyserver.yaml'))
    const keyserver = `coaps://127.0.0.1:${server.port}`
    const { code } = JSON.parse(
      await command('code', '--config', file('keyserver.yaml'), '--owner', OWNER, '--json'),
    ) as { code: string }
    const told = await command('code', '--config', file('keyserver.yaml'), '--owner', OWNER)
    expect(told).toContain(
      'on the device: iotchain-device enroll --keyserver coaps://127.0.0.1:PORT, then type the code',
    )
    const enrolled = await enrol({ keyserver, code, directory: file('device') })
    expect(enrolled).toMatchObject({ owner: OWNER, chainId: 20180415, registry })
    const certificate = readFileSync(file('device/device.crt'), 'utf8')
    expect(deviceAddressOf(parseCertificates(certificate)[0] as never)).toBe(enrolled.address)
    expect(`0x${Buffer.from(enrolled.keyServer).toString('hex')}`).toBe(
      await command('spki', '--config', file('keyserver.yaml')),
    )

    const secure = {
      cert: certificate,
      key: readFileSync(file('device/device.key'), 'utf8'),
      ca: readFileSync(file('device/ca.crt'), 'utf8'),
    }
    const client = await dial(keyserver, { secure })
    expect((await client.get('/.well-known/core')).text).toContain('rt="core.ps.gm"')
    let gone = false
    await command('revoke', '--config', file('keyserver.yaml'), '--device', enrolled.address)
    for (let i = 0; i < 60 && !gone; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      gone = server.lines.some((line) => line.includes('certificates revoked'))
    }
    expect(gone).toBe(true)
    await expect(client.get('/.well-known/core', { timeoutMs: 3000 })).rejects.toThrow()
    await client.close()

    await command('revoke', '--config', file('keyserver.yaml'), '--device', OWNER)
    await vi.waitFor(() => expect(server.lines.join('\n')).toContain('nothing was revoked'), { timeout: 6000 })

    const busy = cli('run', '--config', writeConfig('busy.yaml', { state: 'busy', coaps: String(server.port) }))
    expect(busy.code).toBe(1)
    expect(busy.err).toMatch(/in use/)
    expect(busy.err).not.toMatch(/^\s+at /m)
    const recover = () => command('recover', '--config', file('keyserver.yaml'), '--none-revoked')
    await expect(recover()).rejects.toMatchObject({ code: 'store/locked' })
    expect(server.lines.join('\n')).not.toContain(code.replaceAll(' ', ''))
    expect(await server.stop()).toBe(0)
    expect(await recover()).toContain('groups recovered')
  }, 60_000)

  test('a fake server without the code gets nothing from the device', async () => {
    const server = await run(file('keyserver.yaml'))
    const keyserver = `coaps://127.0.0.1:${server.port}`
    const { code } = JSON.parse(cli('code', '--config', file('keyserver.yaml'), '--owner', OWNER, '--json').out) as {
      code: string
    }
    const wrong = code.startsWith('A') ? `B${code.slice(1)}` : `A${code.slice(1)}`
    await expect(enrol({ keyserver, code: wrong, directory: file('other') })).rejects.toMatchObject({
      code: 'device/unknown-code',
      hint: expect.stringContaining('letter by letter'),
    })
    await server.stop()
  }, 60_000)

  test('a node on another chain than the descriptor says: refused at the start', async () => {
    const genesis = await rpc.call<{ hash: Hex }>('eth_getBlockByNumber', ['0x0', false])
    const code = await rpc.call<Hex>('eth_getCode', [registry, 'latest'])
    const descriptor = {
      chainId: anvil.chainId,
      genesisHash: genesis.hash,
      registry,
      codeHashes: { registry: keccak256(code), accessToken: [] },
      enodes: [],
      checkpoint: { number: 0, hash: genesis.hash },
    }
    const config = writeConfig('descriptor.yaml', { state: 'descriptor', chain: '  descriptor: chain.json' })
    writeFileSync(file('chain.json'), signDescriptor(descriptor, ca.root.key))
    const good = await run(config)
    expect(await good.stop()).toBe(0)
    writeFileSync(
      file('chain.json'),
      signDescriptor({ ...descriptor, genesisHash: `0x${'00'.repeat(32)}` }, ca.root.key),
    )
    const impostor = cli('run', '--config', config)
    expect(impostor.code).toBe(1)
    expect(impostor.err).toContain('another genesis block')
    const { key } = (await createCa()).root
    writeFileSync(file('chain.json'), signDescriptor(descriptor, key))
    expect(cli('check', '--config', config).err).toContain('not signed by a CA of this deployment')
    writeFileSync(file('chain.json'), signDescriptor({ ...descriptor, chainId: 1 }, ca.root.key))
    expect(cli('check', '--config', config).err).toContain('another chain or registry')
  }, 60_000)

  test('several nodes that agree: the one on another chain is named, and does not stop the start', async () => {
    const stranger = await lyingNode(anvil.url, { eth_chainId: () => '0x1' })
    const honest = await lyingNode(anvil.url)
    const config = writeConfig('nodes.yaml', {
      state: 'nodes',
      chain: `  nodes: [${anvil.url}, ${honest.url}, ${stranger.url}]\n  proofs: true`,
    })
    writeFileSync(config, readFileSync(config, 'utf8').replace(/ {2}rpcUrl: .*\n/, ''))
    const checked = cli('check', '--config', config)
    expect(checked.out).toBe(`${config}: ok\n`)
    const server = await run(config)
    try {
      const said = server.lines.join('\n')
      expect(said).toContain('the chain is there')
      expect(said).toContain(`"node":"${stranger.url}","kind":"unfit"`)
      expect(said).toContain('chain/wrong-chain')
    } finally {
      await server.stop()
      await Promise.all([stranger.stop(), honest.stop()])
    }
  }, 60_000)

  test.each([
    [
      'finality where there is none',
      'confirmations: finalized',
      (result: unknown, [tag]: readonly unknown[]): unknown => {
        if (tag === 'finalized') throw 'finalized block not found'
        return { ...(result as object), difficulty: '0x2' }
      },
      /has no finality: no block is ever finalized/,
    ],
    ['storage proofs of a node that gives none', 'proofs: true', undefined, /gives no storage proofs \(eth_getProof\)/],
  ])(
    '%s: refused at the start',
    async (_, setting, lie, words) => {
      const node = await lyingNode(anvil.url, {
        eth_getProof: () => {
          throw 'unknown'
        },
        ...(lie && { eth_getBlockByNumber: lie }),
      })
      const config = writeConfig('wrong-node.yaml', { state: 'wrong-node' })
      const text = readFileSync(config, 'utf8').replace(anvil.url, node.url)
      writeFileSync(
        config,
        setting.startsWith('confirmations')
          ? text.replace('confirmations: 1', setting)
          : text.replace('chain:\n', `chain:\n  ${setting}\n`),
      )
      await expect(run(config)).rejects.toThrow(words)
      await node.stop()
    },
    60_000,
  )
})
