/** Our DTLS server in front of a foreign client: one server per cell. */
import { DtlsServerTransport } from '../../transport/dtls/coap-transport.ts'
import { listen } from '../../transport/dtls/endpoint.ts'
import type { DtlsAssociation, ListenOptions } from '../../transport/dtls/types.ts'
import type { DtlsPeer, DtlsPeerName } from '../peers/dtls-peers.ts'
import type { Verdict } from './coap-cells.ts'
import { type DtlsCellId, pskCiphers } from './dtls-cells.ts'
import { type Attempt, type AttemptResult, CLIENTS, PSK } from './dtls-clients.ts'
import type { DtlsPki } from './dtls-pki.ts'
import { OurServer } from './our-coap.ts'

/** What our side knew of an association. */
interface Known {
  readonly authorized: boolean
  readonly names: string | undefined
  readonly reused?: boolean | undefined
  readonly pskIdentity?: string | undefined
  /** Hex, or the code of the error that refused it. */
  readonly binding?: string | undefined
}

function know(association: DtlsAssociation): Known {
  let binding: string
  try {
    binding = association.channelBinding().toString('hex')
  } catch (error) {
    binding = (error as { code?: string }).code ?? String(error)
  }
  return {
    authorized: association.authorized,
    names: association.peerX509Certificate?.subjectAltName,
    reused: association.reused,
    pskIdentity: association.pskIdentity,
    binding,
  }
}

function optionsOf(peer: DtlsPeerName, cell: DtlsCellId, host: string, pki: DtlsPki): ListenOptions {
  const common = { port: 0, host, retransmitInitial: 250 }
  if (cell === 'psk' || peer === 'node-dtls-client') {
    return { ...common, psk: { [PSK.identity]: PSK.key }, ciphers: pskCiphers(peer) }
  }
  return {
    ...common,
    cert: pki.server.chain,
    key: pki.server.key,
    ca: pki.root,
    clientAuth: cell === 'anonymous' ? 'optional' : 'require',
  }
}

interface Run {
  readonly result: AttemptResult
  readonly known: readonly Known[]
  readonly refused: number
}

/** A server that echoes datagrams. */
async function withEcho(options: ListenOptions, attempt: (port: number) => Promise<AttemptResult>): Promise<Run> {
  const known: Known[] = []
  const endpoint = listen((association) => {
    association.opened.then(
      () => known.push(know(association)),
      () => {}, // counted as refused
    )
    association.onmessage = (datagram) => association.send(datagram)
  }, options)
  try {
    const { port } = await endpoint.listening
    const result = await attempt(port)
    return { result, known, refused: endpoint.stats.refused }
  } finally {
    await endpoint.close()
  }
}

/** A CoAP server over DTLS, for stacks whose tools speak nothing else. */
async function withCoap(options: ListenOptions, attempt: (port: number) => Promise<AttemptResult>): Promise<Run> {
  const transport = new DtlsServerTransport(options)
  const { port } = await transport.endpoint.listening
  const server = new OurServer(transport)
  try {
    const result = await attempt(port)
    const { secure } = server.tap
    return { result, known: secure === undefined ? [] : [secure], refused: transport.endpoint.stats.refused }
  } finally {
    await server.close()
  }
}

function judge(peer: DtlsPeerName, cell: DtlsCellId, pki: DtlsPki, { result, known, refused }: Run): Verdict {
  const last = known.at(-1)
  const no = (detail: string): Verdict => ({ ok: false, detail })
  if (cell === 'foreign-ca') {
    if (result.opened || known.length > 0) return no('an association came about')
    return { ok: refused > 0, detail: `refused ${refused}; the client says: ${result.said}` }
  }
  if (!result.opened) {
    const ours = last === undefined ? 'no association' : `an association, identity ${last.pskIdentity}`
    return no(`${result.said || 'no data came back'}; our server saw ${ours}`)
  }
  if (last === undefined) return no('our server saw no association')
  switch (cell) {
    case 'mutual':
      return { ok: last.authorized && (last.names ?? '').includes(pki.deviceAddress), detail: last.names ?? 'no name' }
    case 'anonymous':
      return { ok: !last.authorized && last.names === undefined, detail: 'not authorized' }
    case 'exporter':
      if (peer === 'node-dtls-client') {
        // without an extended master secret a binding would bind nothing: it must be refused
        return { ok: last.binding === 'dtls/no-extended-master-secret', detail: last.binding ?? '' }
      }
      return {
        ok: result.exporter === last.binding && /^[0-9a-f]{64}$/.test(last.binding ?? ''),
        detail: `theirs ${result.exporter}, ours ${last.binding}`,
      }
    case 'resumption':
      return {
        ok: last.reused === true && result.resumed === true,
        detail: `theirs ${result.resumed}, ours ${last.reused}`,
      }
    case 'psk':
      return {
        ok: !last.authorized && (last.pskIdentity === PSK.identity || last.pskIdentity === undefined),
        detail: `identity ${last.pskIdentity}`,
      }
  }
}

export async function theirClientCell(
  name: DtlsPeerName,
  peer: DtlsPeer,
  cell: DtlsCellId,
  host: string,
  pki: DtlsPki,
): Promise<Verdict> {
  const options = optionsOf(name, cell, host, pki)
  const usesPsk = options.psk !== undefined
  const attempt = (port: number): Promise<AttemptResult> => {
    const how: Attempt = {
      host,
      port,
      folder: pki.folder,
      trustFile: usesPsk ? undefined : pki.rootFile,
      identity: usesPsk || cell === 'anonymous' ? undefined : cell === 'foreign-ca' ? pki.rogueDevice : pki.device,
      resume: cell === 'resumption',
    }
    return CLIENTS[name](peer, how)
  }
  const run = name.startsWith('libcoap') ? withCoap(options, attempt) : withEcho(options, attempt)
  return judge(name, cell, pki, await run)
}
