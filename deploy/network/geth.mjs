// @ts-check
// geth full nodes of a development network on loopback: found, initialised, started with pinned keys and ports.
import { execFileSync, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { ipc, isRunning, start, tailOf, until } from './processes.mjs'

/**
 * A geth of one version: from the environment, the cache of foreign programs, or PATH.
 * @param {string} version @param {string} variable
 */
export function findGeth(version, variable) {
  const cache = process.env['IOTCHAIN_PEERS'] || join(homedir(), '.cache', 'iotchain-peers')
  for (const path of [process.env[variable], join(cache, `geth-${version}`, 'geth'), 'geth']) {
    if (!path) continue
    const { status, stdout } = spawnSync(path, ['version'], { encoding: 'utf8' })
    if (status === 0 && stdout.includes(`Version: ${version}-`)) return path
  }
  throw new Error(
    `geth ${version} is neither in ${variable}, nor in ${cache}, nor on PATH: \`node tools/geth.mjs\` builds it`,
  )
}

/** Addresses that own ether from the beginning: the ten well-known test accounts of anvil and hardhat. */
export const TEST_ACCOUNTS = [
  'f39fd6e51aad88f6f4ce6ab8827279cfffb92266',
  '70997970c51812dc3a010c7d01b50e0d17dc79c8',
  '3c44cdddb6a900fa2b585dd299e03d12fa4293bc',
  '90f79bf6eb2c4f870365e785982e1f101e93b906',
  '15d34aaf54267db7d7c367839aaf71a00a2c6a65',
  '9965507d1a55bcc2695c58ba16fb37d819b0a4dc',
  '976ea74026e726554db657fa54763abd0c3a0aa9',
  '14dc79964da2c08b23698b3d3cc7ca32193d9955',
  '23618e81e3f5cdf7f54c3d65f7fbc0abf5b21e8f',
  'a0ee7a142d267c1f36714e4a8f75612f20a79720',
]

/** @param {string[]} accounts */
export function fundedAlloc(accounts) {
  return Object.fromEntries(accounts.map((a) => [a.replace(/^0x/, ''), { balance: '0x21e19e0c9bab2400000' }]))
}

export const newNodeKey = () => randomBytes(32).toString('hex')

/**
 * Initialises a node's folder once, and starts it.
 * @param {{geth: string, folder: string, name: string, networkId: number, genesis: string, nodeKey: string,
 *          ports: {http: number, p2p: number}, bootnode?: string | undefined, more: string[]}} o
 */
export function startGeth(o) {
  const data = join(o.folder, o.name)
  if (!existsSync(join(data, 'geth', 'chaindata'))) {
    mkdirSync(data, { recursive: true })
    execFileSync(o.geth, ['--datadir', data, 'init', o.genesis], { stdio: 'ignore' })
  }
  writeFileSync(join(data, 'nodekey'), o.nodeKey, { mode: 0o600 })
  start({
    folder: o.folder,
    name: `geth-${o.name}`,
    command: o.geth,
    args: [
      ...['--datadir', data, '--networkid', String(o.networkId), '--syncmode', 'full', '--cache', '64'],
      ...['--port', String(o.ports.p2p), '--nat', 'extip:127.0.0.1', '--netrestrict', '127.0.0.0/8'],
      ...['--nodekey', join(data, 'nodekey'), ...(o.bootnode ? ['--bootnodes', o.bootnode] : [])],
      ...['--http', '--http.addr', '127.0.0.1', '--http.port', String(o.ports.http), '--http.api', 'eth,net,web3'],
      ...['--ipcpath', ipcPath(o.folder, o.name), '--verbosity', '3', ...o.more],
    ],
  })
}

/** A path of a socket has about 100 octets at most. @param {string} folder @param {string} name */
export const ipcPath = (folder, name) => join(folder, `${name}.ipc`)

/** The address of a node that others may pin: it holds the node's public key. @param {string} folder @param {string} name */
export async function enodeOf(folder, name) {
  const info = await until(
    `geth of ${name} answers`,
    () => ipc(ipcPath(folder, name), 'admin_nodeInfo'),
    60_000,
    () => (isRunning(folder, `geth-${name}`) ? undefined : `geth of ${name} ended: ${tailOf(folder, `geth-${name}`)}`),
  )
  return String(info.enode).replace(/\?.*$/, '')
}

/**
 * Makes nodes that know each other's addresses connect at once; by discovery alone that may take a minute after a restart.
 * @param {string} folder @param {readonly string[]} names those that run
 */
export async function introduce(folder, names) {
  const enodes = await Promise.all(names.map((n) => enodeOf(folder, n)))
  for (const name of names) {
    for (const enode of enodes) {
      if (enode !== (await enodeOf(folder, name))) await ipc(ipcPath(folder, name), 'admin_addPeer', [enode])
    }
  }
}
