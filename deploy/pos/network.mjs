#!/usr/bin/env node
// @ts-check
// The paper's three full nodes (Fig. 3) under proof of stake: `a` and `b`, the authorization servers, validate; `k` is the
// key server's node and only follows. geth 1.17.8 executes, Lodestar 1.5.1 agrees (minimal preset, Capella).
//
//   node deploy/pos/network.mjs up|down|status|stop NODE|start NODE|restart NODE|reanchor [--folder DIR] [--json]
//
// A DEVELOPMENT NETWORK: the validators' keys are the well-known interop keys, the funded accounts are anvil's. Everybody
// who reaches its ports is its master. It listens on loopback only; to spread it over machines, use a VPN and keys of your own.
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CHAIN_ID, Frame, NODES, number, orNothing, roleOf, say } from '../network/frame.mjs'
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
import { freePorts, ipc, isRunning, rpc } from '../network/processes.mjs'
import { beaconApi, finalityOf, forgetChain, rejoinBeacons, startBeacons, stopBeacons } from './beacons.mjs'
import { findLodestar, installLodestar, unfit } from './install.mjs'

/** @typedef {import('../network/frame.mjs').Name} Name */
/** @typedef {import('./beacons.mjs').Ports} Ports */
/** @typedef {import('./beacons.mjs').State} State */

/** @type {Frame<State>} */
const frame = new Frame('pos')
const { folder } = frame

/** @param {State} state @param {Name} name */
const urlOf = (state, name) => `http://127.0.0.1:${state.ports[name].http}`
const findPosGeth = () => findGeth('1.17.8', 'GETH')

/** Installed once, when it is first needed. */
function needLodestar() {
  const why = unfit()
  if (why !== undefined) throw new Error(why)
  if (findLodestar() !== undefined) return
  say('installing Lodestar, once: a minute or two')
  installLodestar()
}

/** @param {State} state @param {Name} name @param {string} geth */
function runGeth(state, name, geth) {
  const { ports, nodeKeys, bootnode } = state
  mkdirSync(join(folder, name), { recursive: true, mode: 0o700 })
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

/** The hard forks that Lodestar 1.5.1 knows: up to Capella, which geth calls Shanghai. */
function genesis() {
  const forks = 'homestead eip150 eip155 eip158 byzantium constantinople petersburg istanbul berlin london'.split(' ')
  return {
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
}

async function up() {
  const geth = findPosGeth()
  needLodestar()
  await frame.raise(async () => {
    const all = await freePorts(15)
    const portsOf = (/** @type {number} */ i) => {
      const [http, engine, p2p, beacon, rest] = all.slice(i * 5, i * 5 + 5)
      return /** @type {Ports} */ ({ http, engine, p2p, beacon, rest })
    }
    /** @type {State} */
    const state = {
      genesisTime: 0,
      anchor: '',
      anchorNumber: 0,
      bootnode: '',
      nodeKeys: { a: newNodeKey(), b: newNodeKey(), k: newNodeKey() },
      ports: { a: portsOf(0), b: portsOf(1), k: portsOf(2) },
    }
    frame.write(state)
    writeFileSync(join(folder, 'jwt.hex'), randomBytes(32).toString('hex'), { mode: 0o600 })
    writeFileSync(join(folder, 'genesis.json'), JSON.stringify(genesis(), null, 2))
    say('starting three geth full nodes')
    runGeth(state, 'a', geth)
    state.bootnode = await enodeOf(folder, 'a')
    for (const name of /** @type {const} */ (['b', 'k'])) runGeth(state, name, geth)
    await introduce(folder, NODES)
    const block = await rpc(urlOf(state, 'a'), 'eth_getBlockByNumber', ['0x0', false])
    state.anchor = block.hash
    frame.write(state)
    say('starting three consensus nodes')
    await startBeacons(frame, state)
  })
  await status()
}

/** One node of three, as a machine that is switched off. */
async function stopNode() {
  frame.read()
  const name = frame.node
  await frame.stop(`beacon-${name}`)
  await frame.stop(`geth-${name}`)
  say(`node ${name} is stopped`)
}

async function startNode() {
  const state = frame.read()
  const name = frame.node
  runGeth(state, name, findPosGeth())
  await introduce(
    folder,
    NODES.filter((n) => isRunning(folder, `geth-${n}`)),
  )
  forgetChain(frame, name)
  await rejoinBeacons(frame, state, name)
  say(`node ${name} is started`)
}

/** After all nodes were away at once: a new beacon chain on top of what geth has. geth's data stays. */
async function reanchor() {
  const state = frame.read()
  const geth = findPosGeth()
  needLodestar()
  await stopBeacons(frame)
  for (const name of NODES) {
    if (!isRunning(folder, `geth-${name}`)) runGeth(state, name, geth)
    await enodeOf(folder, name)
  }
  await introduce(folder, NODES)
  const heads = await Promise.all(NODES.map((n) => rpc(urlOf(state, n), 'eth_getBlockByNumber', ['latest', false])))
  const highest = heads.reduce((best, b) => (Number(b.number) > Number(best.number) ? b : best))
  state.anchor = highest.hash
  state.anchorNumber = Number(highest.number)
  say(`new beacon chain on geth's block ${state.anchorNumber}`)
  await startBeacons(frame, state)
  await status()
}

/** @param {State} state @param {Name} name */
async function nodeStatus(state, name) {
  const url = urlOf(state, name)
  const finalBlock = () => rpc(url, 'eth_getBlockByNumber', ['finalized', false]).then((b) => Number(b.number))
  const [latest, finalized, peers, syncing, beaconPeers] = await Promise.all([
    orNothing(rpc(url, 'eth_blockNumber').then(Number)),
    orNothing(finalBlock()),
    orNothing(ipc(ipcPath(folder, name), 'admin_peers').then((p) => p.length)),
    orNothing(beaconApi(state, name, '/eth/v1/node/syncing')),
    orNothing(beaconApi(state, name, '/eth/v1/node/peer_count').then((c) => Number(c.connected))),
  ])
  const slot = syncing === undefined ? undefined : Number(syncing.head_slot)
  const running = isRunning(folder, `geth-${name}`) && isRunning(folder, `beacon-${name}`)
  return { name, role: roleOf(name), url, running, latest, finalized, peers, slot, beaconPeers }
}

async function status() {
  const state = frame.read()
  const [finality, ...nodes] = await Promise.all([finalityOf(state), ...NODES.map((n) => nodeStatus(state, n))])
  frame.report({ chainId: CHAIN_ID, folder, bootnode: state.bootnode, finality, nodes }, (s) => [
    `chain ${s.chainId} in ${s.folder}: development keys, loopback only`,
    `boot node ${s.bootnode}`,
    finality === undefined
      ? 'finality: no consensus node answers'
      : `finality: epoch ${finality.finalizedEpoch} of ${finality.epoch}${finality.stalled ? ', STALLED' : ''}`,
    ...s.nodes.map(
      (n) =>
        `${n.name}  ${n.role.padEnd(20)}  ${n.url}  block ${number(n.latest)}  final ${number(n.finalized)}  ` +
        `peers ${number(n.peers)}  slot ${number(n.slot)}  beacon peers ${number(n.beaconPeers)}`,
    ),
  ])
}

await frame.run({
  up,
  down: () => frame.down(),
  status,
  stop: stopNode,
  start: startNode,
  restart: async () => {
    await stopNode()
    await startNode()
  },
  reanchor,
})
