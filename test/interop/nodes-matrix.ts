/** One built binding in every Node that it must serve: each loads it and shakes hands with the Node that runs this. */
import { join } from 'node:path'
import { connect } from '../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation } from '../../transport/dtls/types.ts'
import { bindingFile } from '../../transport/native.ts'
import { findNode, NODE_NAMES, type NodeName, type OtherNode } from '../peers/node-versions.ts'
import { PeerProcess } from '../peers/process.ts'
import { startServer } from '../transport/dtls/authority.ts'
import { startRelay } from '../transport/dtls/relay.ts'
import type { Verdict } from './coap-cells.ts'
import type { MatrixOptions } from './coap-matrix.ts'
import { type DtlsPki, makeDtlsPki } from './dtls-pki.ts'
import type { ChildLine } from './nodes-child.ts'
import { inParallel, type Result } from './results.ts'

const TABLE = 'DTLS: one built binding in other Nodes'
const HOST = '127.0.0.1'
const WAIT_MS = 30_000

interface Cell {
  readonly id: string
  readonly title: string
  run(node: OtherNode, pki: DtlsPki): Promise<Verdict>
}

const CELLS: readonly Cell[] = [
  { id: 'load', title: 'loads the binding, which reaches its OpenSSL', run: loads },
  { id: 'serve', title: 'serves: mutual certificates, data, channel binding, resumption', run: serves },
  { id: 'connect', title: 'connects: mutual certificates, data, channel binding', run: connects },
  { id: 'lost-hello', title: 'serves: a lost hello costs no other retransmission', run: losesHello },
]

function child(node: OtherNode, ...args: string[]): PeerProcess {
  // The one file, whatever else that Node would find.
  const env = { IOTCHAIN_DTLS_BINDING: bindingFile() ?? '' }
  return new PeerProcess([node.path, join(import.meta.dirname, 'nodes-child.js'), ...args], { env })
}

/** @throws with what the process said instead */
async function lineOf(process: PeerProcess): Promise<ChildLine> {
  const line = await process.line(WAIT_MS)
  if (line !== undefined) return JSON.parse(line) as ChildLine
  const said = process.stderr.split('\n').find((each) => /Error/.test(each))
  throw new Error(said ?? 'it said nothing')
}

async function loads(node: OtherNode): Promise<Verdict> {
  const { node: version, openssl, own } = await lineOf(child(node, 'load'))
  const ok = version === `v${node.version}` && own !== undefined && openssl?.includes(own) === true
  return { ok, detail: `${version} with ${openssl}` }
}

interface Serving {
  readonly port: number
  next(): Promise<ChildLine>
  stop(): Promise<void>
}

async function serving(node: OtherNode, { server, rootFile }: DtlsPki): Promise<Serving> {
  const process = child(node, 'serve', server.chainFile, server.keyFile, rootFile)
  const { port = 0 } = await lineOf(process)
  return {
    port,
    next: () => lineOf(process),
    stop: async () => {
      process.child.stdin?.end()
      await process.exited
    },
  }
}

function dial(port: number, pki: DtlsPki, options: ConnectOptions = {}): DtlsAssociation {
  return connect(HOST, port, { ca: pki.root, cert: pki.device.chain, key: pki.device.key, ...options })
}

async function echoOf(association: DtlsAssociation, text: string): Promise<string> {
  const echo = new Promise<string>((done) => {
    association.onmessage = (datagram) => done(datagram.toString())
  })
  association.send(Buffer.from(text))
  return echo
}

async function serves(node: OtherNode, pki: DtlsPki): Promise<Verdict> {
  const server = await serving(node, pki)
  try {
    const first = dial(server.port, pki)
    await first.opened
    const there = await server.next()
    const echo = await echoOf(first, 'ab')
    const equal = there.channelBinding === first.channelBinding().toString('hex')
    const { session } = first
    first.close()
    const second = dial(server.port, pki, { session })
    await second.opened
    const again = await server.next()
    const ok = echo === 'ab' && equal && there.authorized === true && second.reused && again.authorized === true
    second.close()
    return { ok, detail: JSON.stringify({ there, again, echo, reused: second.reused }) }
  } finally {
    await server.stop()
  }
}

async function connects(node: OtherNode, pki: DtlsPki): Promise<Verdict> {
  const { chain: cert, key } = pki.server
  const server = await startServer({ host: HOST, cert, key, ca: pki.root, clientAuth: 'require' })
  try {
    const process = child(node, 'connect', String(server.port), pki.device.chainFile, pki.device.keyFile, pki.rootFile)
    const here = await server.next()
    const binding = here.channelBinding().toString('hex')
    const there = await lineOf(process)
    const ok = there.channelBinding === binding && there.echo === [...'through another Node'].reverse().join('')
    await process.exited
    return { ok, detail: JSON.stringify(there) }
  } finally {
    await server.endpoint.close()
  }
}

/** The server's timer is a minute: were its ServerHello taken for a repetition, nothing would come after it. */
async function losesHello(node: OtherNode, pki: DtlsPki): Promise<Verdict> {
  const server = await serving(node, pki)
  let lost = false
  const relay = await startRelay({
    port: server.port,
    seed: 1,
    filter: (_datagram, direction) => {
      if (direction === 'down' || lost) return true
      lost = true
      return false
    },
  })
  try {
    const association = dial(relay.port, pki, { retransmitInitial: 100, handshakeTimeout: WAIT_MS })
    await association.opened
    const ok = lost && (await echoOf(association, 'ab')) === 'ab'
    association.close()
    return { ok, detail: 'opened' }
  } finally {
    relay.close()
    await server.stop()
  }
}

export async function runNodesMatrix(options: MatrixOptions): Promise<void> {
  const names = NODE_NAMES.filter((name) => options.peers?.includes(name) ?? true)
  const cells = CELLS.filter(({ id }) => options.cells?.includes(id) ?? true)
  const pki = await makeDtlsPki(HOST)
  const runNode = async (name: NodeName): Promise<void> => {
    const found = await findNode(name).catch((error: Error) => error)
    if (!(found instanceof Error)) options.onPeer(name, found.version)
    for (const cell of cells) {
      const outcome = await outcomeOf(cell, found, pki)
      options.onResult({ table: TABLE, cell: cell.title, peer: name, ...outcome })
    }
  }
  try {
    await inParallel(
      2,
      names.map((name) => () => runNode(name)),
    )
  } finally {
    pki.remove()
  }
}

async function outcomeOf(
  cell: Cell,
  found: OtherNode | Error,
  pki: DtlsPki,
): Promise<Pick<Result, 'status' | 'detail'>> {
  if (found instanceof Error) return { status: 'skipped', detail: found.message }
  const verdict = await cell.run(found, pki).catch((error: Error) => ({ ok: false, detail: error.message }))
  return { status: verdict.ok ? 'ok' : 'failed', detail: verdict.detail }
}
