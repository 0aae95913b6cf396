/**
 * A development chain for the demo and the tests: anvil from npm, its native binary started in a process group of its
 * own (npm's wrapper would leave it behind when killed), on a free port, with the well-known funded test accounts.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { IotchainError } from '../protocol/errors.ts'

export interface AnvilOptions {
  readonly chainId?: number
  /** Seconds between blocks; undefined: one block per transaction (`mine` makes more). */
  readonly blockTimeSeconds?: number
  /** default 0: a free one */
  readonly port?: number
  readonly hardfork?: string
  readonly extra?: readonly string[]
}

export interface Anvil {
  readonly url: string
  readonly port: number
  readonly chainId: number
  /** Private keys (hex) of accounts that own 10 000 ether each. Public knowledge: for development chains only. */
  readonly keys: readonly `0x${string}`[]
  readonly process: ChildProcess
  /** Ends the process group; resolves when it is gone. */
  stop(): Promise<void>
}

/** The first accounts of the mnemonic "test test test test test test test test test test test junk". */
export const ANVIL_KEYS: readonly `0x${string}`[] = [
  '0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80',
  '0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d',
  '0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a',
  '0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6',
  '0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a',
  '0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba',
  '0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e',
  '0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356',
  '0xdbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97',
  '0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6',
]

/** Path of the native binary that npm installed for this platform. @throws `chain/unreachable` */
export function anvilBinary(): string {
  const cpu = process.arch === 'x64' ? 'amd64' : process.arch
  const name = `@foundry-rs/anvil-${process.platform}-${cpu}`
  try {
    const folder = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
    return join(folder, 'bin', process.platform === 'win32' ? 'anvil.exe' : 'anvil')
  } catch (cause) {
    throw new IotchainError('chain/unreachable', `${name} is not installed`, {
      hint: 'Run npm ci with development and optional dependencies, or use another chain.',
      cause,
    })
  }
}

/** Starts a chain and waits until it listens. @throws `chain/unreachable` */
export async function startAnvil(options: AnvilOptions = {}): Promise<Anvil> {
  const chainId = options.chainId ?? 31_337
  const args = ['--host', '127.0.0.1', '--port', String(options.port ?? 0), '--chain-id', String(chainId)]
  if (options.blockTimeSeconds !== undefined) args.push('--block-time', String(options.blockTimeSeconds))
  if (options.hardfork !== undefined) args.push('--hardfork', options.hardfork)
  args.push(...(options.extra ?? []))
  const child = spawn(anvilBinary(), args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  const killGroup = (signal: NodeJS.Signals): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal)
    } catch {
      // it is gone already
    }
  }
  const onExit = (): void => killGroup('SIGKILL')
  process.once('exit', onExit)
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const stop = async (): Promise<void> => {
    process.off('exit', onExit)
    killGroup('SIGTERM')
    const timer = setTimeout(() => killGroup('SIGKILL'), 2_000)
    await gone
    clearTimeout(timer)
  }
  try {
    const port = await listeningPort(child)
    return { url: `http://127.0.0.1:${port}`, port, chainId, keys: ANVIL_KEYS, process: child, stop }
  } catch (error) {
    if (child.pid !== undefined) await stop()
    throw error
  }
}

function listeningPort(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let said = ''
    const fail = (why: string, cause?: unknown): void => {
      reject(new IotchainError('chain/unreachable', `anvil did not start: ${why}`, { cause }))
    }
    const timer = setTimeout(() => fail('it did not listen within 20 s'), 20_000)
    const finish = (done: () => void): void => {
      clearTimeout(timer)
      done()
    }
    child.once('error', (cause) => finish(() => fail(cause.message, cause)))
    child.once('close', () => finish(() => fail(said.trim().slice(-300) || 'it ended without a word')))
    child.stderr?.on('data', (text) => {
      said = `${said}${text}`.slice(-2_000)
    })
    child.stdout?.on('data', (text) => {
      said = `${said}${text}`.slice(-20_000)
      const found = /Listening on \S+?:(\d+)/.exec(said)
      if (found !== null) finish(() => resolve(Number(found[1])))
    })
  })
}
