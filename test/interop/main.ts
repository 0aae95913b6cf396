/**
 * `npm run test:interop [-- coap|dtls|cose|nodes …] [--peer NAME] [--cell ID] [--write]
 * [--verbose] [--trace]`: starts the real foreign programs, prints
 * the matrix, ends with `N passed, N failed, N skipped` and a non-zero code when a cell failed. `--write` puts the
 * matrix into docs/interop.md. Peers are found or installed by test/peers.
 */
import { parseArgs } from 'node:util'
import { COAP_PEER_NAMES } from '../peers/coap-peers.ts'
import { COSE_PEERS } from '../peers/cose-peers.ts'
import { DTLS_PEER_NAMES } from '../peers/dtls-peers.ts'
import { NODE_NAMES } from '../peers/node-versions.ts'
import { runCoapMatrix } from './coap-matrix.ts'
import { runCoseMatrix } from './cose-matrix.ts'
import { writeDocument } from './document.ts'
import { runDtlsMatrix } from './dtls-matrix.ts'
import { runNodesMatrix } from './nodes-matrix.ts'
import { asText, count, type Result } from './results.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string', multiple: true },
    cell: { type: 'string', multiple: true },
    write: { type: 'boolean' },
    verbose: { type: 'boolean' },
    trace: { type: 'boolean' },
  },
})

const MATRICES = { coap: runCoapMatrix, dtls: runDtlsMatrix, cose: runCoseMatrix, nodes: runNodesMatrix } as const
const asked = positionals.length === 0 ? Object.keys(MATRICES) : positionals
const unknown = asked.filter((name) => !(name in MATRICES))
if (unknown.length > 0) {
  process.stderr.write(`there is no matrix ${unknown.join(', ')}; there are ${Object.keys(MATRICES).join(', ')}\n`)
  process.exit(2)
}

const results: Result[] = []
const began = performance.now()
const onResult = (result: Result): void => {
  results.push(result)
  if (values.verbose || result.status === 'failed') {
    process.stderr.write(`${result.status} ${result.table} | ${result.peer} | ${result.cell} | ${result.detail}\n`)
  }
}
const versions = new Map<string, string>()
const onPeer = (name: string, version: string): void => void versions.set(name, version)
const onTrace = values.trace
  ? (lines: readonly string[]): void => void process.stderr.write(`${lines.join('\n  ')}\n`)
  : undefined
for (const name of asked) {
  await MATRICES[name as keyof typeof MATRICES]({ peers: values.peer, cells: values.cell, onResult, onTrace, onPeer })
}
const order: readonly string[] = [...COAP_PEER_NAMES, ...DTLS_PEER_NAMES, ...Object.keys(COSE_PEERS), ...NODE_NAMES]
results.sort((a, b) => order.indexOf(a.peer) - order.indexOf(b.peer))

process.stdout.write(`\n${asText(results)}\n`)
if (values.write) writeDocument(results, versions)
const faults = count(results, 'peer')
const seconds = ((performance.now() - began) / 1000).toFixed(0)
process.stdout.write(`${seconds} s; ${faults} of the skipped cells are the peer's own fault, with the evidence above\n`)
const failed = count(results, 'failed')
process.stdout.write(
  `${count(results, 'ok')} passed, ${failed} failed, ${count(results, 'skipped') + faults} skipped\n`,
)
process.exit(failed > 0 ? 1 : 0)
