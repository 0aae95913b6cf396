#!/usr/bin/env node
// @ts-check
// A light closed network: three geth full nodes under Clique (proof of authority), a block a second. `a` and `b` are the
// authorization servers, `k` is the key server's node; all three sign, so any one of them may be away.
//
//   node deploy/network/clique.mjs up|down|status|stop NODE|start NODE [--folder DIR] [--json]
//
// geth 1.13.15 is the last that seals Clique. There is no finality: key servers count confirmations. The signers' keys are
// made when the network is; the funded accounts are anvil's, so it is a development network unless you change them.
// It listens on loopback only; to spread it over machines, copy the folder of a node, and use a VPN.
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { enodeOf, findGeth, fundedAlloc, introduce, ipcPath, newNodeKey, startGeth, TEST_ACCOUNTS } from './geth.mjs'
import { freePorts, ipc, isRunning, rpc, stop, until } from './processes.mjs'

const NODES = /** @type {const} */ (['a', 'b', 'k'])
const CHAIN_ID = 20180415

/** @typedef {'a' | 'b' | 'k'} Name */
/** @typedef {{http: number, p2p: number}} Ports */
/** @typedef {{bootnode: string, signers: Record<Name, string>, nodeKeys: Record<Name, string>, ports: Record<Name, Ports>}} State */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { folder: { type: 'string' }, json: { type: 'boolean', default: false } },
})
const stateHome = process.env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state')
const folder = resolve(values.folder ?? join(stateHome, 'iotchain-clique'))
const stateFile = join(folder, 'network.json')

/** @param {string} text */
const say = (text) => process.stderr.write(`${text}\n`)
/** @param {State} state @param {Name} name */
const urlOf = (state, name) => `http://127.0.0.1:${state.ports[name].http}`

/** @returns {State} */
function readState() {
  if (!existsSync(stateFile)) throw new Error(`there is no network in ${folder}: bring one up first`)
  return JSON.parse(readFileSync(stateFile, 'utf8'))
}

