import { expect, onTestFinished, test } from 'vitest'
import { type Gid, gname } from '../../protocol/groups/gid.ts'
import { BroadcastMirror } from '../../proxy/broadcasts.ts'
import { type KeyServer, KeyServers } from '../../proxy/key-servers.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { Code } from '../../transport/coap/codes.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { Router } from '../../transport/coap/router.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { dial } from '../../transport/dial.ts'
import { TestClock, TestDevice, type TestGroup, TestKeyServer } from '../client/sealed-world.ts'

async function serve(group: TestGroup, refusing: () => boolean = () => false) {
  const router = new Router().add({
    pattern: '/bc/:gid',
    observable: true,
    get: () => (refusing() ? { code: Code.notFound } : { code: Code.content, payload: group.newest(), maxAge: 1 }),
  })
  const endpoint = new CoapEndpoint(await bindUdp({ host: '127.0.0.1', port: 0 }), { router })
  onTestFinished(() => endpoint.close())
  return {
    endpoint,
    uri: `coap://127.0.0.1:${endpoint.address.port}`,
    tell: () => router.notify(`/bc/${gname(group.gid)}`),
  }
}

function world(isWatched = false) {
  const clock = new TestClock()
  const keyServer = new TestKeyServer(clock)
  const group = keyServer.group(new TestDevice(7))
  const at = { uri: '' }
  let client: Promise<CoapClient> | undefined
  const standIn: KeyServer = {
    name: 'coaps://stand-in',
    kdcCred: async () => keyServer.kdcCred,
    credentials: async (_gid: Gid) => [group.credential()],
    plain: () => {
      client ??= dial(at.uri)
      return client
    },
    close: async () => {
      await (await client)?.close()
    },
  }
  const store = openMemoryStore()
  const log = silentLogger
  const keyServers = new KeyServers({ servers: [standIn], store, clock, log, unknownPerMinute: 10 })
  const changed: number[] = []
  const mirror: BroadcastMirror = new BroadcastMirror({
    keyServers,
    store,
    clock,
    log,
    maxGroups: 10,
    archive: 10,
    onChange: (gid) => changed.push(mirror.held(gid)?.session ?? 0),
    isWatched: () => isWatched,
  })
  onTestFinished(async () => {
    mirror.stop()
    await standIn.close()
  })
  return { clock, group, at, mirror, changed }
}

test('an observation that the key server ended is begun again at the next upkeep', async () => {
  const { group, at, mirror, changed } = world()
  let refusing = false
  const server = await serve(group, () => refusing)
  at.uri = server.uri
  await mirror.newest(group.gid)
  refusing = true
  server.tell()
  await new Promise((resolve) => setTimeout(resolve, 300))
  refusing = false
  group.advance()
  mirror.maintain()
  await expect.poll(() => changed.at(-1), { timeout: 5000 }).toBe(group.session)
})

test('a group whose event stream is read is not let go of, others are', async () => {
  for (const isWatched of [true, false]) {
    const { clock, group, at, mirror } = world(isWatched)
    at.uri = (await serve(group)).uri
    await mirror.newest(group.gid)
    clock.seconds += 7200
    mirror.maintain()
    expect(mirror.groupCount).toBe(isWatched ? 1 : 0)
  }
})
