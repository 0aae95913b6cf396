/** The CoAP side: paths, methods and codes of the proxy (protocol.md §5). */
import { fromUtf8 } from '../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { BATCH_ITEMS, decodeBatch, encodeBatchReply } from '../protocol/messages/batch.ts'
import { Code } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { coapCodeOf } from '../transport/coap/error-codes.ts'
import { formatReply } from '../transport/coap/problem-details.ts'
import { ready } from '../transport/coap/reply.ts'
import { Router } from '../transport/coap/router.ts'
import type { CoapReply, CoapRequest, Handler } from '../transport/coap/server.ts'
import { formatCoapUri } from '../transport/coap/uri.ts'
import type { Admission } from './admission.ts'
import type { ResourceDirectory } from './directory.ts'
import type { Representation } from './http.ts'
import type { Readable } from './readable.ts'
import { parseTarget } from './target.ts'

export interface RoutesOptions {
  readonly admission: Admission
  readonly readable: Readable
  readonly directory: ResourceDirectory | undefined
  readonly maxObjectOctets: number
  /** Takes requests that name another server; without it they get 5.05. */
  readonly forward?: Handler | undefined
}

/** Error code → CoAP code, beside the engine's own table. */
export const ERROR_CODES: Readonly<Record<string, number>> = {
  'object/malformed': Code.badRequest,
  'object/too-large': Code.requestEntityTooLarge,
  'object/future': Code.serviceUnavailable,
  'object/swapped': Code.unauthorized,
  'object/unknown-signer': Code.unauthorized,
  'object/unknown-sid': Code.unauthorized,
  'object/wrong-device': Code.unauthorized,
  'object/re-signed': Code.unauthorized,
  'object/not-covered': Code.unauthorized,
  'proxy/bad-path': Code.badRequest,
  'proxy/bad-query': Code.badRequest,
  'proxy/bad-registration': Code.badRequest,
  'proxy/clock': Code.serviceUnavailable,
  'proxy/unknown-group': Code.forbidden,
  'proxy/unknown-device': Code.forbidden,
  'proxy/order': Code.conflict,
  'proxy/too-old': Code.conflict,
  'proxy/too-large': Code.requestEntityTooLarge,
  'proxy/quota': Code.tooManyRequests,
  'proxy/rate': Code.tooManyRequests,
  'proxy/key-server': Code.serviceUnavailable,
}

const BATCH_OCTETS = 60_000
const REGISTRATION_OCTETS = 8192

export function createRouter(options: RoutesOptions): Router {
  const { readable, directory, maxObjectOctets } = options
  const router = new Router({ errorCodes: ERROR_CODES, forward: options.forward })
  const get = (request: CoapRequest): CoapReply | Promise<CoapReply> => {
    const found = readable.read(request.path, request.query)
    return found instanceof Promise ? found.then(content) : content(found)
  }
  router
    .add({ pattern: '/d/:device', get })
    .add({
      pattern: '/d/:device/@batch',
      post: (request) => takeBatch(options, request),
      bodyOctets: BATCH_OCTETS,
      before: (request) => expectFormat(request, ContentFormat.cbor),
    })
    .add({
      pattern: '/d/:device/*path',
      get,
      put: (request) => takeObject(options, request),
      bodyOctets: maxObjectOctets,
      observable: true,
      links: () => readable.links(),
    })
    .add({
      pattern: '/bc/:gid',
      // a neighbour asks everybody: what is held is passed on, nobody is asked for it (RFC 7252 §8.2.1)
      get: (request) => (request.multicast ? content(readable.heldBroadcast(request.path)) : get(request)),
      observable: true,
      multicast: true,
    })
    .add({ pattern: '/bc/:gid/:session', get })
    .add({ pattern: '/ace-group/:gid/creds', get })
  if (directory !== undefined) addDirectory(router, directory)
  return router
}

