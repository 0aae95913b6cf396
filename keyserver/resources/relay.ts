/** /relay: a puzzle, and a signed token request that the operator pays for. */
import { decodeRelayRequest, encodeRelayReply, encodeRelayTask } from '../../protocol/messages/relay.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import type { Resource } from '../../transport/coap/server.ts'
import type { Relay } from '../relay.ts'
import { decoded, secureOf } from './common.ts'

export function relayResource(relay: Relay): Resource {
  return {
    pattern: '/relay',
    attributes: { rt: 'iotchain.relay', ct: ContentFormat.cbor },
    bodyOctets: 16_384,
    get(request) {
      secureOf(request)
      const payload = encodeRelayTask(relay.task(request.peer.key))
      return { code: Code.content, contentFormat: ContentFormat.cbor, payload, maxAge: 0 }
    },
    async post(request) {
      secureOf(request)
      const message = decoded(() => decodeRelayRequest(request.payload))
      const { hash, repeated } = await relay.request(request.peer.key, message)
      const code = repeated ? Code.changed : Code.created
      return { code, contentFormat: ContentFormat.cbor, payload: encodeRelayReply(hash), maxAge: 0 }
    },
  }
}
