/** `/.well-known/core` (RFC 6690 §4): what is here, and with filters. */
import { utf8 } from '../../protocol/bytes.ts'
import { Code } from './codes.ts'
import { ContentFormat } from './content-format.ts'
import { encodeLinks, filterLinks } from './link-format.ts'
import type { Router } from './router.ts'
import type { Resource } from './server.ts'

export const WELL_KNOWN_CORE = '/.well-known/core'

export function wellKnownCore(router: Router): Resource {
  return {
    pattern: WELL_KNOWN_CORE,
    multicast: true,
    get: (request) => {
      const links = filterLinks(router.links(), request.query)
      return { code: Code.content, contentFormat: ContentFormat.linkFormat, payload: utf8(encodeLinks(links)) }
    },
  }
}
