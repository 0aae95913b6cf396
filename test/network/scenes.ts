/** Runs in the key server's namespace: starts the daemons on their hosts and tries one thing after the other. */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { claimBroadcast, decodeBroadcast } from '../../protocol/groups/broadcast.ts'
import { parseHeader } from '../../protocol/objects/parse.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { dial } from '../../transport/dial.ts'
import type { DaemonProcess } from '../hostile/daemon-process.ts'
import { type CoapShape, coap, octets, path, seeded } from '../hostile/datagrams.ts'
import { inside } from '../hostile/namespaces.ts'
import { count } from '../interop/results.ts'
import { packageRoot } from '../peers/install.ts'
import { PeerProcess } from '../peers/process.ts'
import { addressOf, type Host, Lan } from './lan.ts'
import { must, results, scene, until } from './play.ts'
import { System } from './system.ts'

interface Reply {
  readonly ms: number
  readonly from: string
  readonly port: number
  readonly hex: string
}

const { positionals } = parseArgs({ allowPositionals: true, options: { verbose: { type: 'boolean' } } })
const lan = new Lan(positionals[0]!)

function station(host: Host, ...args: string[]): PeerProcess {
  const program = join(import.meta.dirname, 'station.js')
  return new PeerProcess(inside(lan.namespace(host), [process.execPath, program, ...args]))
}

async function ask(host: Host, to: string, ms: number, shapes: readonly CoapShape[], port = 5683): Promise<Reply[]> {
  const hex = shapes.map((shape) => coap(shape).toString('hex'))
  const program = station(host, 'ask', to, String(port), String(ms), ...hex)
  const line = await program.line(ms + 20_000)
  await program.stop()
  must(line !== undefined, `the station on ${host} said nothing: ${program.stderr}`)
  return (JSON.parse(line) as { replies: Reply[] }).replies
}

async function discover(host: Host, ...args: string[]): Promise<string[]> {
  const program = join(packageRoot(), 'dist', 'bin', 'iotchain.js')
  const command = new PeerProcess(
    inside(lan.namespace(host), [process.execPath, program, 'discover', '--json', ...args]),
  )
  const code = await command.exited
  must(code === 0, `iotchain discover ${args.join(' ')} ended with ${code}: ${command.stderr.trim()}`)
  return (JSON.parse(command.stdout) as { href: string }[]).map(({ href }) => href)
}

/** Everything that is in an array of links, by the host that it is at. */
const at = (links: readonly string[], host: string): string[] => links.filter((href) => href.includes(`//${host}`))

async function held(client: CoapClient, group: string): Promise<{ session: number; bytes: Uint8Array } | undefined> {
  const response = await client.get(['bc', group], { timeoutMs: 5000 })
  if (!response.ok) return undefined
  return {
    session: decodeBroadcast(claimBroadcast(response.payload, {}).message.payload).session,
    bytes: response.payload,
  }
}

const GET = { type: 'NON', code: 1 } as const
const CORE = path('/.well-known/core')
const token = (n: number): Buffer => Buffer.from([0xa5, n >> 8, n & 255])
const groupOn = (iface: string): string => `ff02::fd%${iface}`

async function broadcasts(system: System, device: DaemonProcess, client: CoapClient): Promise<void> {
  const { group } = system
  const [here, there] = [station('client', 'listen', 'eth0'), station('onlooker', 'listen', 'eth0')]
  await Promise.all([here.shows(/ready/, 20_000), there.shows(/ready/, 20_000)])

  await scene('a device takes broadcasts that come by multicast alone', async () => {
    const first = await until('a first broadcast', 40, () => held(client, group))
    const later = await until('two more sessions', 30, async () => {
      const now = await held(client, group)
      return now !== undefined && now.session >= first.session + 2 ? now : undefined
    })
    return `sessions ${first.session} to ${later.session}`
  })

  await scene('and seals under their sessions', async () => {
    const object = await until('a reading under the newest session', 20, async () => {
      const reading = await client.get('/s/host', { timeoutMs: 5000 })
      const newest = await held(client, group)
      if (!reading.ok || newest === undefined) return undefined
      const { session } = parseHeader(reading.payload)
      // the next broadcast is out a second before its session begins
      return session >= newest.session - 1 && session > 2 ? session : undefined
    })
    return `a reading of session ${object}`
  })

  await scene('only the interface that the key server was told carries them', async () => {
    const heard = (program: PeerProcess): number =>
      program.stdout.split('\n').filter((line) => line.includes('from')).length
    await until('broadcasts on the network A', 15, async () => (heard(here) >= 2 ? true : undefined))
    must(heard(there) === 0, `${heard(there)} datagrams on the network B`)
    must(here.stdout.includes(lan.linkLocal('keyserver', 'eth0')), 'they come from somebody else')
    return `${heard(here)} on A, none on B`
  })
  await Promise.all([here.stop(), there.stop()])

  await scene('what is no broadcast of the group changes nothing and draws nothing', async () => {
    const random = seeded(7)
    const before = await until('a broadcast', 10, () => held(client, group))
    const lines = device.lines
    const bent = Buffer.from(before.bytes)
    bent[bent.length - 5]! ^= 1
    const post = (n: number, gid: string, payload: Uint8Array, type: 'NON' | 'CON' = 'NON'): CoapShape => ({
      type,
      code: 2,
      messageId: 0x7000 + n,
      token: token(n),
      options: [...path(`/bc/${gid}`), [12, Buffer.of(18)]],
      payload,
    })
    const replies = await ask('client', groupOn('eth0'), 6000, [
      ...Array.from({ length: 50 }, (_, i) => post(i, group, octets(random, 300))),
      ...Array.from({ length: 20 }, (_, i) => post(50 + i, group, bent)),
      post(80, group, octets(random, 20_000)),
      post(81, group, Buffer.concat([before.bytes, octets(random, 1200)])),
      // the true one, for a group that is not there; and again for its own, where it is old
      post(82, 'ffffffffffffffff', before.bytes),
      post(83, group, before.bytes),
      post(84, group, before.bytes, 'CON'),
    ])
    must(replies.length === 0, `${replies.length} replies, the first ${replies[0]?.hex}`)
    const after = await until('the next broadcast', 20, async () => {
      const now = await held(client, group)
      return now !== undefined && now.session > before.session ? now : undefined
    })
    must(device.alive, `the device died: ${device.lastWords}`)
    const logged = device.lines - lines
    must(logged < 20, `${logged} log lines; most: ${device.mostLogged}`)
    return `75 datagrams, no reply, ${logged} log lines, session ${before.session} → ${after.session}`
  })
}

