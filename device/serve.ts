/** The device's CoAP resources (protocol.md "Device"): sealed readings for everybody, readable for members alone. */
import { suite } from '#crypto'
import { equalBytes, utf8 } from '../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import { PACK_SEGMENT } from '../protocol/objects/aad.ts'
import { etagOf } from '../protocol/objects/etag.ts'
import type { Logger } from '../runtime/log.ts'
import { Code } from '../transport/coap/codes.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { encodeLinks } from '../transport/coap/link-format.ts'
import { problemReply } from '../transport/coap/problem-details.ts'
import { type CoapReply, type CoapRequest, type Resource, Router } from '../transport/coap/server.ts'
import type { Credentials } from './credentials.ts'
import type { Description } from './drivers/driver.ts'
import type { GroupSession } from './group-session.ts'
import type { Packs } from './packs.ts'
import { type SealedObject, segmentsOf } from './sealed-object.ts'
import type { SealedStore } from './sealed-store.ts'

export interface ServedResource {
  readonly path: string
  readonly group: GroupSession
  readonly description: Description
  /** Seconds between two readings. */
  readonly periodSeconds: number
  /** POST and PUT of an actuator. */
  readonly command?: ((request: CoapRequest) => Promise<CoapReply>) | undefined
}

export interface ServeOptions {
  readonly groups: ReadonlyMap<string, GroupSession>
  readonly objects: SealedStore
  readonly packs: Packs
  readonly credentials: Credentials
  readonly log: Logger
}

const BROADCAST_OCTETS = 64 * 1024
const ERROR_CODES = {
  'device/command-unsigned': Code.unauthorized,
  'device/command-forbidden': Code.forbidden,
  'device/command-replayed': Code.conflict,
  'device/clock': Code.serviceUnavailable,
  'sensor/*': Code.serviceUnavailable,
}

export function createRouter(options: ServeOptions): Router {
  return new Router({ errorCodes: ERROR_CODES })
    .add(identityResource(options.credentials))
    .add(broadcastResource(options))
}

/** `/s/name` and `/a/name`: the newest object; as Sign1 (18) or, on request, as Mac0 (17). */
export function readingResource(resource: ServedResource, options: Pick<ServeOptions, 'objects' | 'packs'>): Resource {
  const { path, group, description, periodSeconds, command } = resource
  const { rt, if: kind, title } = description
  const macs = new WeakMap<SealedObject, Uint8Array>()

  function get(request: CoapRequest): CoapReply {
    const range = historyRange(request.query)
    if (range !== undefined) return history(range.from, range.to)
    const object = options.objects.latest(path)
    if (object === undefined)
      return unavailable('there is no reading yet: the device waits for a session key or its sensor')
    if (request.accept === undefined || request.accept === ContentFormat.coseSign1) {
      return content(object.signed, ContentFormat.coseSign1)
    }
    if (request.accept !== ContentFormat.coseMac0)
      return problemReply(Code.notAcceptable, { detail: 'offered are content-formats 18 and 17' })
    let mac = macs.get(object)
    if (mac === undefined) {
      mac = macOf(object, group)
      if (mac === undefined) return unavailable('the session of the last reading is over: ask for content-format 18')
      macs.set(object, mac)
    }
    return content(mac, ContentFormat.coseMac0)
  }

  function history(from: number, to: number): CoapReply {
    const links = options.packs.list(path, from, to).map((entry) => ({
      href: `${path}/${PACK_SEGMENT}/${entry.seq}`,
      attributes: { ct: ContentFormat.coseSign1, sz: entry.octets, iat: entry.iat },
    }))
    return { code: Code.content, payload: utf8(encodeLinks(links)), contentFormat: ContentFormat.linkFormat, maxAge: 5 }
  }

  function content(payload: Uint8Array, contentFormat: number): CoapReply {
    return { code: Code.content, payload, contentFormat, etag: etagOf(suite, payload), maxAge: periodSeconds }
  }

  return {
    pattern: path,
    get,
    ...(command === undefined ? {} : { post: command, put: command, handlesPreconditions: true, bodyOctets: 4096 }),
    observable: true,
    attributes: {
      rt,
      if: kind,
      ct: [ContentFormat.coseSign1, ContentFormat.coseMac0],
      gid: group.gname,
      ...(title === undefined ? {} : { title }),
    },
  }
}

