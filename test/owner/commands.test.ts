import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { registerOwnerCommands } from '../../bin/commands/owner.ts'
import { createProgram, runProgram } from '../../bin/terminal/command.ts'
import { type Account, accountFromKey, createAccount } from '../../chain/wallet.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { encodeRegistrationTicket, registrationDigest } from '../../protocol/messages/registration.ts'
import { deviceAddressOf } from '../../runtime/pki/certificate.ts'
import { generateKeyPair } from '../../runtime/pki/keys.ts'
import { createCsr } from '../../runtime/pki/request.ts'
import { ANVIL_KEYS, type Anvil, startAnvil } from '../../tools/anvil.ts'

interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  // biome-ignore lint/suspicious/noExplicitAny: results of many commands
  readonly json: any
}

let anvil: Anvil
let folder: string
let home: string
let passwordFile: string

beforeAll(async () => {
  anvil = await startAnvil({ chainId: 20180415 })
  folder = mkdtempSync(join(tmpdir(), 'iotchain-owner-'))
  home = join(folder, 'home')
  passwordFile = join(folder, 'password')
  writeFileSync(passwordFile, 'correct horse\n')
})
afterAll(async () => {
  await anvil?.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** Runs one command in this process, as a person would type it. */
async function iotchain(...args: string[]): Promise<Ran> {
  let stdout = ''
  let stderr = ''
  const program = createProgram('iotchain', 'test', '0')
  registerOwnerCommands(program)
  const argv = ['node', 'iotchain', '--json', '--home', home, '--password-file', passwordFile, ...args]
  const code = await runProgram(program, argv, {
    streams: {
      stdout: { write: (text: string) => (stdout += text) },
      stderr: { write: (text: string) => (stderr += text) },
    },
    env: {},
  })
  return {
    code,
    stdout,
    stderr,
    json: stdout.startsWith('{') || stdout.startsWith('[') ? JSON.parse(stdout) : undefined,
  }
}

async function succeed(...args: string[]): Promise<Ran['json']> {
  const ran = await iotchain('owner', ...args)
  expect(ran.stderr).toBe('')
  expect(ran.code).toBe(0)
  return ran.json
}

async function fail(...args: string[]): Promise<{ code: string; message: string; hint?: string }> {
  const ran = await iotchain('owner', ...args)
  expect(ran.code).not.toBe(0)
  expect(ran.stdout).toBe('')
  expect(ran.stderr).not.toMatch(/\n\s+at /)
  return JSON.parse(ran.stderr).error
}

let owner: Account
let device: Account
let registry: Address
let contract: Address
const client = createAccount().address
const keys = { signingKey: randomBytes(32), keyServer: randomBytes(32) }

function ticket(nonce = 0, by: Account = device, change: Partial<typeof keys> = {}): string {
  const t = {
    device: device.address,
    owner: owner.address,
    ...keys,
    ...change,
    nonce,
    deadline: 4_000_000_000,
    uri: 'coap://[::1]',
  }
  const digest = registrationDigest(
    { chainId: 20180415, registry: addressBytes(registry) },
    { ...t, device: addressBytes(t.device), owner: addressBytes(t.owner) },
  )
  const file = join(folder, `ticket-${randomBytes(4).toString('hex')}`)
  writeFileSync(file, `${encodeRegistrationTicket({ ...t, deviceSig: by.signDigest(digest) })}\n`)
  return file
}

describe('iotchain owner', () => {
  test('says what to do before init', async () => {
    expect(await fail('deploy')).toMatchObject({
      code: 'owner/not-initialised',
      hint: expect.stringContaining('owner init'),
    })
  })

  test('init makes key and authority, once', async () => {
    owner = accountFromKey(ANVIL_KEYS[0] as string)
    device = createAccount()
    const keyFile = join(folder, 'funded.key')
    writeFileSync(keyFile, `${ANVIL_KEYS[0]}\n`)
    const args = ['init', '--rpc', anvil.url, '--chain-id', '20180415', '--import-key-file', keyFile, '--light']
    const made = await succeed(...args)
    expect(made.address).toBe(owner.address)
    expect(readFileSync(join(home, 'owner/key.json'), 'utf8')).not.toContain((ANVIL_KEYS[0] as string).slice(2))
    expect(await fail(...args)).toMatchObject({ code: 'owner/exists' })
  })

  test('a dry run prices and sends nothing', async () => {
    const dry = await succeed('deploy', '--dry-run')
    expect(dry.steps).toHaveLength(2)
    expect(dry.steps[0].quote.gas).toBeGreaterThan(500_000)
    expect(readLedger()).toEqual([])
  })

  test('deploy, and again: nothing is deployed twice', async () => {
    const made = await succeed('deploy')
    registry = made.registry
    contract = made.contract
    const again = await succeed('deploy')
    expect(again).toMatchObject({ registry, contract })
    expect(again.transactions.map((t: { repeated: boolean }) => t.repeated)).toEqual([true, true])
    expect(readLedger().filter((l) => l.phase === 'mined')).toHaveLength(2)
  })

  test('register by the ticket that the device signed', async () => {
    expect(await fail('register', ticket(0, createAccount()))).toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('the device has not signed'),
    })
    expect(await succeed('register', ticket())).toMatchObject({ outcome: 'registered', contracts: [contract] })
    expect(await succeed('register', ticket())).toMatchObject({ outcome: 'unchanged', transactions: [] })
    expect(await fail('register', ticket(0, device, { signingKey: randomBytes(32) }))).toMatchObject({
      code: 'owner/old-ticket',
      hint: expect.stringContaining('--nonce 1'),
    })
    expect(await succeed('register', ticket(1, device, { signingKey: randomBytes(32) }))).toMatchObject({
      outcome: 'updated',
    })
  })

  test('offer a composite policy, bound and described', async () => {
    const made = await succeed(
      'offer',
      '--policy',
      'all(puzzle(8),quota(1d,2,100))',
      '--device',
      device.address,
      '--claims',
      '0,3',
      '--max-ttl',
      '1h',
    )
    expect(made.offer).toBe(0)
    expect(made.transactions).toHaveLength(7)
    const list = await succeed('list')
    expect(list.offers).toMatchObject([
      {
        id: 0,
        claims: 9,
        maxTtlSeconds: 3600,
        active: true,
        condition: 'all of (a puzzle of 8 bits; as long as the quota lasts)',
      },
    ])
    expect(list.devices).toMatchObject([{ device: device.address, active: true, contracts: [contract] }])
    await succeed('offer', '--offer', '0', '--close')
    expect((await succeed('list')).offers[0].active).toBe(false)
    expect(await fail('offer', '--policy', 'riddle(3)', '--device', device.address, '--claims', '0')).toMatchObject({
      code: 'owner/bad-policy',
    })
  })

  test('grant, audit, revoke, bar', async () => {
    await succeed('grant', client, '--device', device.address, '--claims', '0,1', '--ttl', '1h')
    expect((await succeed('audit')).readers).toMatchObject([{ client, device: device.address, bits: [0, 1] }])
    await succeed('revoke', client, '--device', device.address)
    const audited = await succeed('audit')
    expect(audited.readers).toEqual([])
    expect(audited.events.map((e: { kind: string }) => e.kind)).toEqual(['granted', 'revoked'])
    expect(audited.events[0]).toMatchObject({ by: owner.address, client })
    await succeed('bar', client, '--device', device.address, '--for', '1h')
    expect(await fail('grant', client, '--device', device.address)).toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('barred until'),
    })
    await succeed('bar', client, '--device', device.address, '--lift')
    await succeed('grant', client, '--device', device.address)
  })

  test('appoint and dismiss, update, transfer, deactivate', async () => {
    const other = createAccount().address
    await succeed('appoint', other)
    await succeed('dismiss', other)
    await succeed('update', device.address, '--uri', 'coap://elsewhere')
    // a token of a contract that the device does not name opens nothing, and the audit says so
    await succeed('deploy', '--name', 'second')
    await succeed('grant', other, '--device', device.address, '--contract', 'second')
    const idle = (await succeed('audit')).readers.find((r: { client: string }) => r.client === other)
    expect(idle).toMatchObject({ idle: expect.stringContaining('does not name this contract') })
    await succeed('transfer', device.address, other)
    expect(await fail('accept', device.address)).toMatchObject({
      code: 'chain/reverted',
      message: expect.stringContaining('not offered to this account'),
    })
    await succeed('deactivate', device.address)
    expect(await fail('update', device.address, '--uri', 'x')).toMatchObject({ code: 'owner/not-yours' })
  })

  test('certificates', async () => {
    const { privateKey } = generateKeyPair()
    const { pem } = await createCsr({ address: device.address, privateKey })
    const csr = join(folder, 'device.csr')
    writeFileSync(csr, pem)
    const out = join(folder, 'device.crt')
    await succeed('ca', 'device', csr, '--out', out)
    expect(
      deviceAddressOf(`${readFileSync(out, 'utf8').split('-----END CERTIFICATE-----')[0]}-----END CERTIFICATE-----\n`),
    ).toBe(device.address)
    const server = await succeed('ca', 'server', 'localhost', '127.0.0.1', '--out', join(folder, 'ks'))
    expect((await succeed('ca', 'server', 'localhost', '--out', join(folder, 'ks'))).spki).toBe(server.spki)
    execFileSync('openssl', [
      'verify',
      '-CAfile',
      join(home, 'owner/ca/root.crt'),
      '-untrusted',
      join(home, 'owner/ca/devices.crt'),
      out,
    ])
    await succeed('ca', 'revoke', device.address)
    expect((await succeed('ca', 'list')).map((l: { kind: string }) => l.kind)).toEqual([
      'device',
      'server',
      'server',
      'revoked',
    ])
    expect(await fail('ca', 'revoke', device.address)).toMatchObject({ code: 'owner/no-certificate' })
  })
})

function readLedger(): { phase: string }[] {
  try {
    const text = readFileSync(join(home, 'owner/ledger.jsonl'), 'utf8')
    return text
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l))
  } catch {
    return []
  }
}
