// @ts-check
// The consensus side of the proof-of-stake network: Lodestar for each node, and a beacon chain that begins on geth's head.
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CHAIN_ID, NODES, orNothing, say } from '../network/frame.mjs'
import { isRunning, pause, rpc, start, tailOf, until } from '../network/processes.mjs'

const HERE = dirname(fileURLToPath(import.meta.url))
const VALIDATORS = { a: '0..3', b: '4..7', k: undefined }
const SLOT_SECONDS = 2
/** of the minimal preset */
const SLOTS_PER_EPOCH = 8
/** Finality is two to three epochs behind the newest slot while all is well. */
const USUAL_EPOCHS_BEHIND = 4
const LODESTAR_ENV = { NODE_BACKEND: 'js', LODESTAR_PRESET: 'minimal', NODE_ENV: 'production' }
/** From the first node's start to the first slot; all have to be up by then. */
const LEAD_SECONDS = 40
const LONGEST_LEAD_SECONDS = 160

/** @typedef {import('../network/frame.mjs').Name} Name */
/** @typedef {{http: number, engine: number, p2p: number, beacon: number, rest: number}} Ports */
/** @typedef {{genesisTime: number, anchor: string, anchorNumber: number, bootnode: string, nodeKeys: Record<Name, string>, ports: Record<Name, Ports>}} State */
/** @typedef {import('../network/frame.mjs').Frame<State>} PosFrame */

/** @param {PosFrame} frame @param {Name} name */
const folderOf = (frame, name) => join(frame.folder, `beacon-${name}`)

/**
 * @param {PosFrame} frame @param {State} state @param {Name} name
 * @param {readonly string[]} bootnodes records (ENR) of nodes that run
 */
function runBeacon(frame, state, name, bootnodes) {
  const { engine, beacon, rest } = state.ports[name]
  const validators = VALIDATORS[name]
  start({
    folder: frame.folder,
    name: `beacon-${name}`,
    command: process.execPath,
    env: LODESTAR_ENV,
    args: [
      ...[join(HERE, 'lodestar.mjs'), 'dev', '--dataDir', folderOf(frame, name)],
      ...['--genesisTime', String(state.genesisTime), '--genesisEth1Hash', state.anchor, '--genesisValidators', '8'],
      ...[`--params.SECONDS_PER_SLOT`, String(SLOT_SECONDS), '--params.ALTAIR_FORK_EPOCH', '0'],
      ...['--params.BELLATRIX_FORK_EPOCH', '0', '--params.CAPELLA_FORK_EPOCH', '0'],
      ...['--params.TERMINAL_TOTAL_DIFFICULTY', '0', '--params.DEPOSIT_CHAIN_ID', String(CHAIN_ID)],
      ...['--params.DEPOSIT_NETWORK_ID', String(CHAIN_ID), '--eth1=false'],
      ...['--execution.urls', `http://127.0.0.1:${engine}`, '--jwt-secret', join(frame.folder, 'jwt.hex')],
      ...['--listenAddress', '127.0.0.1', '--port', String(beacon), '--discoveryPort', String(beacon)],
      ...['--enr.ip', '127.0.0.1', '--enr.tcp', String(beacon), '--enr.udp', String(beacon)],
      ...['--rest', '--rest.namespace', '*', '--rest.port', String(rest), '--metrics=false', '--logLevel', 'info'],
      ...['--suggestedFeeRecipient', `0x${'fe'.repeat(20)}`, '--network.connectToDiscv5Bootnodes'],
      ...(bootnodes.length === 0 ? [] : ['--bootnodes', ...bootnodes]),
      ...(validators === undefined ? [] : ['--startValidators', validators, '--server', `http://127.0.0.1:${rest}`]),
    ],
  })
}

/** @param {State} state @param {Name} name @param {string} path */
export async function beaconApi(state, name, path) {
  const response = await fetch(`http://127.0.0.1:${state.ports[name].rest}${path}`, {
    signal: AbortSignal.timeout(3_000),
  })
  if (!response.ok) throw new Error(`HTTP ${response.status}`)
  return (await response.json()).data
}

/** @param {PosFrame} frame @param {State} state @param {Name} name @param {number} ms */
function beaconAnswers(frame, state, name, ms) {
  return until(
    `beacon node ${name} answers`,
    () => beaconApi(state, name, '/eth/v1/node/identity'),
    ms,
    () =>
      isRunning(frame.folder, `beacon-${name}`)
        ? undefined
        : `beacon node ${name} ended: ${tailOf(frame.folder, `beacon-${name}`)}`,
  )
}