function content(found: Representation | undefined): CoapReply {
  if (found === undefined) return { code: Code.notFound }
  const { bytes: payload, contentFormat, etag, maxAge } = found
  const reply = { code: Code.content, payload, contentFormat, etag, maxAge }
  // The newest is the same for everybody until the next one comes, which `notify` tells. Not so the past: a tombstone
  // takes it away silently.
  return contentFormat === ContentFormat.coseSign1 && found.immutable !== true ? ready(reply) : reply
}

/** 17 and bare 16 are refused like everything else that is not 18: readers could not tell who made them. */
function expectFormat(request: CoapRequest, format: number): CoapReply | undefined {
  return request.contentFormat === format ? undefined : formatReply(format)
}

async function takeObject(options: RoutesOptions, request: CoapRequest): Promise<CoapReply> {
  const unsupported = expectFormat(request, ContentFormat.coseSign1)
  if (unsupported !== undefined) return unsupported
  const target = parseTarget(request.path.slice(1))
  const backlog = request.query.includes('backlog')
  if (request.query.some((q) => q !== 'backlog')) {
    throw new IotchainError('proxy/bad-query', 'a PUT takes no query but ?backlog')
  }
  const admitted = await options.admission.put(target, request.payload, backlog)
  return { code: admitted === 'created' ? Code.created : Code.changed }
}

/** Each item stands for itself; the reply says what became of it. */
async function takeBatch(options: RoutesOptions, request: CoapRequest): Promise<CoapReply> {
  const device = request.params['device'] as string
  const codes: number[] = []
  for (const item of decodeBatch(request.payload).slice(0, BATCH_ITEMS)) {
    try {
      const target = parseTarget([device, ...item.path])
      const admitted = await options.admission.put(target, item.object, true)
      codes.push(admitted === 'created' ? Code.created : Code.changed)
    } catch (error) {
      if (!isIotchainError(error)) throw error
      codes.push(coapCodeOf(error, ERROR_CODES))
    }
  }
  return { code: Code.changed, payload: encodeBatchReply(codes), contentFormat: ContentFormat.cbor }
}

function addDirectory(router: Router, directory: ResourceDirectory): void {
  const lookup =
    (find: (query: readonly string[]) => string) =>
    (request: CoapRequest): CoapReply => ({
      code: Code.content,
      payload: new TextEncoder().encode(find(request.query)),
      contentFormat: ContentFormat.linkFormat,
    })
  router
    .add({
      pattern: '/rd',
      bodyOctets: REGISTRATION_OCTETS,
      before: (request) => expectFormat(request, ContentFormat.linkFormat),
      post: (request) => {
        const { id } = directory.register(request.query, fromUtf8(request.payload), sourceOf(request))
        router.notify('/rd-lookup/ep')
        router.notify('/rd-lookup/res')
        return { code: Code.created, locationPath: ['rd', id] }
      },
      attributes: { rt: 'core.rd', ct: ContentFormat.linkFormat },
    })
    .add({
      pattern: '/rd/:id',
      post: (request) => {
        const updated = directory.update(request.params['id'] as string, request.query, sourceOf(request))
        return { code: updated === undefined ? Code.notFound : Code.changed }
      },
      delete: (request) => ({
        code: directory.remove(request.params['id'] as string) ? Code.deleted : Code.notFound,
      }),
    })
    .add({
      pattern: '/rd-lookup/ep',
      get: lookup((query) => directory.endpoints(query)),
      observable: true,
      attributes: { rt: 'core.rd-lookup-ep', ct: ContentFormat.linkFormat },
    })
    .add({
      pattern: '/rd-lookup/res',
      get: lookup((query) => directory.resources(query)),
      observable: true,
      attributes: { rt: 'core.rd-lookup-res', ct: ContentFormat.linkFormat },
    })
}

function sourceOf(request: CoapRequest): string {
  const { address, port } = request.peer
  return formatCoapUri({ scheme: 'coap', host: address.replace(/^::ffff:(?=\d+\.)/, ''), port }).replace(/\/$/, '')
}
