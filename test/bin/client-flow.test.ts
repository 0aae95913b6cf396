import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { createIotchain } from '../../bin/program.ts'
import { runProgram } from '../../bin/terminal/command.ts'
import { bindIntent, deployIntent } from '../../chain/deployments.ts'
import { registerIntent, revokeIntent, setOfferIntent } from '../../chain/intents.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { type Account, accountFromKey, createAccount } from '../../chain/wallet.ts'
import { keyServerSchema } from '../../keyserver/config.ts'
import { createKeyServerDaemon, type KeyServerDaemon } from '../../keyserver/daemon.ts'
import { initKeyServer } from '../../keyserver/init.ts'
import { coseKeyEd25519, publicKeyOf, thumbprint } from '../../protocol/cose/key.ts'
import { gidOf, gname } from '../../protocol/groups/gid.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import type { GroupMember } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { decodeJoinResponse, encodeJoinRequest, joinProofInput } from '../../protocol/messages/join.ts'
import { registrationDigest } from '../../protocol/messages/registration.ts'
import { createSealer } from '../../protocol/objects/seal.ts'
import { encodeSenml } from '../../protocol/objects/senml.ts'
import { proxySchema } from '../../proxy/config.ts'
import { connectKeyServer } from '../../proxy/key-servers.ts'
import { ObjectProxy } from '../../proxy/proxy.ts'
import { systemClock } from '../../runtime/clock.ts'
import { silentLogger } from '../../runtime/log.ts'
import { createMetrics } from '../../runtime/metrics.ts'
import { createCa, issueDeviceCertificate } from '../../runtime/pki/authority.ts'
import { generateKeyPair, privateKeyPem, savePrivateKey } from '../../runtime/pki/keys.ts'
import { createCsr } from '../../runtime/pki/request.ts'
import { openMemoryStore } from '../../store/memory.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'
import { dial } from '../../transport/dial.ts'

/**
 * A client's whole way, by its commands: settings, key, offer, puzzle, confirmations, join, reading,
 * renewal, revocation; against a real chain, the real key server and the real proxy. The device is played by the test.
 */
const folder = mkdtempSync(join(tmpdir(), 'iotchain-flow-'))
const file = (name: string): string => join(folder, name)
const home = file('home')
const passwordFile = file('password')
const CONFIRMATIONS = 2
let anvil: Anvil
let rpc: JsonRpc
let owner: Account
let sender: TransactionSender
let registry: Address
let contract: Address
let daemon: KeyServerDaemon
let proxy: ObjectProxy
let player: DevicePlayer
const device = createAccount()
let clientAddress: Address

const send = (intent: Parameters<TransactionSender['send']>[0]) => sender.send(intent)
const deploy = async (what: Parameters<typeof deployIntent>[0]): Promise<Address> =>
  (await send(deployIntent(what))).contract as Address

interface Outcome {
  code: number
  out: string
  err: string
}

const run = (...args: string[]): Promise<Outcome> => runAt(home, ...args)

async function runAt(folderOfClient: string, ...args: string[]): Promise<Outcome> {
  const argv = ['node', 'iotchain', ...args]
  let out = ''
  let err = ''
  const streams = {
    stdout: { write: (text: string) => (out += text) },
    stderr: { write: (text: string) => (err += text) },
  }
  const env = { IOTCHAIN_HOME: folderOfClient, IOTCHAIN_PASSWORD_FILE: passwordFile }
  const code = await runProgram(await createIotchain(argv), argv, { streams, env })
  return { code, out, err }
}

/** What a device does, in a few lines: joins, follows the broadcasts, seals, uploads. */
class DevicePlayer {
  readonly signing = suite.ed25519.signing(suite.ed25519.generate())
  readonly coseKey = coseKeyEd25519(this.signing.publicKey)
  readonly gid: Uint8Array
  member: GroupMember | undefined
  sid: Uint8Array = new Uint8Array()
  seq = 1

  constructor() {
    this.gid = gidOf(suite, {
      chainId: anvil.chainId,
      registry: addressBytes(registry),
      device: addressBytes(device.address),
      bit: 0,
    })
  }

