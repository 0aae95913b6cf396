import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { ClientSession } from '../../bin/commands/client-session.ts'
import { createIotchain } from '../../bin/program.ts'
import { runProgram } from '../../bin/terminal/command.ts'
import { Output } from '../../bin/terminal/output.ts'
import { createAccount } from '../../chain/wallet.ts'
import { Membership } from '../../client/group.ts'
import { ClientHome } from '../../client/home.ts'
import { gname } from '../../protocol/groups/gid.ts'
import { Code } from '../../transport/coap/codes.ts'
import { ContentFormat } from '../../transport/coap/content-format.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { problemReply } from '../../transport/coap/problem-details.ts'
import { Router } from '../../transport/coap/router.ts'
import type { CoapReply, CoapRequest } from '../../transport/coap/server.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { addressOfNumber, CHAIN, TestClock, TestDevice, type TestGroup, TestKeyServer } from '../client/sealed-world.ts'

const CLIENT = addressOfNumber(1)
const KEY_SERVER = 'coaps://127.0.0.1:1'
const closers: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

/** A proxy that has one resource, and what is sealed of it last. */
async function serve(device: TestDevice, groups: readonly TestGroup[], newest: () => Uint8Array) {
  const sealed = () => ({ code: Code.content, payload: newest(), contentFormat: ContentFormat.coseSign1, maxAge: 60 })
  const path = `/d/${device.address}/s/temp`
  let refusal: ((observing: boolean) => CoapReply | undefined) | undefined
  const get = (request: CoapRequest): CoapReply => refusal?.(request.observe !== undefined) ?? sealed()
  const router = new Router().add({ pattern: path, observable: true, get }).add({
    pattern: '/bc/:gid',
    get: ({ params }) => {
      const group = groups.find((g) => gname(g.gid) === params['gid'])
      return group === undefined ? { code: Code.notFound } : { code: Code.content, payload: group.newest() }
    },
  })
  const endpoint = new CoapEndpoint(await bindUdp({ host: '127.0.0.1' }), { router })
  closers.push(() => endpoint.close())
  const uri = `coap://127.0.0.1:${endpoint.address.port}`
  const refuse = (with_: typeof refusal): void => {
    refusal = with_
  }
  return { uri, resource: uri + path, changed: () => endpoint.notify(path), refuse }
}

/** A watch under way, of a resource of which one reading after the other can be sealed. */
async function watching(refuseFirst?: (observing: boolean) => CoapReply | undefined) {
  const clock = new TestClock(Math.floor(Date.now() / 1000) - 300)
  const device = new TestDevice(7)
  const group = new TestKeyServer(clock).group(device)
  let newest = Uint8Array.from(group.seal({ value: 1 }).signed)
  const proxy = await serve(device, [group], () => newest)
  proxy.refuse(refuseFirst)
  const home = await homeOf([group], clock, proxy.uri)
  const said = { out: '', err: '' }
  const argv = ['node', 'iotchain', 'watch', proxy.resource]
  const stream = (to: 'out' | 'err') => ({
    write: (text: string) => {
      said[to] += text
    },
  })
  const running = runProgram(await createIotchain(argv), argv, {
    streams: { stdout: stream('out'), stderr: stream('err') },
    env: { IOTCHAIN_HOME: home },
  })
  const seal = (value: number): void => {
    newest = Uint8Array.from(group.seal({ value }).signed)
    proxy.changed()
  }
  await vi.waitFor(() => expect(said.err).toContain('watching'), 10_000)
  return { proxy, said, running, seal }
}

test('what passes by itself does not end a watch: nothing there for a while, too many requests, a server that is busy', async () => {
  const { proxy, said, running, seal } = await watching()
  for (const [i, reply] of [
    { code: Code.notFound },
    problemReply(Code.tooManyRequests, { title: 'proxy/rate' }, 1),
    problemReply(Code.serviceUnavailable, { title: 'proxy/key-server' }, 1),
  ].entries()) {
    const before = said.err.split('trying again').length
    await new Promise((resolve) => setTimeout(resolve, 100))
    proxy.refuse(() => reply)
    proxy.changed()
    await vi.waitFor(() => expect(said.err.split('trying again').length).toBeGreaterThan(before), 10_000)
    proxy.refuse(undefined)
    const readings = said.out.split('\n').length
    await vi.waitFor(() => {
      seal(20 + i)
      expect(said.out.split('\n').length).toBeGreaterThan(readings)
    }, 15_000)
  }
  expect(said.err).toContain('there is no /s/temp of 0x')
  expect(said.err).toContain('is not available now: proxy/rate; trying again')
  process.emit('SIGTERM')
  expect(await running).toBe(143)
}, 60_000)