async function discovery(): Promise<void> {
  const own = (host: Host, iface = 'eth0'): string => lan.linkLocal(host, iface)
  await scene('iotchain discover finds the devices and the proxy, and not the key server', async () => {
    const [all, named, typed] = await Promise.all([
      discover('client'),
      discover('client', '--interface', 'eth0'),
      discover('client', '--interface', 'eth0', '--rt', 'iotchain.credential'),
    ])
    for (const links of [all, named]) {
      for (const host of ['device', 'second', 'proxy'] as const) {
        for (const address of [`[${own(host)}%25eth0]`, addressOf(host)]) {
          must(at(links, address).length > 0, `nothing at ${address} of ${host}: ${links.join(' ')}`)
        }
      }
      const wrong = [...at(links, `[${own('keyserver')}`), ...at(links, addressOf('keyserver'))]
      must(wrong.length === 0, `the key server answered: ${wrong.join(' ')}`)
    }
    must(typed.length === 4 && typed.every((href) => href.endsWith('/id')), `--rt found ${typed.join(' ')}`)
    const link = at(named, `[${own('device')}`).find((href) => href.endsWith('/s/host'))
    must(link !== undefined, 'no link to /s/host')
    const direct = await discover('client', link.slice(0, link.indexOf('/s/host')))
    must(direct.includes(link), `asked by its link-local address it has ${direct.join(' ')}`)
    return `${named.length} links, e.g. ${link}`
  })

  await scene('each network finds who is on it', async () => {
    const links = await discover('onlooker')
    must(at(links, `[${own('device', 'eth1')}%25eth0]`).length > 0, `not the device: ${links.join(' ')}`)
    const strangers = (['second', 'proxy', 'keyserver'] as const).filter(
      (host) => at(links, `[${own(host)}`).length > 0,
    )
    must(strangers.length === 0, `across networks: ${strangers.join(', ')}`)
    return `${links.length} links`
  })

  await scene('answers come at random moments of the leisure, one from each', async () => {
    const rounds = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        ask('client', groupOn('eth0'), 6500, [{ ...GET, messageId: i, token: token(i), options: CORE }]),
      ),
    )
    for (const round of rounds) {
      must(round.length === 3, `${round.length} answers of 3`)
      must(new Set(round.map(({ from }) => from)).size === 3, 'one answered twice')
    }
    const times = rounds.flat().map(({ ms }) => ms)
    const spread = Math.max(...times) - Math.min(...times)
    // 24 uniform times in 5 s are closer together than 3 s once in 10^4 runs
    must(spread > 3000 && Math.max(...times) < 6500, `after ${Math.min(...times)} to ${Math.max(...times)} ms`)
    const coded = rounds.flat().every(({ hex }) => hex.slice(2, 4) === '45' && (Number.parseInt(hex[0]!, 16) & 3) === 1)
    must(coded, 'an answer is no NON 2.05')
    return `24 answers after ${Math.min(...times)} to ${Math.max(...times)} ms`
  })

  await scene('no group draws an error, an acknowledgement or a reset', async () => {
    const shapes: CoapShape[] = [
      { ...GET, messageId: 1, token: token(1), options: path('/nowhere') },
      { type: 'NON', code: 4, messageId: 2, token: token(2), options: path('/s/host') },
      { ...GET, messageId: 3, token: token(3), options: path('/s/host') },
      { ...GET, messageId: 4, token: token(4), options: [[9, Buffer.of(1)], ...CORE] },
      { type: 'CON', code: 1, messageId: 5, token: token(5), options: CORE },
      { type: 'CON', code: 0, messageId: 6 },
      { type: 'NON', code: 69, messageId: 7, token: token(7) },
      { type: 'CON', code: 69, messageId: 8, token: token(8) },
      { ...GET, messageId: 9, token: token(9), options: [...CORE, [15, Buffer.from('rt=nothing.like.it')]] },
      { ...GET, messageId: 10, token: Buffer.alloc(9), options: CORE },
      { type: 'NON', code: 31, messageId: 11, token: token(11) },
    ]
    // all nodes and all routers too: nobody joins those to be asked, and every host is in the first
    const groups = [
      'ff02::1%eth0',
      groupOn('eth0'),
      `224.0.0.1,${addressOf('client')}`,
      `224.0.1.187,${addressOf('client')}`,
    ]
    const core: CoapShape = { ...GET, messageId: 20, token: token(20), options: CORE }
    const replies = await Promise.all([
      ...groups.map((group) => ask('client', group, 6000, shapes)),
      ...groups.filter((group) => /::1%|0\.0\.1/.test(group)).map((group) => ask('client', group, 6000, [core])),
    ])
    const wrong = replies.flat()
    must(wrong.length === 0, `${wrong.length} replies; the first from ${wrong[0]?.from}: ${wrong[0]?.hex}`)
    return `${groups.length * shapes.length + 2} datagrams to 4 groups, silence`
  })

  await scene('a group multiplies no more than each of its members may', async () => {
    const shapes = Array.from({ length: 500 }, (_, i) => ({ ...GET, messageId: i, token: token(i), options: CORE }))
    const sent = shapes.reduce((sum, shape) => sum + coap(shape).length, 0)
    const began = performance.now()
    const replies = await ask('client', groupOn('eth0'), 7000, shapes)
    const seconds = (performance.now() - began) / 1000
    const each = new Map<string, number>()
    for (const { from, hex } of replies) each.set(from, (each.get(from) ?? 0) + hex.length / 2)
    must(each.size >= 2, `${each.size} answered at all`)
    const allowed = 16_384 + 1024 * seconds + 3 * sent
    for (const [from, got] of each) must(got <= allowed, `${from} sent ${got} octets of ${Math.floor(allowed)}`)
    return `${sent} octets drew ${[...each.values()].join(', ')}; allowed to each ${Math.floor(allowed)}`
  })
}

