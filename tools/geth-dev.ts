/**
 * A development chain on real geth: one node in development mode (`--dev`), a block a second, the well-known test accounts
 * funded. It stands in for anvil where geth 1.17.8 is there.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { accountFromKey } from '../chain/wallet.ts'
import { IotchainError } from '../protocol/errors.ts'
import { ANVIL_KEYS, type Anvil } from './anvil.ts'

export const GETH_VERSION = '1.17.8'

/** geth 1.17.8: `GETH`, the cache of foreign programs, or PATH. Otherwise the reason why there is none. */
export function findGeth(): { path: string } | { skipped: string } {
  const cache = process.env['IOTCHAIN_PEERS'] || join(homedir(), '.cache', 'iotchain-peers')
  for (const path of [process.env['GETH'], join(cache, `geth-${GETH_VERSION}`, 'geth'), 'geth']) {
    if (path === undefined || path === '') continue
    const { status, stdout } = spawnSync(path, ['version'], { encoding: 'utf8' })
    if (status === 0 && stdout.includes(`Version: ${GETH_VERSION}-`)) return { path }
  }
  return {
    skipped: `geth ${GETH_VERSION} is neither in GETH nor in ${cache} nor on PATH (node tools/geth.mjs builds it)`,
  }
}

/** A genesis with the forks that are in force on public networks (Osaka), and the test accounts funded. */
export function writeGenesis(geth: string, folder: string, chainId: number): string {
  // the system contracts that each fork needs are those of geth's own development genesis
  const printed = execFileSync(geth, ['--dev', 'dumpgenesis'], { stdio: ['ignore', 'pipe', 'ignore'] })
  const genesis = JSON.parse(printed.toString('utf8'))
  // development mode switches on a fork that is still to come, with other gas costs
  delete genesis.config.bogotaTime
  genesis.config.chainId = chainId
  genesis.config.blobSchedule.osaka = genesis.config.blobSchedule.prague
  genesis.gasLimit = '0x2255100'
  genesis.timestamp = `0x${(Math.floor(Date.now() / 1000) - 600).toString(16)}`
  for (const key of ANVIL_KEYS) {
    genesis.alloc[accountFromKey(key).address.slice(2)] = { balance: '0x21e19e0c9bab2400000' }
  }
  const file = join(folder, 'genesis.json')
  writeFileSync(file, JSON.stringify(genesis))
  return file
}

/** Starts the chain and waits until it listens; the same shape as `startAnvil`. @throws `chain/unreachable` */
export async function startGethDev(options: { chainId?: number; blockTimeSeconds?: number } = {}): Promise<Anvil> {
  const found = findGeth()
  if ('skipped' in found) {
    throw new IotchainError('chain/unreachable', found.skipped, { hint: 'Build it, or use anvil.' })
  }
  const chainId = options.chainId ?? 31_337
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-geth-'))
  const genesis = writeGenesis(found.path, folder, chainId)
  execFileSync(found.path, ['--datadir', folder, 'init', genesis], { stdio: 'ignore' })
  const args = [
    ...[
      '--datadir',
      folder,
      '--dev',
      '--dev.period',
      String(options.blockTimeSeconds ?? 1),
      '--networkid',
      String(chainId),
    ],
    ...['--http', '--http.addr', '127.0.0.1', '--http.port', '0', '--http.api', 'eth,net,web3,debug', '--ipcdisable'],
    ...[
      '--authrpc.port',
      '0',
      '--port',
      '0',
      '--nodiscover',
      '--maxpeers',
      '0',
      '--miner.gasprice',
      '1',
      '--verbosity',
      '3',
    ],
  ]
  const child = spawn(found.path, args, { detached: true, stdio: ['ignore', 'ignore', 'pipe'] })
  const onExit = (): void => {
    child.kill('SIGKILL')
  }
  process.once('exit', onExit)
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const stop = async (): Promise<void> => {
    process.off('exit', onExit)
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 5_000)
    await gone
    clearTimeout(timer)
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const port = await listeningPort(child)
    return { url: `http://127.0.0.1:${port}`, port, chainId, keys: ANVIL_KEYS, process: child, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

function listeningPort(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let said = ''
    const fail = (): void => {
      clearTimeout(timer)
      const last = said.trim().split('\n').at(-1) ?? ''
      reject(new IotchainError('chain/unreachable', `geth did not start: ${last.slice(0, 300)}`))
    }
    const timer = setTimeout(fail, 60_000)
    child.once('error', fail)
    child.once('close', fail)
    child.stderr?.on('data', (text) => {
      said = `${said}${text}`.slice(-20_000)
      const port = /HTTP server started\s+endpoint=\S+?:(\d+)\s+auth=false/.exec(said)?.[1]
      if (port === undefined) return
      clearTimeout(timer)
      resolve(Number(port))
    })
  })
}
