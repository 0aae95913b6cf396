/** The engine alone, on every address: the resources of the interop suite, and /obs that changes each second. */
import { Code } from '../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { type CoapReply, Router } from '../../transport/coap/server.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { LARGE_OCTETS, pattern } from '../peers/protocol.ts'

let store: Uint8Array = new Uint8Array(0)
let count = 0
const put = ({ payload }: { payload: Uint8Array }): CoapReply => {
  store = Uint8Array.from(payload)
  return { code: Code.changed }
}
const router = new Router()
  .add({
    pattern: '/reading',
    observable: true,
    get: () => ({ code: Code.content, payload: pattern(175, count & 255), contentFormat: 18 }),
  })
  .add({ pattern: '/large', get: () => ({ code: Code.content, payload: pattern(LARGE_OCTETS, 1), contentFormat: 42 }) })
  .add({ pattern: '/store', get: () => ({ code: Code.content, payload: store }), put, post: put })
const endpoint = new CoapEndpoint(await bindUdp({ host: '0.0.0.0', port: 0 }), { router })
setInterval(() => {
  count++
  endpoint.notify('/reading')
}, 1000)
process.stdout.write(`ready ${endpoint.address.port}\n`)
process.stdin.on('end', () => process.exit(0)).resume()
