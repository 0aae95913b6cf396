import { expect, test } from 'vitest'
import { BroadcastMulticast } from '../../keyserver/multicast.ts'
import { toHex } from '../../protocol/bytes.ts'
import { silentLogger } from '../../runtime/log.ts'
import { Code } from '../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { Router } from '../../transport/coap/router.ts'
import { bindUdp } from '../../transport/coap/udp.ts'

test('a broadcast goes out as one POST that nobody answers; one that is too long does not', async () => {
  const heard: { path: string; body: string; confirmable: boolean }[] = []
  const router = new Router().add({
    pattern: '/bc/:gname',
    post(request) {
      heard.push({ path: request.pathText, body: toHex(request.payload), confirmable: request.confirmable })
      return { code: Code.changed }
    },
  })
  const transport = await bindUdp({ host: '127.0.0.1' })
  const member = new CoapEndpoint(transport, { router })
  const group = { host: '127.0.0.1', port: transport.address.port }
  const multicast = new BroadcastMulticast(group, 'lo', silentLogger)
  multicast.send('0011223344556677', new Uint8Array(1025))
  multicast.send('0011223344556677', Uint8Array.of(1, 2, 3))
  for (let i = 0; i < 100 && heard.length === 0; i++) await new Promise((resolve) => setTimeout(resolve, 10))
  await multicast.close()
  await member.close()
  expect(heard).toEqual([{ path: '/bc/0011223344556677', body: '010203', confirmable: false }])
})