/** A signer's key in geth's own keystore. @param {string} geth @param {Name} name @returns {string} its address */
function makeSigner(geth, name) {
  const data = join(folder, name)
  mkdirSync(data, { recursive: true, mode: 0o700 })
  const key = join(data, 'signer.hex')
  const password = join(data, 'password')
  writeFileSync(key, randomBytes(32).toString('hex'), { mode: 0o600 })
  writeFileSync(password, randomBytes(16).toString('hex'), { mode: 0o600 })
  const said = execFileSync(geth, ['--datadir', data, '--lightkdf', 'account', 'import', '--password', password, key], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  rmSync(key)
  const address = /\{([0-9a-fA-F]{40})\}/.exec(said)?.[1]
  if (address === undefined) throw new Error(`geth made no account: ${said}`)
  return address.toLowerCase()
}

/** @param {string[]} signers */
function genesisOf(signers) {
  const forks = 'homestead eip150 eip155 eip158 byzantium constantinople petersburg istanbul berlin london'.split(' ')
  return {
    config: {
      chainId: CHAIN_ID,
      ...Object.fromEntries(forks.map((f) => [`${f}Block`, 0])),
      clique: { period: 1, epoch: 30_000 },
    },
    timestamp: `0x${Math.floor(Date.now() / 1000).toString(16)}`,
    gasLimit: '0x1c9c380',
    difficulty: '0x1',
    // 32 octets of vanity, the signers in order, room for a signature
    extraData: `0x${'00'.repeat(32)}${[...signers].sort().join('')}${'00'.repeat(65)}`,
    alloc: fundedAlloc(TEST_ACCOUNTS),
  }
}

/** @param {State} state @param {Name} name @param {string} geth */
function runNode(state, name, geth) {
  const signer = state.signers[name]
  startGeth({
    geth,
    folder,
    name,
    networkId: CHAIN_ID,
    genesis: join(folder, 'genesis.json'),
    nodeKey: state.nodeKeys[name],
    ports: state.ports[name],
    bootnode: name === 'a' ? undefined : state.bootnode,
    more: [
      ...['--mine', '--miner.etherbase', `0x${signer}`, '--miner.gasprice', '1', '--txpool.pricelimit', '1'],
      ...['--unlock', `0x${signer}`, '--password', join(folder, name, 'password'), '--allow-insecure-unlock'],
      ...['--authrpc.port', '0'],
    ],
  })
}

async function up() {
  const geth = findGeth('1.13.15', 'GETH_CLIQUE')
  if (existsSync(stateFile)) throw new Error(`there is a network in ${folder}: start its nodes, or take it down first`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const [ha, pa, hb, pb, hk, pk] = await freePorts(6)
  const signers = /** @type {Record<Name, string>} */ (Object.fromEntries(NODES.map((n) => [n, makeSigner(geth, n)])))
  writeFileSync(join(folder, 'genesis.json'), JSON.stringify(genesisOf(Object.values(signers)), null, 2))
  /** @type {State} */
  const state = {
    bootnode: '',
    signers,
    nodeKeys: { a: newNodeKey(), b: newNodeKey(), k: newNodeKey() },
    ports: {
      a: { http: Number(ha), p2p: Number(pa) },
      b: { http: Number(hb), p2p: Number(pb) },
      k: { http: Number(hk), p2p: Number(pk) },
    },
  }
  writeFileSync(stateFile, JSON.stringify(state, null, 2), { mode: 0o600 })
  say('starting three geth full nodes')
  runNode(state, 'a', geth)
  state.bootnode = await enodeOf(folder, 'a')
  writeFileSync(stateFile, JSON.stringify(state, null, 2), { mode: 0o600 })
  for (const name of /** @type {const} */ (['b', 'k'])) runNode(state, name, geth)
  await introduce(folder, NODES)
  await until('the first blocks', async () => Number(await rpc(urlOf(state, 'k'), 'eth_blockNumber')) > 1, 60_000)
  report(await status())
}

async function down() {
  readState()
  await Promise.all(NODES.map((n) => stop(folder, `geth-${n}`)))
  rmSync(folder, { recursive: true, force: true })
  say('the network is down and its data removed')
}

/** @param {string | undefined} text @returns {Name} */
function nodeNamed(text) {
  const name = NODES.find((n) => n === text)
  if (name === undefined) throw new Error('name a node: a, b or k')
  return name
}

const runningNodes = () => NODES.filter((n) => isRunning(folder, `geth-${n}`))

async function status() {
  const state = readState()
  const nodes = await Promise.all(
    NODES.map(async (name) => {
      const url = urlOf(state, name)
      const [latest, peers] = await Promise.all([
        rpc(url, 'eth_blockNumber')
          .then(Number)
          .catch(() => undefined),
        ipc(ipcPath(folder, name), 'admin_peers')
          .then((p) => p.length)
          .catch(() => undefined),
      ])
      const role = name === 'k' ? 'key server' : 'authorization server'
      return { name, role, url, running: isRunning(folder, `geth-${name}`), latest, peers }
    }),
  )
  return { chainId: CHAIN_ID, folder, bootnode: state.bootnode, nodes }
}

/** @param {Awaited<ReturnType<typeof status>>} s */
function report(s) {
  if (values.json) {
    process.stdout.write(`${JSON.stringify(s)}\n`)
    return
  }
  const text = (/** @type {number | undefined} */ n) => (n === undefined ? '-' : String(n))
  console.log(`chain ${s.chainId} in ${s.folder}: development accounts, loopback only\nboot node ${s.bootnode}`)
  for (const n of s.nodes) {
    console.log(`${n.name}  ${n.role.padEnd(20)}  ${n.url}  block ${text(n.latest)}  peers ${text(n.peers)}`)
  }
}

const [command, node] = positionals
try {
  if (command === 'up') await up()
  else if (command === 'down') await down()
  else if (command === 'status') report(await status())
  else if (command === 'stop') {
    readState()
    await stop(folder, `geth-${nodeNamed(node)}`)
    say(`node ${node} is stopped`)
  } else if (command === 'start') {
    const name = nodeNamed(node)
    runNode(readState(), name, findGeth('1.13.15', 'GETH_CLIQUE'))
    await introduce(folder, runningNodes())
    say(`node ${name} is started`)
  } else throw new Error('what to do? up, down, status, stop NODE or start NODE')
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