/**
 * A beacon chain from `state.anchor` on, all nodes in it before its first slot. On a busy machine that takes longer than
 * thought: then once more, with more time.
 * @param {PosFrame} frame @param {State} state
 */
export async function startBeacons(frame, state) {
  for (let lead = LEAD_SECONDS; ; ) {
    const needed = await tryBeacons(frame, state, lead)
    if (needed === undefined) break
    await stopBeacons(frame)
    if (lead >= LONGEST_LEAD_SECONDS) {
      throw new Error('the nodes were not up before the first slot: this machine is too busy')
    }
    lead = Math.min(LONGEST_LEAD_SECONDS, Math.max(2 * lead, needed))
    say(`the nodes would not be up before the first slot: once more, with ${lead} s`)
  }
  const height = async () => Number(await rpc(`http://127.0.0.1:${state.ports.k.http}`, 'eth_blockNumber'))
  await until('the first blocks', async () => (await height()) > state.anchorNumber, 120_000)
}

/** Neither the old blocks nor the old signatures mean anything in the beacon chain that comes next. @param {PosFrame} frame */
export async function stopBeacons(frame) {
  await Promise.all(NODES.map((n) => frame.stop(`beacon-${n}`)))
  for (const name of NODES) rmSync(folderOf(frame, name), { recursive: true, force: true })
}

/** A node of an existing beacon chain: its neighbours that run are its boot nodes. @param {PosFrame} frame @param {State} state @param {Name} name */
export async function rejoinBeacons(frame, state, name) {
  const others = NODES.filter((n) => n !== name && isRunning(frame.folder, `beacon-${n}`))
  const identities = await Promise.all(others.map((n) => orNothing(beaconApi(state, n, '/eth/v1/node/identity'))))
  runBeacon(
    frame,
    state,
    name,
    identities.flatMap((i) => (i === undefined ? [] : [String(i.enr)])),
  )
  await beaconAnswers(frame, state, name, 120_000)
}

/**
 * A node with its old chain never catches up; what protects its validators from signing twice has to stay.
 * @param {PosFrame} frame @param {Name} name
 */
export const forgetChain = (frame, name) =>
  rmSync(join(folderOf(frame, name), 'chain-db'), { recursive: true, force: true })

/**
 * @param {PosFrame} frame @param {State} state @param {number} lead seconds from now to the first slot
 * @returns {Promise<number | undefined>} undefined: all are up in time; else the seconds that they would need
 */
async function tryBeacons(frame, state, lead) {
  const begun = Date.now()
  const seconds = () => (Date.now() - begun) / 1000
  state.genesisTime = Math.floor(begun / 1000) + lead
  frame.write(state)
  const answers = (/** @type {Name} */ n) => beaconAnswers(frame, state, n, lead * 2_000)
  runBeacon(frame, state, 'a', [])
  const { enr } = await answers('a')
  // the two others start side by side, on the same processors
  const needed = Math.ceil(seconds() * 2.5)
  if (needed > lead) return 2 * needed
  for (const name of /** @type {const} */ (['b', 'k'])) runBeacon(frame, state, name, [enr])
  await Promise.all([answers('b'), answers('k')])
  const left = state.genesisTime - Date.now() / 1000
  if (left < 1) return Math.ceil(2 * seconds())
  say(`first slot in ${Math.round(left)} s`)
  await pause(left * 1000)
  return undefined
}

/**
 * How far finality is, as the first node sees it that answers.
 * @param {State} state
 * @returns {Promise<{epoch: number, finalizedEpoch: number, stalled: boolean} | undefined>}
 */
export async function finalityOf(state) {
  for (const name of NODES) {
    try {
      const points = await beaconApi(state, name, '/eth/v1/beacon/states/head/finality_checkpoints')
      const finalizedEpoch = Number(points.finalized.epoch)
      const slot = (Date.now() / 1000 - state.genesisTime) / SLOT_SECONDS
      const epoch = Math.max(0, Math.floor(slot / SLOTS_PER_EPOCH))
      return { epoch, finalizedEpoch, stalled: epoch - finalizedEpoch > USUAL_EPOCHS_BEHIND }
    } catch {
      // the next one
    }
  }
  return undefined
}
