import { describe, expect, onTestFinished, test } from 'vitest'
import { IotClient } from '../../client/client.ts'
import { fetchHistory, type ObjectPlace } from '../../client/fetch.ts'
import type { Reading } from '../../client/open.ts'
import { ClientState } from '../../client/state.ts'
import { coseKeyEd25519 } from '../../protocol/cose/key.ts'
import { clientMemberId, gname } from '../../protocol/groups/gid.ts'
import { encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import type { JoinResponse } from '../../protocol/messages/join.ts'
import { proxySchema } from '../../proxy/config.ts'
import { ObjectProxy } from '../../proxy/proxy.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { parsePath } from '../../transport/coap/uri.ts'
import { dial } from '../../transport/dial.ts'
import { fastClock, makeRig, type Rig, SIMULATED } from '../device/device-rig.ts'
import { CHAIN } from '../device/key-server-double.ts'

/** The real device, the real proxy and the real client; the key server is the device tests' double. */
const BIT = 1
const now = (): number => Math.floor(fastClock.nowMs() / 1000)

async function startProxy(rig: Rig, port = 0): Promise<ObjectProxy> {
  // A key server's credential stays the same for a day; the double would make a new one each time.
  let credential: Uint8Array | undefined
  const plain = () => dial(`coap://127.0.0.1:${rig.keyServer.port}`)
  const config = proxySchema.parse({
    keyservers: [{ uri: 'coaps://double', ca: 'x' }],
    coap: { host: '127.0.0.1', port },
    accept: { maxSkew: '5m' },
  })
  const proxy = await ObjectProxy.load(config, {
    log: silentLogger,
    clock: fastClock,
    store: openMemoryStore(),
    keyServers: [
      {
        name: 'coaps://double',
        kdcCred: async () => coseKeyEd25519(rig.keyServer.kdc.publicKey),
        credentials: async () => {
          credential ??= rig.keyServer.credential()
          return [credential]
        },
        plain,
        close: async () => undefined,
      },
    ],
  })
  await proxy.start()
  return proxy
}

function joinOf(rig: Rig, client: Address): JoinResponse {
  const { gid, manager } = rig.keyServer.group(BIT)
  const result = manager.join(clientMemberId(addressBytes(client)), { mode: 'current', now: now() })
  if (manager.changes() !== undefined) manager.committed()
  return {
    keys: result.keys.map((k) => ({ session: k.session, key: k.K })),
    num: manager.session,
    exp: now() + 3600,
    exi: 3600,
    serverTime: now(),
    creds: [rig.keyServer.credential()],
    peerIdentifiers: [],
    policies: {
      sessionSeconds: 3600,
      graceSeconds: 60,
      aead: 24,
      window: 96,
      epochSeconds: 86_400,
      maxAgeSeconds: 3600,
      confirmations: 3,
    },
    kdcCred: coseKeyEd25519(rig.keyServer.kdc.publicKey),
    controlUri: 'x',
    personalKey: encodePersonalKey(result.personal),
    controlGroupUri: `coap://127.0.0.1:${rig.keyServer.port}/bc/${gname(gid)}`,
  }
}

async function memberOf(rig: Rig, address: Address): Promise<IotClient> {
  const chain = { chainId: CHAIN.id, registry: CHAIN.registry }
  const client = new IotClient({ chain, clock: fastClock, state: new ClientState(openMemoryStore()) })
  onTestFinished(() => client.close())
  await client.joinOn({ join: async () => joinOf(rig, address) } as never, {
    signer: { address, signStruct: async () => new Uint8Array(65) },
    keyServer: { uri: 'coaps://x', spki: new Uint8Array(32) },
    device: rig.address,
    bit: BIT,
  })
  return client
}

async function placeAt(client: IotClient, rig: Rig, port: number): Promise<ObjectPlace> {
  const connection = await client.connections.to(`coap://127.0.0.1:${port}`)
  return { connection, via: 'proxy', device: rig.address, path: ['s', 'demo'] }
}

describe('device, proxy, client', () => {
  test('readings arrive, packs of past sessions are listed and open for those who were entitled', async () => {
    const rig = await makeRig({ resources: [{ ...SIMULATED, every: '400ms' }] })
    const proxy = await startProxy(rig)
    onTestFinished(() => proxy.stop())
    rig.keyServer.publish(BIT)
    const early = `0x${'0e'.repeat(20)}` as Address
    await rig.restart({ device: { listen: 'coap://127.0.0.1:0', proxy: `coap://127.0.0.1:${proxy.coapPort}` } })
    await expect.poll(() => rig.keyServer.joins, { timeout: 15_000 }).toBeGreaterThan(0)
    const client = await memberOf(rig, early)
    rig.keyServer.publish(BIT)
    const place = await placeAt(client, rig, proxy.coapPort)
    const tryRead = (): Promise<Reading | string> => client.read(place).catch((e) => e.code as string)
    await expect.poll(async () => typeof (await tryRead()), { timeout: 15_000 }).toBe('object')
    await expect.poll(async () => (await client.read(place)).repeated, { timeout: 5000, interval: 20 }).toBe(false)
    // Two more sessions, and a member who joins in the last but one.
    rig.keyServer.publish(BIT)
    const joined = rig.keyServer.group(BIT).manager.session
    const newcomer = await memberOf(rig, `0x${'0f'.repeat(20)}`)
    await expect.poll(async () => (await client.read(place)).header.session, { timeout: 10_000 }).toBe(joined)
    rig.keyServer.publish(BIT)
    await expect.poll(async () => (await client.read(place)).header.session, { timeout: 10_000 }).toBe(joined + 1)
    const outcomes = async (): Promise<string[]> => {
      const links = await fetchHistory(place, 0, now() + 100)
      const packs = links.map((l) => parsePath(l.href).path).filter((path) => path.at(-2) === '@pack')
      return Promise.all(packs.map((path) => outcomeOf(path)))
    }
    const outcomeOf = async (path: readonly string[]): Promise<string> => {
      const { payload } = await place.connection.get(path)
      const asked = {
        device: rig.address,
        path: place.path,
        form: 'signed' as const,
        kind: 'pack' as const,
        seq: Number(path.at(-1)),
      }
      const pack = await client.openPast(payload, asked)
      expect(pack.records.length).toBeGreaterThan(0)
      const late = await newcomer.openPast(payload, asked).then(
        () => 'open',
        (e) => e.code as string,
      )
      return `${pack.header.session < joined ? 'before' : 'since'}: ${late}`
    }
    await expect
      .poll(outcomes, { timeout: 15_000 })
      .toEqual(expect.arrayContaining(['before: object/no-access', 'since: open']))
    expect(await outcomes()).not.toContain('before: open')
  })
})
