/** The two ports of the key server: DTLS for joins, plain CoAP for what anybody may read. */

import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { Logger } from '../runtime/log.ts'
import { deviceAddressOf } from '../runtime/pki/certificate.ts'
import { CoapEndpoint } from '../transport/coap/endpoint.ts'
import type { Router } from '../transport/coap/router.ts'
import { bindUdp } from '../transport/coap/udp.ts'
import { dtlsServerTransport } from '../transport/dtls/coap-transport.ts'
import type { DtlsEndpoint, SecureOptions } from '../transport/dtls/types.ts'
import type { HostPort, KeyServerConfig } from './config.ts'
import type { ServerIdentity } from './identity.ts'

export interface EndpointsOptions {
  readonly config: KeyServerConfig
  readonly identity: ServerIdentity
  readonly log: Logger
  readonly secure: Router
  readonly plain: Router
  /** PEM texts of the device CAs and their revocation lists */
  readonly issuers: readonly string[]
  readonly crls: readonly string[]
  readonly psk?: ((identity: string) => Uint8Array | undefined) | undefined
  /** An association is over. */
  readonly onGone: (association: string) => void
}

export interface Endpoints {
  readonly coaps: CoapEndpoint
  readonly coap: CoapEndpoint
  readonly dtls: DtlsEndpoint
  /** New certificates and lists for handshakes from now on. */
  renew(issuers: readonly string[], crls: readonly string[], identity: ServerIdentity): void
  /** Ends the associations of devices whose certificate no longer counts. */
  drop(devices: ReadonlySet<Address>): void
  close(): Promise<void>
}

/** Binds both ports. @throws `dtls/…`, `coap/…`, `runtime/port-busy` */
export async function openEndpoints(o: EndpointsOptions): Promise<Endpoints> {
  const { config, log } = o
  const transport = await dtlsServerTransport({
    ...secureOptions(o.identity, o.issuers, o.crls, o.psk),
    port: config.listen.coaps.port,
    host: bindHost(config.listen.coaps),
    clientAuth: 'optional',
    maxAssociations: config.limits.associations,
    maxAssociationsPerHost: config.limits.associationsPerHost,
    onRefused: (error, remote) =>
      log.limited('refused', 'info', { err: error, address: remote.address }, 'a handshake was refused'),
  })
  let coap: CoapEndpoint | undefined
  try {
    const { multicast } = config.listen
    const onFailure = (err: Error): void => o.log.warn({ err }, 'no multicast here')
    const udp = await bindUdp({
      port: config.listen.coap.port,
      host: bindHost(config.listen.coap),
      multicast: multicast === 'off' ? undefined : { interfaces: multicast, onFailure },
    })
    coap = new CoapEndpoint(udp, { router: o.plain })
  } catch (error) {
    await transport.close()
    throw error
  }
  const coaps = new CoapEndpoint(transport, { router: o.secure })
  const engine = transport.onpeergone
  transport.onpeergone = (peer) => {
    engine?.(peer)
    o.onGone(peer.key)
  }
  const plain = coap
  return {
    coaps,
    coap: plain,
    dtls: transport.endpoint,
    renew: (issuers, crls, identity) =>
      transport.endpoint.setSecureContext(secureOptions(identity, issuers, crls, o.psk)),
    drop(devices) {
      for (const association of [...transport.endpoint.associations()]) {
        const certificate = association.peerX509Certificate
        const device = certificate === undefined ? undefined : deviceAddressOf(certificate)
        if (device !== undefined && devices.has(device)) association.close()
      }
    },
    async close() {
      await Promise.all([coaps.close(), plain.close()])
    },
  }
}

function secureOptions(
  identity: ServerIdentity,
  issuers: readonly string[],
  crls: readonly string[],
  psk: EndpointsOptions['psk'],
): SecureOptions {
  return {
    cert: identity.certificate,
    key: identity.key,
    ca: issuers,
    ...(crls.length === 0 ? {} : { crl: crls }),
    ...(psk === undefined ? {} : { psk }),
  }
}

/** `::` binds IPv4 besides, where the host has both: that is what the layers below do without a host. */
function bindHost({ host }: HostPort): string | undefined {
  return host === '::' ? undefined : host
}

/** `coap://host[:port]` as joiners are told. */
export function publicUriOf(config: KeyServerConfig, identity: ServerIdentity, port: number): string {
  const { publicUri, coap } = config.listen
  if (publicUri !== undefined) return publicUri
  const wildcard = coap.host === '::' || coap.host === '0.0.0.0'
  const name = wildcard ? (identity.names.find((n) => !n.startsWith('*')) ?? 'localhost') : coap.host
  const host = isIP(name) === 6 ? `[${name}]` : name
  return `coap://${host}${port === 5683 ? '' : `:${port}`}`
}

/** PEM texts of files. @throws `runtime/cannot-read` */
export function readPems(files: readonly string[], what: string): string[] {
  return files.map((file) => {
    try {
      return readFileSync(file, 'latin1')
    } catch (cause) {
      throw new IotchainError('runtime/cannot-read', `the ${what} ${file} cannot be read`, {
        cause,
        hint: 'check the path, and its owner and mode',
      })
    }
  })
}