test('also when it meets the first registration', async () => {
  let left = 1
  const { said, running, seal } = await watching((observing) =>
    observing && left-- > 0 ? problemReply(Code.serviceUnavailable, { title: 'device/no-reading' }, 1) : undefined,
  )
  const readings = said.out.split('\n').length
  await vi.waitFor(() => {
    seal(30)
    expect(said.out.split('\n').length).toBeGreaterThan(readings)
  }, 15_000)
  expect(said.err).toContain('trying again')
  process.emit('SIGTERM')
  await running
}, 30_000)

test('a refusal for good ends it with a sentence, a hint and an exit code', async () => {
  const { proxy, said, running } = await watching()
  await new Promise((resolve) => setTimeout(resolve, 200))
  proxy.refuse(() => problemReply(Code.notAcceptable, { detail: 'offered is content-format 17' }))
  proxy.changed()
  expect(await running).toBe(1)
  expect(said.err).toContain('error: /s/temp of 0x')
  expect(said.err).toContain('is not to be had in this form: offered is content-format 17')
  expect(said.err).toContain('hint: proxies have signed objects only')
}, 30_000)

/** The home of a client that has joined these groups. */
async function homeOf(groups: readonly TestGroup[], clock: TestClock, uri: string): Promise<string> {
  const path = mkdtempSync(join(tmpdir(), 'iotchain-watch-'))
  closers.push(() => rmSync(path, { recursive: true, force: true }))
  const home = new ClientHome(path)
  home.writeConfig({ ...CHAIN, defaultKey: CLIENT } as never)
  mkdirSync(home.keysFolder)
  writeFileSync(home.keyFile(CLIENT), '{}')
  const { state, close } = home.openState()
  for (const group of groups) {
    const { gid, device, bit, keyServer } = group
    const response = group.join(CLIENT)
    const membership = Membership.fromJoin({ gid, device: device.address, bit, client: CLIENT, clock }, response)
    await state.saveMembership({
      ...{ version: 1, client: CLIENT, device: device.address, bit, gid, ...CHAIN },
      keyServer: { uri: KEY_SERVER, spki: new Uint8Array(32) },
      ...{ kdcCred: keyServer.kdcCred, broadcasts: `${uri}/bc/${gname(gid)}`, policies: response.policies },
      ...{ credentials: response.creds, member: membership.state(), joinedAt: clock.seconds },
    })
  }
  await close()
  return path
}

test('a watch that lost its access joins the group of what it watches again, not another of the device', async () => {
  const clock = new TestClock(Math.floor(Date.now() / 1000) - 300)
  const keyServer = new TestKeyServer(clock)
  const device = new TestDevice(7)
  const groups = [0, 1].map((bit) => keyServer.group(device, bit))
  // of two memberships the state gives first the one whose group is named first
  const [, watched] = groups.toSorted((a, b) => (gname(a.gid) < gname(b.gid) ? -1 : 1)) as [TestGroup, TestGroup]
  let newest = new Uint8Array()
  const proxy = await serve(device, groups, () => newest)
  const home = await homeOf(groups, clock, proxy.uri)
  newest = Uint8Array.from(watched.seal().signed)

  let said = ''
  const write = (text: string): boolean => {
    said += text
    return true
  }
  const pin = ['--key-server', KEY_SERVER, '--key-server-spki', '00'.repeat(32)]
  const argv = ['node', 'iotchain', 'watch', proxy.resource, ...pin]
  const running = runProgram(await createIotchain(argv), argv, {
    streams: { stdout: { write }, stderr: { write } },
    env: { IOTCHAIN_HOME: home },
  })
  await vi.waitFor(() => expect(said).toContain('watching'), 10_000)
  watched.leave(CLIENT)
  watched.advance(200)
  newest = Uint8Array.from(watched.seal().signed)
  await vi.waitFor(() => {
    proxy.changed()
    expect(said).toMatch(/joining group/)
  }, 10_000)
  expect(said).toContain(`joining group ${watched.bit} of ${device.address}`)
  process.emit('SIGTERM')
  await running
})

test('a key that could not be opened is tried again when it is needed the next time', async () => {
  const home = new ClientHome(mkdtempSync(join(tmpdir(), 'iotchain-watch-')))
  closers.push(() => rmSync(home.path, { recursive: true, force: true }))
  home.writeConfig({ ...CHAIN } as never)
  const account = createAccount()
  home.writeKey(account.address, await account.encrypt('right', true))
  const passwordFile = join(home.path, 'password')
  const streams = { stdout: { write: () => true }, stderr: { write: () => true } }
  const out = new Output({ json: true, streams })
  const { signal } = new AbortController()
  const session = new ClientSession({ out, home: home.path, passwordFile, signal }, {})
  closers.push(() => session.close())
  writeFileSync(passwordFile, 'wrong')
  await expect(session.account()).rejects.toMatchObject({ code: 'wallet/wrong-password' })
  writeFileSync(passwordFile, 'right')
  expect((await session.account()).address).toBe(account.address)
})
