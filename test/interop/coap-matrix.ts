/** Runs every cell of the CoAP matrix against every foreign stack, in both directions. */
import { COAP_PEER_NAMES, type CoapPeer, type CoapPeerName, findCoapPeer } from '../peers/coap-peers.ts'
import { PeerClient, startCoapServer } from '../peers/process.ts'
import type { CoapDriver } from '../peers/protocol.ts'
import { CELLS, type CellContext, type Direction } from './coap-cells.ts'
import { FAULTS } from './coap-faults.ts'
import { OurClient, OurServer } from './our-coap.ts'
import { inParallel, type Result, type Status } from './results.ts'
import { lineOf, type Seen } from './tap.ts'

const HOST = '127.0.0.1'

export interface MatrixOptions {
  readonly peers?: readonly string[] | undefined
  readonly cells?: readonly string[] | undefined
  readonly onResult: (result: Result) => void
  /** Told of each stack that is there. */
  readonly onPeer: (name: string, version: string) => void
  /** Told what crossed our transport in a cell that did not pass, one line a message. */
  readonly onTrace?: ((lines: readonly string[]) => void) | undefined
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
  onTrace: MatrixOptions['onTrace'],
): Promise<{ status: Status; detail: string }> {
  const from = context.seen().length
  const verdict = await cell.run(context)
  if (verdict.ok) return { status: 'ok', detail: verdict.detail }
  const seen = context.seen().slice(from)
  onTrace?.([`${name}, ${direction}, ${cell.title}: ${verdict.detail}`, ...seen.map(lineOf)])
  const fault = FAULTS.find(
    (each) =>
      each.peers.includes(name) && each.direction === direction && each.cell === cell.id && each.evident(verdict, seen),
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
    options.onPeer(name, peer.version)
  } catch (error) {
    all('skipped', error instanceof Error ? error.message : String(error))
    return
  }
  const open = direction === 'their client, our server' ? theirClient : ourClient
  let side: Side | undefined
  try {
    for (const cell of cells) {
      let result: { status: Status; detail: string }
      try {
        side ??= await open(peer)
        result = await runCell(
          name,
          direction,
          cell,
          { driver: side.driver, direction, seen: side.seen },
          options.onTrace,
        )
      } catch (error) {
        result = { status: 'failed', detail: error instanceof Error ? error.message : String(error) }
      }
      options.onResult({ table, cell: cell.title, peer: name, ...result })
      if (result.status === 'ok') continue
      // a stack may not be itself after a failure: the next cell begins afresh
      await side?.close()
      side = undefined
    }
  } finally {
    await side?.close()
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
