#!/usr/bin/env node
// @ts-check
// A light closed network: three geth full nodes under Clique (proof of authority), a block a second. `a` and `b` are the
// authorization servers, `k` is the key server's node; all three sign, so any one of them may be away.
//
//   node deploy/network/clique.mjs up|down|status|stop NODE|start NODE|restart NODE [--folder DIR] [--json]
//
// geth 1.13.15 is the last that seals Clique. There is no finality: key servers count confirmations. The signers' keys are
// made when the network is; the funded accounts are anvil's, so it is a development network unless you change them.
// It listens on loopback only; to spread it over machines, copy the folder of a node, and use a VPN.
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CHAIN_ID, Frame, NODES, number, orNothing, roleOf, say } from './frame.mjs'
import { enodeOf, findGeth, fundedAlloc, introduce, ipcPath, newNodeKey, startGeth, TEST_ACCOUNTS } from './geth.mjs'
import { freePorts, ipc, isRunning, rpc, until } from './processes.mjs'

/** @typedef {import('./frame.mjs').Name} Name */
/** @typedef {{http: number, p2p: number}} Ports */
/** @typedef {{bootnode: string, signers: Record<Name, string>, nodeKeys: Record<Name, string>, ports: Record<Name, Ports>}} State */

/** @type {Frame<State>} */
const frame = new Frame('clique')
const { folder } = frame

/** @param {State} state @param {Name} name */
const urlOf = (state, name) => `http://127.0.0.1:${state.ports[name].http}`
const findCliqueGeth = () => findGeth('1.13.15', 'GETH_CLIQUE')

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
  const geth = findCliqueGeth()
  await frame.raise(async () => {
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
    frame.write(state)
    say('starting three geth full nodes')
    runNode(state, 'a', geth)
    state.bootnode = await enodeOf(folder, 'a')
    frame.write(state)
    for (const name of /** @type {const} */ (['b', 'k'])) runNode(state, name, geth)
    await introduce(folder, NODES)
    await until('the first blocks', async () => Number(await rpc(urlOf(state, 'k'), 'eth_blockNumber')) > 1, 60_000)
  })
  await status()
}

async function stopNode() {
  frame.read()
  await frame.stop(`geth-${frame.node}`)
  say(`node ${frame.node} is stopped`)
}

async function startNode() {
  const name = frame.node
  runNode(frame.read(), name, findCliqueGeth())
  await introduce(
    folder,
    NODES.filter((n) => isRunning(folder, `geth-${n}`)),
  )
  say(`node ${name} is started`)
}

async function status() {
  const state = frame.read()
  const nodes = await Promise.all(
    NODES.map(async (name) => {
      const url = urlOf(state, name)
      const [latest, peers] = await Promise.all([
        orNothing(rpc(url, 'eth_blockNumber').then(Number)),
        orNothing(ipc(ipcPath(folder, name), 'admin_peers').then((p) => p.length)),
      ])
      return { name, role: roleOf(name), url, running: isRunning(folder, `geth-${name}`), latest, peers }
    }),
  )
  frame.report({ chainId: CHAIN_ID, folder, bootnode: state.bootnode, nodes }, (s) => [
    `chain ${s.chainId} in ${s.folder}: development accounts, loopback only`,
    `boot node ${s.bootnode}`,
    ...s.nodes.map(
      (n) => `${n.name}  ${n.role.padEnd(20)}  ${n.url}  block ${number(n.latest)}  peers ${number(n.peers)}`,
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
})