  async join(ca: Awaited<ReturnType<typeof createCa>>, coaps: string): Promise<void> {
    const pair = generateKeyPair()
    const csr = await createCsr({ address: device.address, privateKey: pair.privateKey })
    const { chain } = await issueDeviceCertificate(ca.issuing, csr.der)
    const secure = { cert: chain, key: privateKeyPem(pair.privateKey), ca: ca.root.certificate }
    const connection = await dial(coaps, { secure })
    const proof = this.signing.sign(joinProofInput(this.gid, connection.peer.secure?.channelBinding() as Uint8Array))
    const body = encodeJoinRequest({ scope: 0, clientCred: this.coseKey, clientCredVerify: proof })
    const reply = await connection.post(`/ace-group/${gname(this.gid as never)}`, body)
    await connection.close()
    expect(reply.codeText).toBe('2.01')
    const joined = decodeJoinResponse(reply.payload)
    this.member = sdsh(suite).member({ gid: this.gid, kdc: suite.ed25519.verifying(publicKeyOf(joined.kdcCred)) })
    this.member.addPersonal(decodePersonalKey(joined.personalKey))
    for (const { session, key } of joined.keys) this.member.addKey({ session, K: key })
    this.sid = joined.senderId as Uint8Array
  }

  /** Seals a reading under the running session and uploads it. */
  async tell(value: number): Promise<string> {
    const member = this.member as GroupMember
    const keyServer = await dial(`coap://127.0.0.1:${daemon.running?.endpoints.coap.address.port}`)
    let session: number | undefined
    // The running broadcast may be from before its join: then the next one is waited for.
    for (let i = 0; session === undefined && i < 300; i++) {
      if (i > 0) await new Promise((resolve) => setTimeout(resolve, 100))
      member.receive((await keyServer.get(`/bc/${gname(this.gid as never)}`)).payload)
      session = member.current(Math.floor(Date.now() / 1000))?.session
    }
    await keyServer.close()
    if (session === undefined) throw new Error('there is no session to seal under')
    const now = Math.floor(Date.now() / 1000)
    const sealer = createSealer(suite, {
      K: member.key(session) as Uint8Array,
      gid: this.gid,
      session,
      device: addressBytes(device.address),
      sid: this.sid,
      path: ['s', 'temp'],
      algorithm: 24,
      signingKey: this.signing,
    })
    const plaintext = encodeSenml([{ n: 'temp', u: 'Cel', v: value, t: now }])
    const { signed } = sealer.seal({ seq: this.seq++, iat: now, contentFormat: 112, plaintext })
    const uploader = await dial(`coap://127.0.0.1:${proxy.coapPort}`)
    const reply = await uploader.put(`/d/${device.address}/s/temp`, signed, { contentFormat: 18 })
    await uploader.close()
    return reply.codeText
  }
}

beforeAll(async () => {
  writeFileSync(passwordFile, 'correct horse\n')
  anvil = await startAnvil({ chainId: 20180415 })
  rpc = new JsonRpc({ url: anvil.url })
  owner = accountFromKey(anvil.keys[0] as string)
  sender = new TransactionSender({ rpc, chainId: anvil.chainId, account: owner, pollMs: 50 })
  registry = await deploy({ kind: 'registry' })
  contract = await deploy({ kind: 'access-token', owner: owner.address, resource: device.address })
  const puzzle = await deploy({ kind: 'puzzle', difficulty: 8 })
  await send(bindIntent(puzzle, contract))
  const terms = { policy: puzzle, resource: device.address, claims: 1, maxTtlSeconds: 3600, active: true }
  await send(setOfferIntent(contract, 0, terms))
  const ca = await createCa()
  writeFileSync(file('issuing.crt'), ca.issuing.certificate)
  writeFileSync(file('root.crt'), ca.root.certificate)
  savePrivateKey(file('root.key'), ca.root.key)
  const files = { certificate: file('server.crt'), key: file('server.key'), broadcast: file('broadcast.key') }
  const { spki } = await initKeyServer(suite, files, {
    certificate: file('root.crt'),
    key: file('root.key'),
    names: ['127.0.0.1'],
  })
  const payer = accountFromKey(anvil.keys[1] as string)
  writeFileSync(file('relay.json'), await payer.encrypt('correct horse', true))
  daemon = await createKeyServerDaemon(
    keyServerSchema.parse({
      state: file('state'),
      listen: { coaps: '127.0.0.1:0', coap: '127.0.0.1:0' },
      keys: files,
      issuers: [file('issuing.crt'), file('root.crt')],
      owners: [owner.address],
      chain: { rpcUrl: anvil.url, id: anvil.chainId, registry, confirmations: CONFIRMATIONS, poll: '100ms' },
      sessions: { length: '5s', minimum: '1s', lead: '0s' },
      relay: {
        keystore: file('relay.json'),
        passwordFile,
        offers: [{ contract, offer: 0 }],
        difficulty: 6,
      },
    }),
    {
      name: 'iotchain-keyserver',
      log: silentLogger,
      metrics: createMetrics(),
      clock: systemClock,
      configFile: file('keyserver.yaml'),
      resolve: (path) => path,
      checkOnly: false,
    },
  )
  await daemon.start()
  const coaps = `coaps://127.0.0.1:${daemon.running?.endpoints.coaps.address.port}`
  player = new DevicePlayer()
  const registration = {
    device: addressBytes(device.address),
    owner: addressBytes(owner.address),
    signingKey: thumbprint(suite, player.coseKey),
    keyServer: spki,
    nonce: 0,
    deadline: 2 ** 40,
  }
  const domain = { chainId: anvil.chainId, registry: addressBytes(registry) }
  const deviceSig = device.signDigest(registrationDigest(domain, registration))
  const ticket = { ...registration, device: device.address, owner: owner.address, uri: coaps, deviceSig }
  await send(registerIntent(registry, ticket, [contract], coaps))
  // A block for each transaction so far; from now on one a second, so that there are confirmations to wait for.
  await rpc.call('anvil_mine', [`0x${CONFIRMATIONS.toString(16)}`])
  await rpc.call('evm_setAutomine', [false])
  await rpc.call('evm_setIntervalMining', [1])
  await player.join(ca, coaps)
  proxy = await ObjectProxy.load(
    proxySchema.parse({ keyservers: [{ uri: coaps, ca: 'x' }], coap: { host: '127.0.0.1', port: 0 } }),
    {
      log: silentLogger,
      clock: systemClock,
      store: openMemoryStore(),
      keyServers: [
        connectKeyServer({
          uri: coaps,
          plain: `coap://127.0.0.1:${daemon.running?.endpoints.coap.address.port}`,
          ca: file('root.crt'),
        }),
      ],
    },
  )
  await proxy.start()
  expect(await player.tell(20)).toBe('2.01')
}, 120_000)

