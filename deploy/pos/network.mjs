#!/usr/bin/env node
// @ts-check
// The paper's three full nodes (Fig. 3) under proof of stake: `a` and `b`, the authorization servers, validate; `k` is the
// key server's node and only follows. geth 1.17.8 executes, Lodestar 1.5.1 agrees (minimal preset, Capella).
//
//   node deploy/pos/network.mjs up|down|status|stop NODE|start NODE|reanchor [--folder DIR] [--json]
//
// A DEVELOPMENT NETWORK: the validators' keys are the well-known interop keys, the funded accounts are anvil's. Everybody
// who reaches its ports is its master. It listens on loopback only; to spread it over machines, use a VPN and keys of your own.
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import {
  enodeOf,
  findGeth,
  fundedAlloc,
  introduce,
  ipcPath,
  newNodeKey,
  startGeth,
  TEST_ACCOUNTS,
} from '../network/geth.mjs'
import { freePorts, ipc, isRunning, pause, rpc, start, stop, until } from '../network/processes.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))
const NODES = /** @type {const} */ (['a', 'b', 'k'])
const VALIDATORS = { a: '0..3', b: '4..7', k: undefined }
const CHAIN_ID = 20180415
const SLOT_SECONDS = 2
const LODESTAR_ENV = { NODE_BACKEND: 'js', LODESTAR_PRESET: 'minimal', NODE_ENV: 'production' }
/** From the first node's start to the first slot; all have to be up by then. */
const LEAD_SECONDS = 40

/** @typedef {'a' | 'b' | 'k'} Name */
/** @typedef {{http: number, engine: number, p2p: number, beacon: number, rest: number}} Ports */
/** @typedef {{genesisTime: number, anchor: string, bootnode: string, enr: string, nodeKeys: Record<Name, string>, ports: Record<Name, Ports>}} State */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { folder: { type: 'string' }, json: { type: 'boolean', default: false } },
})
const stateHome = process.env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state')
const folder = resolve(values.folder ?? join(stateHome, 'iotchain-pos'))
const stateFile = join(folder, 'network.json')

/** @param {string} text */
const say = (text) => process.stderr.write(`${text}\n`)

/** @returns {State} */
function readState() {
  if (!existsSync(stateFile)) throw new Error(`there is no network in ${folder}: bring one up first`)
  return JSON.parse(readFileSync(stateFile, 'utf8'))
}

/** @param {State} state */
const writeState = (state) => writeFileSync(stateFile, JSON.stringify(state, null, 2))

function lodestarProgram() {
  const program = join(HERE, 'node_modules', '@chainsafe', 'lodestar', 'lib', 'index.js')
  if (existsSync(program)) return join(HERE, 'lodestar.mjs')
  throw new Error('Lodestar is not installed: run `npm ci --ignore-scripts` in deploy/pos')
}

/** @param {State} state @param {Name} name @param {string} geth */
function runGeth(state, name, geth) {
  const { ports, nodeKeys, bootnode } = state
  const data = join(folder, name)
  mkdirSync(data, { recursive: true })
  startGeth({
    geth,
    folder,
    name,
    networkId: CHAIN_ID,
    genesis: join(folder, 'genesis.json'),
    nodeKey: nodeKeys[name],
    ports: ports[name],
    bootnode: name === 'a' ? undefined : bootnode,
    more: [
      ...['--authrpc.port', String(ports[name].engine), '--authrpc.jwtsecret', join(folder, 'jwt.hex')],
      ...['--miner.gasprice', '1'],
    ],
  })
}

/** @param {State} state @param {Name} name */
function runBeacon(state, name) {
  const { engine, beacon, rest } = state.ports[name]
  const validators = VALIDATORS[name]
  start({
    folder,
    name: `beacon-${name}`,
    command: process.execPath,
    env: LODESTAR_ENV,
    args: [
      ...[lodestarProgram(), 'dev', '--dataDir', beaconFolder(name), '--genesisTime', String(state.genesisTime)],
      ...['--genesisEth1Hash', state.anchor, '--genesisValidators', '8'],
      ...[`--params.SECONDS_PER_SLOT`, String(SLOT_SECONDS), '--params.ALTAIR_FORK_EPOCH', '0'],
      ...['--params.BELLATRIX_FORK_EPOCH', '0', '--params.CAPELLA_FORK_EPOCH', '0'],
      ...['--params.TERMINAL_TOTAL_DIFFICULTY', '0', '--params.DEPOSIT_CHAIN_ID', String(CHAIN_ID)],
      ...['--params.DEPOSIT_NETWORK_ID', String(CHAIN_ID), '--eth1=false'],
      ...['--execution.urls', `http://127.0.0.1:${engine}`, '--jwt-secret', join(folder, 'jwt.hex')],
      ...['--listenAddress', '127.0.0.1', '--port', String(beacon), '--discoveryPort', String(beacon)],
      ...['--enr.ip', '127.0.0.1', '--enr.tcp', String(beacon), '--enr.udp', String(beacon)],
      ...['--rest', '--rest.namespace', '*', '--rest.port', String(rest), '--metrics=false', '--logLevel', 'info'],
      ...['--suggestedFeeRecipient', `0x${'fe'.repeat(20)}`, '--network.connectToDiscv5Bootnodes'],
      ...(state.enr === '' ? [] : ['--bootnodes', state.enr]),
      ...(validators === undefined ? [] : ['--startValidators', validators, '--server', `http://127.0.0.1:${rest}`]),
    ],
  })
}

