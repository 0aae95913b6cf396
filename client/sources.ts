/**
 * Where a client gets broadcasts and credentials: the key server in the open, the proxy or the device that it reads from
 * anyway, a neighbour, a file. All are equally good, because what they give is signed.
 */
import { readFile } from 'node:fs/promises'
import { IotchainError } from '../protocol/errors.ts'
import { type Gid, gname } from '../protocol/groups/gid.ts'
import { decodeCreds } from '../protocol/messages/group-info.ts'
import type { CoapClient } from '../transport/coap/client.ts'
import { Code } from '../transport/coap/codes.ts'
import { responseError } from './errors.ts'
import type { GroupSource } from './group.ts'

/** How long a source may take: the next one is asked then. */
const PATIENCE_MS = 10_000

/**
 * A CoAP server that offers `/bc/…`: key server, proxy, device.
 * @param connect called when it is first needed
 */
export function coapSource(name: string, connect: () => Promise<CoapClient>): GroupSource {
  const get = async (
    path: readonly string[],
    query: readonly string[],
    what: string,
  ): Promise<Uint8Array | undefined> => {
    const response = await (await connect()).get(path, { query, timeoutMs: PATIENCE_MS })
    if (response.code === Code.notFound) return undefined
    if (!response.ok) throw responseError(response, `${what} of ${name}`)
    return response.payload
  }
  return {
    name,
    broadcast: (gid) => get(['bc', gname(gid)], [], 'broadcast'),
    archived: (gid, session) => get(['bc', gname(gid), String(session)], [], 'broadcast'),
    credentials: async (gid, at) => {
      const payload = await get(['ace-group', gname(gid), 'creds'], at === undefined ? [] : [`at=${at}`], 'credentials')
      return payload === undefined ? [] : decodeCreds(payload).creds
    },
  }
}

/** The device itself: its own credential at `/id`, and broadcasts if it offers them. */
export function deviceSource(name: string, connect: () => Promise<CoapClient>): GroupSource {
  const { broadcast } = coapSource(name, connect)
  return {
    name,
    broadcast,
    credentials: async () => {
      const response = await (await connect()).get('/id', { timeoutMs: PATIENCE_MS })
      return response.ok ? [response.payload] : []
    },
  }
}

/** A file with one broadcast, passed on by whatever means. */
export function fileSource(path: string): GroupSource {
  return {
    name: path,
    broadcast: async (_gid: Gid) => {
      try {
        return new Uint8Array(await readFile(path))
      } catch (cause) {
        throw new IotchainError('client/no-file', `${path} cannot be read`, { hint: 'check the path', cause })
      }
    },
  }
}
