/** From a URI to a CoAP client: plain over UDP, or over a DTLS association of its own. */
import { isIP } from 'node:net'
import { IotchainError } from '../protocol/errors.ts'
import { CoapClient } from './coap/client.ts'
import { CoapEndpoint, type EndpointOptions } from './coap/endpoint.ts'
import { connectUdp } from './coap/udp.ts'
import { parseCoapUri } from './coap/uri.ts'
import { dtlsClientTransport } from './dtls/coap-transport.ts'
import { connect } from './dtls/connect.ts'
import type { ConnectOptions } from './dtls/types.ts'

export interface DialOptions extends EndpointOptions {
  /** For coaps: whom to trust (`ca`, `expectSpki` or both), and who one is (`cert` and `key`, or `psk`). */
  readonly secure?: ConnectOptions | undefined
}

/**
 * A client of the server that the URI names; its path and query are ignored. For coaps it resolves after the
 * handshake; the client lasts as long as the association.
 * @throws `coap/bad-uri`, `coap/unreachable`, `dtls/no-trust`, `dtls/refused`, `dtls/timeout`, `dtls/unreachable` …
 *
 * @example
 * const client = await dial('coaps://keys.example', { secure: { expectSpki } })
 */
export async function dial(uri: string, options: DialOptions = {}): Promise<CoapClient> {
  const { scheme, host, port } = parseCoapUri(uri)
  const { secure, ...engine } = options
  const uriHost = isIP(host.replace(/%.*$/, '')) === 0 ? host : undefined
  if (scheme === 'coaps') {
    const association = connect(host, port, secure ?? {})
    const transport = await dtlsClientTransport(association)
    return new CoapClient(new CoapEndpoint(transport, engine), transport.peer, uriHost)
  }
  if (secure?.expectSpki !== undefined || secure?.psk !== undefined) {
    throw new IotchainError('coap/bad-uri', `${uri} is not protected, but a protected server was asked for`, {
      hint: 'write coaps:// instead of coap://',
    })
  }
  const transport = await connectUdp(host, port)
  return new CoapClient(new CoapEndpoint(transport, engine), await transport.peer(host, port), uriHost)
}