/** @param {Name} name */
const beaconFolder = (name) => join(folder, `beacon-${name}`)

/** @param {State} state @param {Name} name @param {string} path */
async function beaconApi(state, name, path) {
  const response = await fetch(`http://127.0.0.1:${state.ports[name].rest}${path}`, {
    signal: AbortSignal.timeout(3_000),
  })
  if (!response.ok) throw new Error(`HTTP ${response.status}`)
  return (await response.json()).data
}

/**
 * A beacon chain from `state.anchor` on, all nodes in it before its first slot. On a busy machine that takes longer than
 * thought: then once more, with more time.
 * @param {State} state
 */
async function startBeacons(state) {
  for (let lead = LEAD_SECONDS; ; lead *= 2) {
    if (await tryBeacons(state, lead)) break
    await Promise.all(NODES.map((n) => stop(folder, `beacon-${n}`, { graceMs: 3_000 })))
    for (const name of NODES) rmSync(beaconFolder(name), { recursive: true, force: true })
    if (lead > 200) throw new Error('the nodes were not up before the first slot: this machine is too busy')
    say('the nodes were not up before the first slot: once more, with twice the time')
  }
  await until('the first blocks', async () => (await headOf(state, 'k')) > anchorNumber(state), 120_000)
}

/** @param {State} state @param {number} lead seconds from now to the first slot @returns {Promise<boolean>} in time? */
async function tryBeacons(state, lead) {
  state.genesisTime = Math.floor(Date.now() / 1000) + lead
  state.enr = ''
  writeState(state)
  const answers = (/** @type {Name} */ n) =>
    until(`beacon node ${n} answers`, () => beaconApi(state, n, '/eth/v1/node/identity'), lead * 2_000)
  runBeacon(state, 'a')
  state.enr = (await answers('a')).enr
  writeState(state)
  for (const name of /** @type {const} */ (['b', 'k'])) runBeacon(state, name)
  await Promise.all(NODES.map(answers))
  const left = state.genesisTime - Date.now() / 1000
  if (left < 1) return false
  say(`first slot in ${Math.round(left)} s`)
  await pause(left * 1000)
  return true
}

/** @param {State & {anchorNumber?: number}} state */
const anchorNumber = (state) => state.anchorNumber ?? 0

/** @param {State} state @param {Name} name */
const headOf = async (state, name) => Number(await rpc(urlOf(state, name), 'eth_blockNumber'))

/** @param {State} state @param {Name} name */
const urlOf = (state, name) => `http://127.0.0.1:${state.ports[name].http}`

