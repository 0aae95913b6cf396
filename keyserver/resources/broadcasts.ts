/** /bc/{gid}: the newest broadcast, to be observed by anybody; /bc/{gid}/{j}: the archive. Public, because signed. */
import { u32 } from '../../protocol/bytes.ts'
import type { Clock } from '../../protocol/clock.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import type { CoapReply, Resource } from '../../transport/coap/server.ts'
import { refusal } from '../refusals.ts'
import type { Roster } from '../roster.ts'
import type { Storage } from '../storage.ts'
import { groupOf } from './common.ts'

/** Caches may keep an archived broadcast for so long: it never changes. */
const ARCHIVE_MAX_AGE = 30 * 86_400
/** Groups in `/.well-known/core`: beyond, one has to know the group's name (anybody can compute it). */
const LISTED = 256

export function broadcasts(roster: Roster, storage: Storage, clock: Clock): Resource[] {
  return [
    {
      pattern: '/bc/:gname',
      observable: true,
      get(request): CoapReply {
        const { newest } = groupOf(roster, request)
        if (newest === undefined) throw refusal('keyserver/no-group', 'this group has no session yet')
        const left = Math.floor(newest.exp - clock.nowMs() / 1000)
        return {
          code: Code.content,
          contentFormat: ContentFormat.coseSign1,
          payload: newest.bytes,
          etag: u32(newest.session),
          maxAge: Math.max(0, Math.min(60, left)),
        }
      },
      links: () =>
        [...roster.groups.values()].slice(0, LISTED).map((group) => ({
          href: `/bc/${group.name}`,
          attributes: { rt: 'iotchain.bc', ct: ContentFormat.coseSign1, obs: true },
        })),
    },
    {
      pattern: '/bc/:gname/:session',
      async get(request): Promise<CoapReply> {
        const group = groupOf(roster, request)
        const text = request.params['session'] ?? ''
        const session = /^[1-9]\d{0,9}$/.test(text) ? Number(text) : 0
        const known = session > 0 && session <= (group.newest?.session ?? 0)
        const bytes = known ? await storage.broadcast(group.name, session) : undefined
        if (bytes === undefined) throw refusal('keyserver/no-group', 'this session is not in the archive')
        return {
          code: Code.content,
          contentFormat: ContentFormat.coseSign1,
          payload: bytes,
          etag: u32(session),
          maxAge: ARCHIVE_MAX_AGE,
        }
      },
    },
  ]
}
