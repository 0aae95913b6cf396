import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { deployIntent } from '../../chain/deployments.ts'
import { grantIntent, registerIntent, revokeIntent } from '../../chain/intents.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { type Account, accountFromKey, createAccount } from '../../chain/wallet.ts'
import { KeyServerSession } from '../../client/keyserver-session.ts'
import { keyServerSchema } from '../../keyserver/config.ts'
import { createKeyServerDaemon, type KeyServerDaemon } from '../../keyserver/daemon.ts'
import { initKeyServer } from '../../keyserver/init.ts'
import { coseKeyEd25519, publicKeyOf, thumbprint } from '../../protocol/cose/key.ts'
import { gidOf, gname } from '../../protocol/groups/gid.ts'
import { decodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { type decodeJoinResponse, encodeJoinRequest, joinProofInput } from '../../protocol/messages/join.ts'
import { registrationDigest } from '../../protocol/messages/registration.ts'
import { systemClock } from '../../runtime/clock.ts'
import { silentLogger } from '../../runtime/log.ts'
import { createMetrics } from '../../runtime/metrics.ts'
import { createCa, issueDeviceCertificate } from '../../runtime/pki/authority.ts'
import { generateKeyPair, privateKeyPem, savePrivateKey } from '../../runtime/pki/keys.ts'
import { createCsr } from '../../runtime/pki/request.ts'
import { type Anvil, startAnvil } from '../../tools/anvil.ts'
import { dial } from '../../transport/dial.ts'

/** Real chain, real DTLS, real UDP, real disk: one device, one client, a grant and a revocation. */
const folder = mkdtempSync(join(tmpdir(), 'iotchain-keyserver-e2e-'))
const file = (name: string): string => join(folder, name)
let anvil: Anvil
let rpc: JsonRpc
let sender: TransactionSender
let owner: Account
let registry: Address
let contract: Address
let daemon: KeyServerDaemon
let ca: Awaited<ReturnType<typeof createCa>>
let spki: Uint8Array
const device = createAccount()
const client = createAccount()
const signing = suite.ed25519.signing(suite.ed25519.generate())
const coseKey = coseKeyEd25519(signing.publicKey)

const mine = (blocks: number): Promise<unknown> => rpc.call('anvil_mine', [`0x${blocks.toString(16)}`])

function start(): Promise<KeyServerDaemon> {
  const config = keyServerSchema.parse({
    state: file('state'),
    listen: { coaps: '127.0.0.1:0', coap: '127.0.0.1:0' },
    keys: { certificate: file('server.crt'), key: file('server.key'), broadcast: file('broadcast.key') },
    issuers: [file('issuing.crt'), file('root.crt')],
    owners: [owner.address],
    chain: { rpcUrl: anvil.url, id: anvil.chainId, registry, confirmations: 3, poll: '100ms' },
    sessions: { length: '2s', minimum: '1s', lead: '0s' },
  })
  return createKeyServerDaemon(config, {
    name: 'iotchain-keyserver',
    log: silentLogger,
    metrics: createMetrics(),
    clock: systemClock,
    configFile: file('keyserver.yaml'),
    resolve: (path) => path,
    checkOnly: false,
  })
}

beforeAll(async () => {
  anvil = await startAnvil({ chainId: 20180415 })
  rpc = new JsonRpc({ url: anvil.url })
  owner = accountFromKey(anvil.keys[0] as string)
  sender = new TransactionSender({ rpc, chainId: anvil.chainId, account: owner, pollMs: 20 })
  registry = (await sender.send(deployIntent({ kind: 'registry' }))).contract as Address
  contract = (await sender.send(deployIntent({ kind: 'access-token', owner: owner.address, resource: device.address })))
    .contract as Address
  ca = await createCa()
  writeFileSync(file('issuing.crt'), ca.issuing.certificate)
  writeFileSync(file('root.crt'), ca.root.certificate)
  savePrivateKey(file('root.key'), ca.root.key)
  const made = await initKeyServer(
    suite,
    { certificate: file('server.crt'), key: file('server.key'), broadcast: file('broadcast.key') },
    { certificate: file('root.crt'), key: file('root.key'), names: ['127.0.0.1'] },
  )
  spki = made.spki
  daemon = await start()
  await daemon.start()
})

afterAll(async () => {
  await daemon?.stop()
  await anvil?.stop()
  rmSync(folder, { recursive: true, force: true })
})

const gid = () =>
  gidOf(suite, {
    chainId: anvil.chainId,
    registry: addressBytes(registry),
    device: addressBytes(device.address),
    bit: 0,
  })
const coaps = () => `coaps://127.0.0.1:${daemon.running?.endpoints.coaps.address.port}`
const coap = () => `coap://127.0.0.1:${daemon.running?.endpoints.coap.address.port}`

async function joinDevice() {
  const pair = generateKeyPair()
  const csr = await createCsr({ address: device.address, privateKey: pair.privateKey })
  const { chain } = await issueDeviceCertificate(ca.issuing, csr.der)
  const secure = { cert: chain, key: privateKeyPem(pair.privateKey), ca: ca.root.certificate, expectSpki: spki }
  const connection = await dial(coaps(), { secure })
  const channel = connection.peer.secure?.channelBinding() as Uint8Array
  const proof = signing.sign(joinProofInput(gid(), channel))
  const payload = encodeJoinRequest({ scope: 0, clientCred: coseKey, clientCredVerify: proof })
  const reply = await connection.post(`/ace-group/${gname(gid())}`, payload)
  await connection.close()
  return reply
}

function memberOf(response: ReturnType<typeof decodeJoinResponse>) {
  const kdc = suite.ed25519.verifying(publicKeyOf(response.kdcCred))
  const member = sdsh(suite).member({ gid: gid(), kdc })
  member.addPersonal(decodePersonalKey(response.personalKey))
  for (const { session, key } of response.keys) member.addKey({ session, K: key })
  return member
}

describe('a key server on a real chain', () => {
  test('tells an unregistered device to wait, then lets it in', async () => {
    const early = await joinDevice()
    expect(early.codeText).toBe('5.03')
    expect(early.problem?.title).toBe('keyserver/not-registered')
    const registration = {
      device: addressBytes(device.address),
      owner: addressBytes(owner.address),
      signingKey: thumbprint(suite, coseKey),
      keyServer: spki,
      nonce: 0,
      deadline: 2 ** 40,
    }
    const domain = { chainId: anvil.chainId, registry: addressBytes(registry) }
    const deviceSig = device.signDigest(registrationDigest(domain, registration))
    const ticket = { ...registration, device: device.address, owner: owner.address, uri: '', deviceSig }
    await sender.send(registerIntent(registry, ticket, [contract], 'coap://127.0.0.1'))
    const waiting = await joinDevice()
    expect(waiting.problem).toMatchObject({ title: 'keyserver/confirmations' })
    await mine(3)
    expect((await joinDevice()).codeText).toBe('2.01')
  })

  test('admits a client n blocks after its grant, and puts it out after its revocation', async () => {
    const chain = { chainId: anvil.chainId, registry }
    const session = await KeyServerSession.open({ uri: coaps(), spki }, chain, { clock: systemClock })
    const wish = { signer: client, device: device.address, gid: gid(), bit: 0 }
    await expect(session.join(wish)).rejects.toMatchObject({ code: 'client/no-token' })
    await sender.send(grantIntent(contract, [client.address], device.address, 3600, 1))
    await expect(session.join(wish)).rejects.toMatchObject({ code: 'client/confirmations' })
    await mine(3)
    const member = memberOf(await session.join(wish))
    const plain = await dial(coap())
    const broadcasts: Uint8Array[] = []
    const observation = plain.observe(`/bc/${gname(gid())}`, { onNotification: (r) => broadcasts.push(r.payload) })
    await until(() => broadcasts.length > 0 && typeof member.receive(broadcasts.at(-1) as Uint8Array) === 'object')
    expect(member.key(member.session)).toHaveLength(16)
    await sender.send(revokeIntent(contract, [client.address], device.address))
    await until(() => member.receive(broadcasts.at(-1) as Uint8Array) === 'not-for-me')
    observation.close()
    await plain.close()
    await session.close()
  })

  test('goes on after a restart where it stopped', async () => {
    const before = daemon.running?.server.roster.groups.get(gname(gid()))?.newest?.session as number
    await daemon.stop()
    daemon = await start()
    await daemon.start()
    const group = () => daemon.running?.server.roster.groups.get(gname(gid()))
    expect(group()?.newest?.session).toBeGreaterThanOrEqual(before)
    await until(() => (group()?.newest?.session ?? 0) > before + 1)
    expect((await joinDevice()).codeText).toBe('2.04')
  })
})

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (holds()) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('it never happened')
}
