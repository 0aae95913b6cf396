/**
 * A key server that is meant to be killed: real store, real files, a chain in memory on which everybody holds a
 * token, time that runs two hundred times too fast. Whatever leaves it is written to standard output first.
 * Arguments: folder, seed, start of time (ms), and `lying` for a disk that says "written" too early.
 */
import { readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from '#crypto'
import type { Token } from '../../chain/types.ts'
import { toHex } from '../../protocol/bytes.ts'
import { clientMemberId } from '../../protocol/groups/gid.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { decodeSenderId, nodeName } from '../../protocol/messages/node.ts'
import type { Store } from '../../store/store.ts'
import { FakeChain } from './fake-chain.ts'
import { call, createWorld, TestClient, TestDevice } from './harness.ts'
import { TestClock } from './test-clock.ts'

const SPEED = 200
const [folder = '', seed = '1', start = '0', disk = 'honest'] = process.argv.slice(2)

/** Goes on across lives, as a real clock does. */
class FastClock extends TestClock {
  override nowMs(): number {
    return Number(start) + (Date.now() - Number(start)) * SPEED
  }
  override monotonicMs(): number {
    return performance.now() * SPEED
  }
  override get seconds(): number {
    return Math.floor(this.nowMs() / 1000)
  }
}

class GenerousChain extends FakeChain {
  override async tokensOf(_contract: Address, _device: Address, clients: readonly Address[]): Promise<Token[]> {
    return clients.map(() => ({ issuedAt: 1, expiresAt: 2 ** 40, claims: 1, grantBlock: 1, serial: 1 }))
  }
}

function tell(...fields: (string | number)[]): void {
  writeSync(1, `${fields.join(' ')}\n`)
}

let random = Number(seed) >>> 0
function below(bound: number): number {
  random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0
  return (random >>> 8) % bound
}

function lying(store: Store): Store {
  let last: Promise<void> = Promise.resolve()
  return {
    get: (key) => last.then(() => store.get(key)),
    async *range(range) {
      await last
      yield* store.range(range)
    },
    close: () => store.close(),
    async batch(operations) {
      last = last.then(() => new Promise((resolve) => setTimeout(resolve, 40))).then(() => store.batch(operations))
    },
  }
}

const world = await createWorld({
  folder,
  onDisk: true,
  clock: new FastClock(),
  chain: (clock) => new GenerousChain(clock),
  wrapStore: (store) => (disk === 'lying' ? lying(store) : store),
  onbroadcast: (g, b) => tell('broadcast', g.name, b.session, toHex(suite.sha256(b.bytes))),
  config: {
    sessions: {
      length: '2s',
      minimum: '1s',
      lead: '0s',
      epoch: '20s',
      refreshLead: '5s',
      window: '0s',
      windowSessions: 8,
    },
    limits: { leavesPerMember: 1000, rejoinsPerHour: 100_000 },
  },
})
for (const [name, group] of world.server.roster.groups) {
  const { newest } = group
  if (newest !== undefined) tell('broadcast', name, newest.session, toHex(suite.sha256(newest.bytes)))
  for (const m of group.manager.members()) tell('held', toHex(m.id))
}
tell('loaded')

const device = await TestDevice.create(world, 1, { certificate: readFileSync(join(folder, 'device.pem'), 'utf8') })
const node = (client: TestClient): string =>
  `/ace-group/${device.name(0)}/nodes/${nodeName(clientMemberId(addressBytes(client.address)))}`

async function joinDevice(): Promise<void> {
  const { response } = await device.join()
  const { epoch, leaf } = decodePersonalKey(response.personalKey)
  tell('joined', toHex(world.server.roster.device(device.address).memberId), epoch, leaf)
  const id = world.server.roster.device(device.address).memberId
  const reply = await call(
    world.server.secure,
    device.peer,
    'PUT',
    `/ace-group/${device.name(0)}/nodes/${nodeName(id)}`,
  )
  if (reply.text === '2.04') tell('sid', toHex(decodeSenderId(reply.payload as Uint8Array)))
}

async function visit(number: number): Promise<void> {
  const client = new TestClient(world, number)
  const id = toHex(clientMemberId(addressBytes(client.address)))
  // At this speed a challenge lasts 300 ms; on a busy machine some run out.
  const joined = await client.join(device).catch((error: Error) => {
    if (!error.message.startsWith('4.00')) throw error
  })
  if (joined === undefined) return
  const { epoch, leaf } = decodePersonalKey(joined.response.personalKey)
  tell('joined', id, epoch, leaf)
  if (below(6) > 0) return
  tell('leaving', id)
  await call(world.server.secure, client.peer, 'DELETE', node(client))
}

await joinDevice()
world.server.sessions.start()
for (;;) {
  const first = 10 + below(60)
  await Promise.all(Array.from({ length: 1 + below(3) }, (_, i) => visit(first + i)))
  if (below(4) === 0) await joinDevice()
  await new Promise((resolve) => setTimeout(resolve, below(10)))
}
