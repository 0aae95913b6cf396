/** Runs every cell of the DTLS matrix against every foreign stack, in both directions. */
import { DTLS_PEER_NAMES, type DtlsPeer, type DtlsPeerName, findDtlsPeer } from '../peers/dtls-peers.ts'
import type { Direction, Verdict } from './coap-cells.ts'
import type { MatrixOptions } from './coap-matrix.ts'
import { DTLS_CELLS, type DtlsCellId, notOffered } from './dtls-cells.ts'
import { dtlsFault } from './dtls-faults.ts'
import { theirServerCell } from './dtls-our-client.ts'
import { theirClientCell } from './dtls-our-server.ts'
import { type DtlsPki, makeDtlsPki } from './dtls-pki.ts'
import { inParallel, type Result, type Status } from './results.ts'

const HOST = '127.0.0.1'
const DIRECTIONS: readonly Direction[] = ['their client, our server', 'our client, their server']

async function runCell(
  name: DtlsPeerName,
  peer: DtlsPeer,
  direction: Direction,
  cell: DtlsCellId,
  pki: DtlsPki,
): Promise<{ status: Status; detail: string }> {
  const why = notOffered(name, direction, cell)
  if (why !== undefined) return { status: 'skipped', detail: why }
  const run = direction === 'their client, our server' ? theirClientCell : theirServerCell
  let verdict: Verdict
  try {
    verdict = await run(name, peer, cell, HOST, pki)
  } catch (error) {
    verdict = { ok: false, detail: error instanceof Error ? error.message : String(error) }
  }
  if (verdict.ok) return { status: 'ok', detail: verdict.detail }
  const fault = dtlsFault(name, direction, cell, verdict)
  return fault === undefined ? { status: 'failed', detail: verdict.detail } : { status: 'peer', detail: fault }
}

export async function runDtlsMatrix(options: MatrixOptions): Promise<void> {
  const names = DTLS_PEER_NAMES.filter((name) => options.peers?.includes(name) ?? true)
  const cells = DTLS_CELLS.filter(({ id }) => options.cells?.includes(id) ?? true)
  const pki = await makeDtlsPki(HOST)
  const runPeer = async (name: DtlsPeerName): Promise<void> => {
    const found = await findDtlsPeer(name).catch((error: Error) => error)
    if (!(found instanceof Error)) options.onPeer(name, found.version)
    for (const direction of DIRECTIONS) {
      const table = `DTLS: ${direction}`
      for (const { id, title } of cells) {
        const outcome: Pick<Result, 'status' | 'detail'> =
          found instanceof Error
            ? { status: 'skipped', detail: found.message }
            : await runCell(name, found, direction, id, pki)
        options.onResult({ table, cell: title, peer: name, ...outcome })
      }
    }
  }
  try {
    await inParallel(
      2,
      names.map((name) => () => runPeer(name)),
    )
  } finally {
    pki.remove()
  }
}