async function addresses(): Promise<void> {
  await scene('a host of several addresses answers from the one that was asked', async () => {
    const asked = [...lan.addAddresses('device', 'eth0'), addressOf('device')]
    const get: CoapShape = { type: 'CON', code: 1, messageId: 1, token: token(1), options: path('/s/host') }
    for (const to of asked) {
      const replies = await ask('client', to, 1500, [get])
      must(replies.length === 1, `${replies.length} answers at ${to}`)
      must(replies[0]?.from === to, `${to} was asked, ${replies[0]?.from} answered`)
      // a socket that hears no other address
      const client = await dial(`coap://${to.includes(':') ? `[${to}]` : to}`)
      must((await client.get('/s/host', { timeoutMs: 5000 })).ok, `no reading at ${to}`)
      await client.close()
    }
    return asked.join(', ')
  })
}

async function healing(system: System, client: CoapClient): Promise<void> {
  await scene('a device heals from a neighbour while the key server is away', async () => {
    const { group } = system
    const proxy = await dial(`coap://${addressOf('proxy')}`)
    await until('the proxy’s mirror', 20, () => held(proxy, group))
    const missed = await until('the device’s broadcast', 10, () => held(client, group))
    await system.stop('device')
    const newest = await until('two sessions that the device sleeps through', 40, async () => {
      const now = await held(proxy, group)
      return now !== undefined && now.session >= missed.session + 2 ? now : undefined
    })
    await system.stop('keyserver')
    const kept = (await held(proxy, group))?.session ?? newest.session
    await system.start('device')
    const healed = await until('the device’s healing', 40, async () => {
      const now = await held(client, group)
      return now !== undefined && now.session >= kept ? now : undefined
    })
    await proxy.close()
    return `slept at session ${missed.session}, healed to ${healed.session}`
  })
}

const system = await System.prepare(lan)
let failure: unknown
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void system.end().finally(() => process.exit(1)))
}
try {
  await system.start('keyserver')
  const [device] = await Promise.all([system.start('device'), system.start('proxy'), system.start('second')])
  const client = await dial(`coap://${addressOf('device')}`)
  await broadcasts(system, device, client)
  await discovery()
  await addresses()
  await healing(system, client)
  await client.close()
} catch (error) {
  failure = error
} finally {
  await system.end()
}
if (failure !== undefined) {
  results.push({
    table: 'Multicast',
    cell: 'the system comes up',
    peer: 'LAN',
    status: 'failed',
    detail: String(failure),
  })
}
for (const { status, cell, detail } of results) process.stdout.write(`${status.padEnd(7)} ${cell}: ${detail}\n`)
const failed = count(results, 'failed')
process.stdout.write(`${count(results, 'ok')} passed, ${failed} failed, 0 skipped\n`)
process.exit(failed > 0 ? 1 : 0)
