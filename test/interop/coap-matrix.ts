/** Runs every cell of the CoAP matrix against every foreign stack, in both directions. */
import { COAP_PEER_NAMES, type CoapPeer, type CoapPeerName, findCoapPeer } from '../peers/coap-peers.ts'
import { PeerClient, startCoapServer } from '../peers/process.ts'
import type { CoapDriver } from '../peers/protocol.ts'
import { CELLS, type CellContext, type Direction } from './coap-cells.ts'
import { FAULTS } from './coap-faults.ts'
import { OurClient, OurServer } from './our-coap.ts'
import { inParallel, type Result, type Status } from './results.ts'
import type { Seen } from './tap.ts'

const HOST = '127.0.0.1'

export interface MatrixOptions {
  readonly peers?: readonly string[] | undefined
  readonly cells?: readonly string[] | undefined
  readonly onResult: (result: Result) => void
}

interface Side {
  readonly driver: CoapDriver
  seen(): readonly Seen[]
  close(): Promise<void>
}

async function theirClient(peer: CoapPeer): Promise<Side> {
  const server = await OurServer.udp(HOST)
  const driver = new PeerClient(peer, HOST, server.port)
  return {
    driver,
    seen: () => server.tap.seen,
    close: async () => {
      await driver.close()
      await server.close()
    },
  }
}

async function ourClient(peer: CoapPeer): Promise<Side> {
  const server = await startCoapServer(peer, HOST)
  const driver = await OurClient.open(HOST, server.port)
  return {
    driver,
    seen: () => driver.tap.seen,
    close: async () => {
      await driver.close()
      await server.process.stop()
    },
  }
}

async function runCell(
  name: CoapPeerName,
  direction: Direction,
  cell: (typeof CELLS)[number],
  context: CellContext,
): Promise<{ status: Status; detail: string }> {
  const from = context.seen().length
  const verdict = await cell.run(context)
  if (verdict.ok) return { status: 'ok', detail: verdict.detail }
  const seen = context.seen().slice(from)
  const fault = FAULTS.find(
    (each) =>
      each.peer === name && each.direction === direction && each.cells.includes(cell.id) && each.evident(verdict, seen),
  )
  if (fault === undefined) return { status: 'failed', detail: verdict.detail }
  return { status: 'peer', detail: fault.why }
}

async function runSide(name: CoapPeerName, direction: Direction, options: MatrixOptions): Promise<void> {
  const table = `CoAP: ${direction}`
  const cells = CELLS.filter((cell) => options.cells?.includes(cell.id) ?? true)
  const all = (status: Status, detail: string, rest = cells): void => {
    for (const cell of rest) options.onResult({ table, cell: cell.title, peer: name, status, detail })
  }
  let peer: CoapPeer
  try {
    peer = await findCoapPeer(name)
  } catch (error) {
    all('skipped', error instanceof Error ? error.message : String(error))
    return
  }
  let side: Side
  try {
    side = direction === 'their client, our server' ? await theirClient(peer) : await ourClient(peer)
  } catch (error) {
    all('failed', error instanceof Error ? error.message : String(error))
    return
  }
  try {
    for (const cell of cells) {
      const result = await runCell(name, direction, cell, { driver: side.driver, direction, seen: side.seen })
      options.onResult({ table, cell: cell.title, peer: name, ...result })
    }
  } finally {
    await side.close()
  }
}

/** One stack after the other would wait most of the time: three at once, both directions of one stack in a row. */
export async function runCoapMatrix(options: MatrixOptions): Promise<void> {
  const names = COAP_PEER_NAMES.filter((name) => options.peers?.includes(name) ?? true)
  await inParallel(
    3,
    names.map((name) => async () => {
      await runSide(name, 'their client, our server', options)
      await runSide(name, 'our client, their server', options)
    }),
  )
}
