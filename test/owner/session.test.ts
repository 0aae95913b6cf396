import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { accountFromKey, createAccount } from '../../chain/wallet.ts'
import { grant, revoke } from '../../owner/actions.ts'
import { deployContract, deployRegistry } from '../../owner/deploy.ts'
import { OwnerFolder } from '../../owner/folder.ts'
import { Ledger, type LedgerLine } from '../../owner/ledger.ts'
import { parsePolicy } from '../../owner/policy-text.ts'
import { type OwnerProgress, OwnerSession } from '../../owner/session.ts'
import { ZERO_ADDRESS } from '../../protocol/messages/address.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'

let anvil: Anvil
let home: string
beforeAll(async () => {
  anvil = await startAnvil({ chainId: 20180415 })
})
afterAll(async () => anvil?.stop())
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'iotchain-session-'))
})
afterEach(() => rmSync(home, { recursive: true, force: true }))

const owner = () => accountFromKey(anvil.keys[0] as string)

function open(
  change: { onProgress?: (p: OwnerProgress) => void; signal?: AbortSignal; dryRun?: boolean } = {},
): OwnerSession {
  const folder = new OwnerFolder(home)
  if (!folder.exists) folder.create({ rpcUrl: anvil.url, chainId: anvil.chainId })
  return new OwnerSession({ folder, config: folder.config(), account: owner(), pollMs: 10, ...change })
}

describe('a command that was cut off is run again', () => {
  test('between signing and sending: it is sent once', async () => {
    const cut = open({
      onProgress: (p) => {
        if (p.phase === 'signed') throw new Error('power cut')
      },
    })
    await expect(deployRegistry(cut)).rejects.toThrow('power cut')
    expect(new Ledger(cut.folder.ledgerFile).lines.map((l) => l.phase)).toEqual(['signed'])
    const phases: string[] = []
    const again = open({ onProgress: (p) => phases.push(p.phase) })
    const before = await again.rpc.call<string>('eth_getTransactionCount', [owner().address, 'latest'])
    const registry = await deployRegistry(again)
    const after = await again.rpc.call<string>('eth_getTransactionCount', [owner().address, 'latest'])
    expect(Number(after) - Number(before)).toBe(1)
    expect(phases[0]).toBe('resumed')
    expect(open().registry).toBe(registry)
    // and a third time nothing is sent at all
    expect(await deployRegistry(open())).toBe(registry)
  })

  test('while waiting for a block: it goes on with the same transaction', async () => {
    const first = open()
    await first.rpc.call('evm_setAutomine', [false])
    const stop = new AbortController()
    const cut = open({
      signal: stop.signal,
      onProgress: (p) => {
        if (p.phase === 'sent') stop.abort()
      },
    })
    await expect(deployContract(cut, 'main', ZERO_ADDRESS)).rejects.toMatchObject({ name: 'AbortError' })
    await first.rpc.call('evm_setAutomine', [true])
    await first.rpc.call('anvil_mine', ['0x1'])
    const again = open()
    const contract = await deployContract(again, 'main', ZERO_ADDRESS)
    expect(again.steps).toMatchObject([{ repeated: true }])
    expect(again.contract('main')).toBe(contract)
  })

  test('a grant that is repeated on purpose is a new grant', async () => {
    const contract = await deployContract(open(), 'main', ZERO_ADDRESS)
    const [client, device] = [createAccount().address, createAccount().address]
    const g = { contract, clients: [client], device, ttlSeconds: 60, claims: 1 }
    await grant(open(), g)
    await grant(open(), g)
    await revoke(open(), contract, [client], device)
    await grant(open(), g)
    await deployRegistry(open())
    const reader = open().reader()
    const [token] = await reader.atHead((h) => reader.tokensOf(contract, device, [client], h))
    expect(token?.serial).toBe(4)
  })

  test('one that was cut off long ago does not stand for a new one', async () => {
    const contract = await deployContract(open(), 'main', ZERO_ADDRESS)
    await deployRegistry(open())
    const [client, device] = [createAccount().address, createAccount().address]
    const g = { contract, clients: [client], device, ttlSeconds: 60, claims: 1 }
    await grant(open(), g)
    // the ledger as a power cut between mining and noting would have left it, two hours ago
    const { ledgerFile } = open().folder
    const lines = readFileSync(ledgerFile, 'utf8').trim().split('\n')
    const signed = JSON.parse(lines.at(-2) as string) as LedgerLine
    expect(signed.phase).toBe('signed')
    const old = { ...signed, at: new Date(Date.now() - 7_200_000).toISOString() }
    writeFileSync(ledgerFile, `${[...lines.slice(0, -2), JSON.stringify(old)].join('\n')}\n`)
    await grant(open(), g)
    const reader = open().reader()
    const [token] = await reader.atHead((h) => reader.tokensOf(contract, device, [client], h))
    expect(token?.serial).toBe(2)
  })

  test('a development chain that forgot is deployed to again', async () => {
    const snapshot = await open().rpc.call<string>('evm_snapshot')
    await deployRegistry(open())
    await open().rpc.call('evm_revert', [snapshot])
    const again = open()
    await deployRegistry(again)
    expect(again.steps).toMatchObject([{ repeated: false }])
  })

  test('many clients in a few transactions, each once', async () => {
    const contract = await deployContract(open(), 'main', ZERO_ADDRESS)
    const device = createAccount().address
    const clients = Array.from({ length: 250 }, (_, i) => `0x${(i + 1).toString(16).padStart(40, '0')}` as const)
    const session = open()
    await grant(session, { contract, clients: [...clients, ...clients], device, ttlSeconds: 60, claims: 1 })
    expect(session.steps).toHaveLength(2)
    const dry = open({ dryRun: true })
    await grant(dry, { contract, clients, device, ttlSeconds: 60, claims: 1 })
    expect(dry.steps.every((s) => s.receipt === undefined && (s.quote?.gas ?? 0n) > 100_000n)).toBe(true)
  })
})