/** `…/@pack/{seq}`: immutable. */
export function packResource(path: string, packs: Packs): Resource {
  return {
    pattern: `${path}/${PACK_SEGMENT}/:seq`,
    async get(request) {
      const seq = /^\d{1,13}$/.test(request.params['seq'] ?? '') ? Number(request.params['seq']) : -1
      const bytes = await packs.get(path, seq)
      if (bytes === undefined) return problemReply(Code.notFound, { detail: 'there is no such pack here' })
      return {
        code: Code.content,
        payload: bytes,
        contentFormat: ContentFormat.coseSign1,
        etag: etagOf(suite, bytes),
        maxAge: 86_400,
      }
    },
  }
}

/** `?from=&to=`, unix seconds; undefined without either. */
function historyRange(query: readonly string[]): { from: number; to: number } | undefined {
  if (query.length === 0) return undefined
  let [from, to] = [0, Number.MAX_SAFE_INTEGER]
  for (const item of query) {
    const match = /^(from|to)=(\d{1,11})$/.exec(item)
    if (match === null) throw new IotchainError('coap/bad-request', 'the query is from= and to= in unix seconds')
    if (match[1] === 'from') from = Number(match[2])
    else to = Number(match[2])
  }
  return { from, to }
}

/** The same ciphertext under the integrity key; only while the device still holds the session under its Sender ID. */
function macOf(object: SealedObject, group: GroupSession): Uint8Array | undefined {
  const sealer = group.sealer(object.session, segmentsOf(object.path))
  return sealer !== undefined && equalBytes(sealer.scope.sid, object.sid) ? sealer.mac(object.encrypt0) : undefined
}

function identityResource(credentials: Credentials): Resource {
  return {
    pattern: '/id',
    get() {
      const own = credentials.own
      if (own === undefined) return unavailable('the key server has not issued a credential yet')
      return {
        code: Code.content,
        payload: own.bytes,
        contentFormat: ContentFormat.cwt,
        etag: etagOf(suite, own.bytes),
        maxAge: 3600,
      }
    },
    attributes: { rt: 'iotchain.credential', ct: ContentFormat.cwt },
  }
}

/** Broadcasts are public and signed: the device passes its newest on, and takes one from whoever brings it. */
function broadcastResource({ groups, log }: ServeOptions): Resource {
  const find = (request: CoapRequest): GroupSession | undefined => groups.get(request.params['gid'] ?? '')
  return {
    pattern: '/bc/:gid',
    get(request) {
      const broadcast = find(request)?.broadcast
      if (broadcast === undefined)
        return problemReply(Code.notFound, { detail: 'no broadcast of this group is held here' })
      return {
        code: Code.content,
        payload: broadcast,
        contentFormat: ContentFormat.coseSign1,
        etag: etagOf(suite, broadcast),
        maxAge: 60,
      }
    },
    async post(request) {
      const group = find(request)
      if (group === undefined) return problemReply(Code.notFound, { detail: 'this device is not in that group' })
      try {
        await group.receive(request.payload, request.peer.address, false)
      } catch (error) {
        log.limited(
          `broadcast ${request.peer.address}`,
          'info',
          { from: request.peer.address, err: error },
          'a neighbour brought no good broadcast',
        )
        if (isIotchainError(error) && error.code === 'device/false-broadcasts') {
          return problemReply(Code.tooManyRequests, { title: error.code, detail: error.message })
        }
        return problemReply(Code.badRequest, { detail: 'not a broadcast of the key server for this group' })
      }
      return { code: Code.changed }
    },
    bodyOctets: BROADCAST_OCTETS,
    multicast: true,
  }
}

function unavailable(detail: string): CoapReply {
  return problemReply(Code.serviceUnavailable, { title: 'device/no-reading', detail }, 5)
}
