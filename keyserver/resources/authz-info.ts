/** POST /authz-info: a client that has a token gets a challenge (protocol.md "Challenge"). */
import { addressHex } from '../../protocol/messages/address.ts'
import { decodeAuthzRequest, encodeChallenge } from '../../protocol/messages/authz.ts'
import { claimsWord } from '../../protocol/messages/claims.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import type { CoapReply, Resource } from '../../transport/coap/server.ts'
import type { Entitlements } from '../entitlements.ts'
import { CHALLENGE_SECONDS, type Logins } from '../logins.ts'
import { refusal } from '../refusals.ts'
import { decoded, expectFormat, secureOf } from './common.ts'

export function authzInfo(entitlements: Entitlements, logins: Logins): Resource {
  return {
    pattern: '/authz-info',
    attributes: { rt: 'ace.ai', ct: ContentFormat.aceGroupcommCbor },
    bodyOctets: 256,
    async post(request): Promise<CoapReply> {
      secureOf(request)
      const other = expectFormat(request, ContentFormat.aceGroupcommCbor, ContentFormat.cbor)
      if (other !== undefined) return other
      const { client, device, claims } = decoded(() => decodeAuthzRequest(request.payload))
      const bits = claimsWord(claims)
      if (bits === 0) throw refusal('keyserver/bad-request', 'claims name no right')
      await entitlements.checkToken(addressHex(device), addressHex(client), bits)
      const challenge = { kdcchallenge: logins.challenge(request.peer.key), exi: CHALLENGE_SECONDS }
      return {
        code: Code.created,
        contentFormat: ContentFormat.aceGroupcommCbor,
        payload: encodeChallenge(challenge),
        maxAge: 0,
      }
    },
  }
}
