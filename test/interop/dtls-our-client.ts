/** Our DTLS client in front of a foreign server: one server per cell. */
import { setTimeout as delay } from 'node:timers/promises'
import { CoapClient } from '../../transport/coap/client.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { DtlsClientTransport } from '../../transport/dtls/coap-transport.ts'
import { connect } from '../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation } from '../../transport/dtls/types.ts'
import type { DtlsPeer, DtlsPeerName } from '../peers/dtls-peers.ts'
import { LARGE_OCTETS, pattern } from '../peers/protocol.ts'
import type { Verdict } from './coap-cells.ts'
import { type DtlsCellId, pskCiphers } from './dtls-cells.ts'
import { PSK } from './dtls-clients.ts'
import type { DtlsPki } from './dtls-pki.ts'
import { startDtlsServer, type TheirServer } from './dtls-servers.ts'

/** Sends until something comes back; both ends have talked then. Returns what is wrong, or undefined. */
async function talk(association: DtlsAssociation, server: TheirServer): Promise<string | undefined> {
  if (server.kind === 'coap') return await talkCoap(association)
  let heard = ''
  association.onmessage = (datagram) => {
    heard += datagram.toString()
  }
  for (let i = 0; i < 10; i++) {
    association.send(Buffer.from('hello\n'))
    if (server.kind === 'console' && (await server.process.shows(/^hello$/m, 300))) server.process.write('world\n')
    else await delay(100)
    for (let j = 0; j < 10 && heard === ''; j++) await delay(20)
    if (heard !== '') break
  }
  const wanted = server.kind === 'console' ? 'world' : 'hello'
  return heard.includes(wanted) ? undefined : `sent hello, heard ${JSON.stringify(heard)}`
}

/** PUT and GET of 10 KB with the unmodified coap-server. */
async function talkCoap(association: DtlsAssociation): Promise<string | undefined> {
  const transport = new DtlsClientTransport(association)
  const client = new CoapClient(new CoapEndpoint(transport), transport.peer)
  const body = pattern(LARGE_OCTETS, 5)
  const put = await client.put('/example_data', body, { timeoutMs: 6000 })
  if (put.codeText !== '2.04' && put.codeText !== '2.01') return `PUT: ${put.codeText}`
  const got = await client.get('/example_data', { timeoutMs: 6000 })
  return Buffer.from(got.payload).equals(body) ? undefined : `GET: ${got.codeText}, ${got.payload.length} octets`
}

async function judge(
  cell: DtlsCellId,
  server: TheirServer,
  open: (session?: Uint8Array) => DtlsAssociation,
): Promise<Verdict> {
  const first = open()
  if (cell === 'foreign-ca') {
    try {
      await first.opened
    } catch (error) {
      const { code, message } = error as { code?: string; message: string }
      return { ok: code === 'dtls/refused', detail: `${code}: ${message}` }
    }
    first.close()
    return { ok: false, detail: 'our client accepted it' }
  }
  await first.opened
  const wrong = await talk(first, server)
  if (wrong !== undefined) return { ok: false, detail: wrong }
  switch (cell) {
    case 'exporter': {
      const ours = first.channelBinding().toString('hex')
      const end = performance.now() + 2000
      while (server.exporters().length === 0 && performance.now() < end) await delay(50)
      first.close()
      const theirs = server.exporters().at(-1)
      return { ok: ours === theirs, detail: `theirs ${theirs}, ours ${ours}` }
    }
    case 'resumption': {
      const { session } = first
      first.close()
      await first.closed
      await delay(200)
      const second = open(session)
      await second.opened
      const again = await talk(second, server)
      const { reused } = second
      second.close()
      return { ok: reused && again === undefined, detail: again ?? `reused: ${reused}` }
    }
    default: {
      const { authorized, cipher } = first
      first.close()
      return { ok: authorized === (cell !== 'psk'), detail: `authorized: ${authorized}, ${cipher}` }
    }
  }
}

export async function theirServerCell(
  name: DtlsPeerName,
  peer: DtlsPeer,
  cell: DtlsCellId,
  host: string,
  pki: DtlsPki,
): Promise<Verdict> {
  const server = await startDtlsServer(name, peer, {
    host,
    folder: pki.folder,
    identity: cell === 'psk' ? undefined : cell === 'foreign-ca' ? pki.rogueServer : pki.server,
    trustFile: cell === 'psk' ? undefined : pki.rootFile,
    requireClient: cell === 'mutual',
  })
  const common = { handshakeTimeout: 8000, retransmitInitial: 250 }
  const options: ConnectOptions =
    cell === 'psk'
      ? { ...common, psk: { [PSK.identity]: PSK.key }, ciphers: pskCiphers(name) }
      : { ...common, ca: pki.root, ...(cell === 'mutual' ? { cert: pki.device.chain, key: pki.device.key } : {}) }
  const opened: DtlsAssociation[] = []
  try {
    return await judge(cell, server, (session) => {
      const association = connect(host, server.port, session === undefined ? options : { ...options, session })
      opened.push(association)
      return association
    })
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    const said = server.process.stderr.trim().split('\n').at(-1) ?? ''
    return { ok: false, detail: `${code ?? ''} ${message}${said === '' ? '' : `; the server says: ${said}`}` }
  } finally {
    for (const association of opened) association.destroy()
    await server.stop()
  }
}