async function up() {
  const geth = findGeth('1.17.8', 'GETH')
  lodestarProgram()
  if (existsSync(stateFile)) throw new Error(`there is a network in ${folder}: start its nodes, or take it down first`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const all = await freePorts(15)
  const portsOf = (/** @type {number} */ i) => {
    const [http, engine, p2p, beacon, rest] = all.slice(i * 5, i * 5 + 5)
    return /** @type {Ports} */ ({ http, engine, p2p, beacon, rest })
  }
  writeFileSync(join(folder, 'jwt.hex'), randomBytes(32).toString('hex'), { mode: 0o600 })
  const forks = 'homestead eip150 eip155 eip158 byzantium constantinople petersburg istanbul berlin london'.split(' ')
  const genesis = {
    config: {
      chainId: CHAIN_ID,
      ...Object.fromEntries(forks.map((f) => [`${f}Block`, 0])),
      mergeNetsplitBlock: 0,
      shanghaiTime: 0,
      terminalTotalDifficulty: 0,
    },
    timestamp: `0x${Math.floor(Date.now() / 1000).toString(16)}`,
    gasLimit: '0x1c9c380',
    difficulty: '0x0',
    alloc: fundedAlloc(TEST_ACCOUNTS),
  }
  writeFileSync(join(folder, 'genesis.json'), JSON.stringify(genesis, null, 2))
  /** @type {State} */
  const state = {
    genesisTime: 0,
    anchor: '',
    bootnode: '',
    enr: '',
    nodeKeys: { a: newNodeKey(), b: newNodeKey(), k: newNodeKey() },
    ports: { a: portsOf(0), b: portsOf(1), k: portsOf(2) },
  }
  writeState(state)
  say('starting three geth full nodes')
  runGeth(state, 'a', geth)
  state.bootnode = await enodeOf(folder, 'a')
  for (const name of /** @type {const} */ (['b', 'k'])) runGeth(state, name, geth)
  await introduce(folder, NODES)
  const block = await rpc(urlOf(state, 'a'), 'eth_getBlockByNumber', ['0x0', false])
  state.anchor = block.hash
  writeState(state)
  say('starting three consensus nodes')
  await startBeacons(state)
  report(await status())
}

async function down() {
  readState()
  await Promise.all(NODES.flatMap((n) => [stop(folder, `beacon-${n}`, { graceMs: 3_000 }), stop(folder, `geth-${n}`)]))
  rmSync(folder, { recursive: true, force: true })
  say('the network is down and its data removed')
}

/** @param {string | undefined} text @returns {Name} */
function nodeNamed(text) {
  const name = NODES.find((n) => n === text)
  if (name === undefined) throw new Error('name a node: a, b or k')
  return name
}

/** One node of three, as a machine that is switched off. @param {Name} name */
async function stopNode(name) {
  readState()
  await stop(folder, `beacon-${name}`, { graceMs: 3_000 })
  await stop(folder, `geth-${name}`)
  say(`node ${name} is stopped`)
}

/** @param {Name} name */
async function startNode(name) {
  const state = readState()
  runGeth(state, name, findGeth('1.17.8', 'GETH'))
  await introduce(
    folder,
    NODES.filter((n) => isRunning(folder, `geth-${n}`)),
  )
  // with its old chain it never catches up; what protects its validators from signing twice has to stay
  rmSync(join(beaconFolder(name), 'chain-db'), { recursive: true, force: true })
  runBeacon(state, name)
  await until(`beacon node ${name} answers`, () => beaconApi(state, name, '/eth/v1/node/identity'), 60_000)
  say(`node ${name} is started`)
}

/** After all nodes were away at once: a new beacon chain on top of what geth has. geth's data stays. */
async function reanchor() {
  const state = /** @type {State & {anchorNumber?: number}} */ (readState())
  const geth = findGeth('1.17.8', 'GETH')
  await Promise.all(NODES.map((n) => stop(folder, `beacon-${n}`, { graceMs: 3_000 })))
  for (const name of NODES) {
    if (!isRunning(folder, `geth-${name}`)) runGeth(state, name, geth)
    await enodeOf(folder, name)
    // a new chain: neither the old blocks nor the old signatures mean anything in it
    rmSync(beaconFolder(name), { recursive: true, force: true })
  }
  await introduce(folder, NODES)
  const heads = await Promise.all(NODES.map((n) => rpc(urlOf(state, n), 'eth_getBlockByNumber', ['latest', false])))
  const highest = heads.reduce((best, b) => (Number(b.number) > Number(best.number) ? b : best))
  state.anchor = highest.hash
  state.anchorNumber = Number(highest.number)
  say(`new beacon chain on geth's block ${state.anchorNumber}`)
  await startBeacons(state)
  report(await status())
}

async function status() {
  const state = readState()
  const nodes = await Promise.all(
    NODES.map(async (name) => {
      const url = urlOf(state, name)
      const [latest, finalized, peers, syncing, beaconPeers] = await Promise.all([
        headOf(state, name).catch(() => undefined),
        rpc(url, 'eth_getBlockByNumber', ['finalized', false])
          .then((b) => (b === null ? undefined : Number(b.number)))
          .catch(() => undefined),
        ipc(ipcPath(folder, name), 'admin_peers')
          .then((p) => p.length)
          .catch(() => undefined),
        beaconApi(state, name, '/eth/v1/node/syncing').catch(() => undefined),
        beaconApi(state, name, '/eth/v1/node/peer_count')
          .then((c) => Number(c.connected))
          .catch(() => undefined),
      ])
      const slot = syncing === undefined ? undefined : Number(syncing.head_slot)
      return {
        name,
        role: name === 'k' ? 'key server' : 'authorization server',
        url,
        latest,
        finalized,
        peers,
        slot,
        beaconPeers,
      }
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
  console.log(`chain ${s.chainId} in ${s.folder}: development keys, loopback only\nboot node ${s.bootnode}`)
  for (const n of s.nodes) {
    console.log(
      `${n.name}  ${n.role.padEnd(20)}  ${n.url}  block ${text(n.latest)}  final ${text(n.finalized)}  peers ${text(n.peers)}  slot ${text(n.slot)}  beacon peers ${text(n.beaconPeers)}`,
    )
  }
}

const [command, node] = positionals
try {
  if (command === 'up') await up()
  else if (command === 'down') await down()
  else if (command === 'status') report(await status())
  else if (command === 'stop') await stopNode(nodeNamed(node))
  else if (command === 'start') await startNode(nodeNamed(node))
  else if (command === 'reanchor') await reanchor()
  else throw new Error('what to do? up, down, status, stop NODE, start NODE or reanchor')
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
await pause(0)