afterAll(async () => {
  await proxy?.stop()
  await daemon?.stop()
  await anvil?.stop()
  rmSync(folder, { recursive: true, force: true })
})

describe('a client on its way', () => {
  const resource = () => `coap://127.0.0.1:${proxy.coapPort}/d/${device.address}/s/temp`

  test('settings and a key', async () => {
    const init = await run(
      'init',
      '--rpc',
      anvil.url,
      '--chain-id',
      '20180415',
      '--registry',
      registry,
      '--confirmations',
      '2',
    )
    expect(init).toMatchObject({ code: 0, err: '' })
    const created = await run('wallet', 'create', '--light', '--json')
    expect(created.code).toBe(0)
    clientAddress = JSON.parse(created.out).address
  })

  test('without a token it is told so, and how to go on', async () => {
    const { code, err } = await run('read', resource())
    expect(err).toMatch(/error: the key server refused .*token/)
    expect(err).toMatch(/hint: .*iotchain request/)
    expect(code).toBe(1)
  })

  test('offers, and what they want', async () => {
    const { out, code } = await run('offers', device.address)
    expect(code).toBe(0)
    expect(out).toMatch(/offer 0 of 0x[0-9a-f]{40}: bit 0, at most 1h: a puzzle of 8 bits/)
  })

  test('offers of another device, contracts of nobody, registries that are none', async () => {
    const other = createAccount().address
    const policy = await deploy({ kind: 'open' })
    const terms = { policy, resource: other, claims: 1, maxTtlSeconds: 3600, active: true }
    await send(setOfferIntent(contract, 1, terms))
    const refused = async (...args: string[]): Promise<string> => {
      const { code, err } = await run('request', device.address, ...args)
      expect(code).toBe(1)
      expect(err.trim().split('\n')).toHaveLength(2)
      return err
    }
    expect(await refused('--offer', '1')).toMatch(
      new RegExp(`error: offer 1 of ${contract} is for device ${other}: .*\nhint: .*iotchain offers`),
    )
    expect(await refused('--offer', '7')).toMatch(/error: nothing of that kind is offered.*\nhint: /)
    expect(await refused('--contract', other)).toMatch(/error: contract .* is not among those.*\nhint: /)
    const settings = readFileSync(join(home, 'config.yaml'), 'utf8')
    try {
      for (const [wrong, says] of [
        [settings.replace(registry, contract), /error: the contract at .* is no DeviceRegistry\nhint: /],
        [settings.replace(registry, other), /error: there is no contract at .*\nhint: /],
        [settings.replace('20180415', '1'), /error: the node at .* is on chain 20180415, not on 1\nhint: /],
      ] as const) {
        writeFileSync(join(home, 'config.yaml'), wrong)
        expect(await refused()).toMatch(says)
      }
    } finally {
      writeFileSync(join(home, 'config.yaml'), settings)
    }
  }, 60_000)

  test('without ether it is told so; nothing is half done', async () => {
    const { code, err } = await run('request', device.address)
    expect(err).toMatch(/error: .* owns 0 wei/)
    // it has not even begun to search for a solution
    expect(err).not.toMatch(/solving/)
    expect(code).toBe(1)
  })

  test('a token by the puzzle, with progress, then the membership, in one command', async () => {
    await send({ what: 'some ether', to: clientAddress, data: '0x', value: 10n ** 18n })
    const { code, out, err } = await run('request', device.address, '--ttl', '30s', '--join')
    expect(err).toMatch(/solving the puzzle: \d+ tries, about 256 expected/)
    expect(err).toMatch(/of 2 confirmations/)
    expect(out).toMatch(new RegExp(`token for bit 0 of ${device.address} until 20`))
    expect(code).toBe(0)
  }, 60_000)

  test('a reading, whose signer the chain vouches for; a stretch of lost sessions does not matter', async () => {
    expect(await player.tell(21.5)).toBe('2.04')
    const { code, out, err } = await run('read', resource())
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toMatch(/^temp 21\.5 °C/)
    const listed = await run('wallet', 'list', '--json')
    expect(JSON.parse(listed.out)[0]).toMatchObject({
      address: clientAddress,
      memberships: [{ device: device.address, bit: 0 }],
      holdings: [{ contract, bits: [0], standing: 'good' }],
    })
  }, 60_000)

  test('watching, over the border of sessions', async () => {
    const watching = run('watch', resource(), '--count', '3', '--json')
    const timer = setInterval(() => player.tell(22).catch(() => undefined), 1500)
    const { code, out } = await watching
    clearInterval(timer)
    expect(code).toBe(0)
    expect(
      out
        .trim()
        .split('\n')
        .map((l) => JSON.parse(l).records[0].name),
    ).toEqual(['temp', 'temp', 'temp'])
  }, 60_000)

  test('renewal: due because the token ends soon; the membership goes on', async () => {
    const before = JSON.parse((await run('wallet', 'list', '--json')).out)[0].holdings[0].expiresAt
    const { code, out, err } = await run('wallet', 'renew', '--ahead', '1h')
    expect(err).toMatch(/renewing 0x/)
    expect({ code, out }).toMatchObject({ code: 0, out: expect.stringMatching(/until 20/) })
    expect(JSON.parse((await run('wallet', 'list', '--json')).out)[0].holdings[0].expiresAt).toBeGreaterThan(before)
    await player.tell(23)
    expect((await run('read', resource())).out).toMatch(/^temp 23 °C/)
    expect((await run('wallet', 'renew')).err).toMatch(/nothing is due|renewing/)
  }, 60_000)

  test('a fresh address that owns nothing gets its token through the relay, and reads', async () => {
    const fresh = file('fresh-home')
    const at = (...args: string[]) => runAt(fresh, ...args)
    await at('init', '--rpc', anvil.url, '--chain-id', '20180415', '--registry', registry, '--confirmations', '2')
    const { code, out, err } = await at('request', device.address, '--fresh', '--light', '--join', '--json')
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const { client } = JSON.parse(out.split('\n')[0] as string)
    // what was kept until the token stood is gone: the next one is another address
    const next = await at('request', device.address, '--fresh', '--light', '--json')
    expect(JSON.parse(next.out).client).not.toBe(client)
    rmSync(join(fresh, 'keys', `${JSON.parse(next.out).client}.json`))
    expect(client).not.toBe(clientAddress)
    expect(BigInt(await rpc.call<string>('eth_getBalance', [client, 'latest']))).toBe(0n)
    await player.tell(23.5)
    expect((await at('read', resource())).out).toMatch(/^temp 23\.5 °C/)
    // Another key beside it does not confuse the reader: the one that asked for this device is taken.
    await at('wallet', 'create', '--light')
    expect((await at('read', resource())).code).toBe(0)
    expect((await at('request', device.address)).err).toMatch(/there are several keys/)
  }, 60_000)

  test('after a revocation: no access, and no way to get it by asking again', async () => {
    await send(revokeIntent(contract, [clientAddress], device.address))
    const tried = async (): Promise<number> => {
      await player.tell(24)
      return (await run('read', resource())).code
    }
    await expect.poll(tried, { timeout: 30_000, interval: 1000 }).toBe(1)
    const { err } = await run('read', resource())
    expect(err).toMatch(/token/)
    const listed = JSON.parse((await run('wallet', 'list', '--json')).out)[0].holdings[0]
    expect(listed.standing).toBe('revoked')
  }, 60_000)
})
