/** One certification authority and certificates of every kind, made once per test file. */
import type { KeyObject } from 'node:crypto'
import type { Address } from '../../../protocol/messages/address.ts'
import {
  type Authority,
  createCa,
  type Issued,
  issueDeviceCertificate,
  issueServerCertificate,
} from '../../../runtime/pki/authority.ts'
import { generateKeyPair, privateKeyPem } from '../../../runtime/pki/keys.ts'
import { createCsr } from '../../../runtime/pki/request.ts'
import { listen } from '../../../transport/dtls/endpoint.ts'
import type { DtlsAssociation, DtlsEndpoint, ListenOptions } from '../../../transport/dtls/types.ts'

export const ADDRESS: Address = '0x00112233445566778899aabbccddeeff00112233'

export interface Identity {
  readonly cert: string
  readonly key: string
  readonly privateKey: KeyObject
  readonly issued: Issued
}

export interface World {
  readonly root: Authority
  readonly issuing: Authority
  readonly ca: string
  readonly server: Identity
  readonly device: Identity
  makeDevice(options?: { days?: number; nowMs?: number; address?: Address }): Promise<Identity>
  makeServer(options?: { names?: string[]; days?: number; nowMs?: number; authority?: Authority }): Promise<Identity>
}

export async function createWorld(): Promise<World> {
  const { root, issuing } = await createCa()
  const makeDevice: World['makeDevice'] = async (options = {}) => {
    const { privateKey } = generateKeyPair()
    const csr = await createCsr({ address: options.address ?? ADDRESS, privateKey })
    const issued = await issueDeviceCertificate(issuing, csr.der, options)
    return { cert: issued.chain, key: privateKeyPem(privateKey), privateKey, issued }
  }
  const makeServer: World['makeServer'] = async (options = {}) => {
    const { privateKey, publicKey } = generateKeyPair()
    const issued = await issueServerCertificate(options.authority ?? root, {
      publicKey,
      names: options.names ?? ['localhost', '127.0.0.1', '::1'],
      days: options.days,
      nowMs: options.nowMs,
    })
    return { cert: issued.chain, key: privateKeyPem(privateKey), privateKey, issued }
  }
  const ca = root.certificate
  return { root, issuing, ca, server: await makeServer(), device: await makeDevice(), makeDevice, makeServer }
}

export interface Server {
  readonly endpoint: DtlsEndpoint
  readonly port: number
  /** Every association that opened, in order. */
  readonly associations: DtlsAssociation[]
  /** Messages of what was refused, in order. */
  readonly refusals: string[]
  /** The next association that opens. */
  next(): Promise<DtlsAssociation>
}

/** A server on a free port of the loopback that answers each datagram by itself, backwards. */
export async function startServer(options: Partial<ListenOptions>): Promise<Server> {
  const associations: DtlsAssociation[] = []
  const refusals: string[] = []
  const waiting: ((association: DtlsAssociation) => void)[] = []
  const endpoint = listen(
    (association) => {
      association.onmessage = (datagram) => association.send(Buffer.from(datagram).reverse())
      associations.push(association)
      waiting.shift()?.(association)
    },
    { port: 0, host: '127.0.0.1', onRefused: (error) => refusals.push(error.message), ...options },
  )
  const { port } = await endpoint.listening
  return {
    endpoint,
    port,
    associations,
    refusals,
    next: () => new Promise((resolve) => waiting.push(resolve)),
  }
}

/** The answer to one datagram. */
export function ask(association: DtlsAssociation, text: string): Promise<string> {
  return new Promise((resolve) => {
    association.onmessage = (datagram) => resolve(datagram.toString())
    association.send(Buffer.from(text))
  })
}