describe('the ledger', () => {
  const line = (key: string): LedgerLine => ({
    at: new Date(0).toISOString(),
    key,
    what: 'x',
    chainId: 7,
    from: ZERO_ADDRESS,
    phase: 'mined',
    hash: '0x1',
  })

  test('passes over a line that a power cut tore, and goes on after it', () => {
    const file = join(home, 'ledger.jsonl')
    new Ledger(file).append(line('a'))
    appendFileSync(file, '{"key":"b","pha')
    const ledger = new Ledger(file)
    expect(ledger.lines.map((l) => l.key)).toEqual(['a'])
    ledger.append(line('c'))
    expect(new Ledger(file).lines.map((l) => l.key)).toEqual(['a', 'c'])
    expect(new Ledger(file).latest('a', 8, ZERO_ADDRESS)).toBeUndefined()
  })

  test('that cannot be written stops everything', async () => {
    const session = open()
    rmSync(home, { recursive: true, force: true })
    const before = await session.rpc.call('eth_getTransactionCount', [owner().address, 'pending'])
    await expect(deployRegistry(session)).rejects.toMatchObject({
      code: 'owner/ledger',
      hint: expect.stringContaining('Nothing was sent'),
    })
    expect(await session.rpc.call('eth_getTransactionCount', [owner().address, 'pending'])).toBe(before)
  })
})

describe('the folder', () => {
  test('damaged settings and records say so', () => {
    const session = open()
    writeFileSync(join(home, 'owner/standing.json'), '{')
    expect(() => session.contract('main')).toThrow(expect.objectContaining({ code: 'owner/damaged' }))
    writeFileSync(join(home, 'owner/config.yaml'), 'chainId: 7\ncolour: red\n')
    expect(() => session.folder.config()).toThrow(expect.objectContaining({ code: 'config/invalid' }))
  })

  test('unknown names name the known ones', async () => {
    const session = open()
    expect(() => session.registry).toThrow(expect.objectContaining({ code: 'owner/no-registry' }))
    expect(() => session.contract(undefined)).toThrow(expect.objectContaining({ code: 'owner/no-contract' }))
    await deployContract(session, 'shed', ZERO_ADDRESS)
    expect(() => session.contract('barn')).toThrow(expect.objectContaining({ hint: expect.stringContaining('shed') }))
  })
})

describe('policies in words', () => {
  const me = createAccount().address
  test.each([
    ['open', { leaf: { kind: 'open' } }],
    ['puzzle(16)', { leaf: { kind: 'puzzle', difficulty: 16 } }],
    ['quota(1d, 2, 100)', { leaf: { kind: 'quota', periodSeconds: 86_400, perClient: 2, total: 100 } }],
    ['ether(5)', { leaf: { kind: 'payment-ether', payee: me, fixed: 5n, perSecond: 0n } }],
    [
      'any(open,all(puzzle(1),ether(1,2)))',
      {
        kind: 'any-of',
        parts: [
          { leaf: { kind: 'open' } },
          { kind: 'all-of', parts: [{ leaf: { kind: 'puzzle' } }, { leaf: { kind: 'payment-ether' } }] },
        ],
      },
    ],
  ])('%s', (text, plan) => {
    expect(parsePolicy(text, me)).toMatchObject(plan)
  })

  test.each([
    '',
    'puzzle',
    'puzzle()',
    'puzzle(0)',
    'puzzle(41)',
    'puzzle(x)',
    'open(1)',
    'all()',
    'any(open',
    'quota(1d,2)',
    'quota(0s,1,1)',
    'ether(-1)',
    'holder(0x12)',
    'attestation(0x12,0x34)',
    'all(all(all(all(all(open)))))',
    `all(${'open,'.repeat(8)}open)`,
    'Puzzle(3)',
  ])('"%s" is none', (text) => {
    expect(() => parsePolicy(text, me)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(owner|message|config)\//) }),
    )
  })
})
