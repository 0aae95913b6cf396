/** What the demo plays on: a chain, an owner, keys, configuration files and the three daemons, in a folder of its own. */
import { randomBytes } from 'node:crypto'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ChainReader } from '../chain/reader.ts'
import { JsonRpc } from '../chain/rpc.ts'
import { accountFromKey } from '../chain/wallet.ts'
import { registerDevice, setOffer } from '../owner/actions.ts'
import { type CaFiles, createOwnerCa, issueForDevice, issueForServer } from '../owner/authority.ts'
import { deployContract, deployRegistry } from '../owner/deploy.ts'
import { OwnerFolder } from '../owner/folder.ts'
import { parsePolicy } from '../owner/policy-text.ts'
import { OwnerSession } from '../owner/session.ts'
import { fromHex } from '../protocol/bytes.ts'
import type { Address } from '../protocol/messages/address.ts'
import { decodeRegistrationTicket } from '../protocol/messages/registration.ts'
import type { DemoChain } from './chain.ts'
import { freeUdpPorts, type ProcessTree, runToEnd } from './processes.ts'

export const SESSION_SECONDS = 5
export const CONFIRMATIONS = 3
/** Leading zero bits: about a quarter of a million hashes. */
export const PUZZLE_BITS = 18
/** Bit of a token's claims that stands for the readers of /s/host. */
export const READERS = 0
export const PATH = ['s', 'host']

const ANY_RESOURCE: Address = '0x0000000000000000000000000000000000000000'

/** Everything a person would have at hand after setting the system up. */
export interface Stage {
  readonly folder: string
  readonly chain: DemoChain
  readonly owner: OwnerSession
  readonly contract: Address
  readonly device: Address
  readonly registry: Address
  readonly keyServer: { readonly uri: string; readonly spki: Uint8Array }
  readonly broadcastsUri: string
  readonly deviceUri: string
  readonly proxyUri: string
  readonly httpUri: string
  readonly ca: CaFiles
  /** of the owner's authority and key */
  readonly password: string
  /** starts with its configuration */
  readonly configs: { readonly keyserver: string; readonly device: string; readonly proxy: string }
}

/** The owner's part that needs no device: authority and contracts. */
export async function setUpOwner(folder: string, chain: DemoChain) {
  const home = new OwnerFolder(join(folder, 'owner'))
  home.create({ rpcUrl: chain.url, chainId: chain.chainId })
  const password = randomBytes(16).toString('hex')
  const ca = await createOwnerCa(home, password, 'IoTChain demo')
  const account = accountFromKey(chain.ownerKey)
  const session = new OwnerSession({ folder: home, config: home.config(), account, pollMs: 200 })
  const registry = await deployRegistry(session)
  const contract = await deployContract(session, 'main', ANY_RESOURCE)
  return { home, password, ca, session, registry, contract }
}

export type OwnerSetUp = Awaited<ReturnType<typeof setUpOwner>>

/** Where a device lives that does not share this host's loopback address, and what it reads. */
export interface DeviceHabitat {
  /** how the device names this host */
  readonly thisHost: string
  /** where it listens, in its own world */
  readonly listen: string
  /** merged into its configuration */
  readonly settings: object
}

/** Keys, certificates and configurations of the daemons; the device signs its registration, the owner submits it. */
export async function setUpDaemons(
  folder: string,
  chain: DemoChain,
  set: OwnerSetUp,
  habitat?: DeviceHabitat,
): Promise<Stage> {
  const [coaps, coap, devicePort, proxyPort, httpPort] = (await freeUdpPorts(5)) as [
    number,
    number,
    number,
    number,
    number,
  ]
  const at = (...names: string[]): string => join(folder, ...names)
  for (const role of ['keyserver', 'device', 'proxy']) await mkdir(at(role), { mode: 0o700 })

  const made = JSON.parse(await runToEnd('iotchain-device', ['init', '--dir', at('device'), '--json'])) as {
    address: Address
    request: string
  }
  const { certificateFile, keyFile, spki } = await issueForServer(
    set.home,
    set.password,
    ['localhost', '127.0.0.1', ...(habitat ? [habitat.thisHost] : [])],
    at('keyserver'),
  )
  const csr = await readFile(at('device', 'device.csr'))
  const { chain: certificate } = await issueForDevice(set.home, set.password, csr, { address: made.address })
  await writeFile(at('device', 'device.crt'), certificate)
  await copyFile(set.ca.root, at('device', 'ca.crt'))

  const thisHost = habitat?.thisHost ?? '127.0.0.1'
  const chainNames = { id: chain.chainId, registry: set.registry }
  const deviceUri = `coap://127.0.0.1:${devicePort}`
  const proxyUri = `coap://127.0.0.1:${proxyPort}`
  const keyServer = { uri: `coaps://127.0.0.1:${coaps}`, spki: fromHex(spki) }
  const configs = {
    keyserver: await config(at('keyserver', 'keyserver.yaml'), {
      state: 'state',
      listen: {
        coaps: `127.0.0.1:${coaps}`,
        coap: `127.0.0.1:${coap}`,
        publicUri: `coap://${thisHost}:${coap}`,
      },
      keys: { certificate: certificateFile, key: keyFile, broadcast: 'broadcast.key' },
      issuers: [set.ca.issuing, set.ca.root],
      owners: [set.session.account.address],
      chain: { ...chainNames, rpcUrl: chain.url, confirmations: CONFIRMATIONS, poll: '500ms' },
      sessions: { length: `${SESSION_SECONDS}s`, minimum: `${SESSION_SECONDS}s`, lead: '1s', grace: '5s' },
    }),
    device: await config(at('device', 'device.yaml'), {
      device: {
        name: 'demo-device',
        listen: habitat?.listen ?? deviceUri,
        proxy: `coap://${thisHost}:${proxyPort}`,
      },
      identity: {
        accountKey: 'account.key',
        certificate: 'device.crt',
        key: 'device.key',
        ca: 'ca.crt',
        signingKey: 'signing.key',
      },
      keyserver: `coaps://${thisHost}:${coaps}`,
      chain: chainNames,
      state: 'state',
      resources: [
        { path: '/s/host', driver: 'host', fields: ['load', 'memory'], group: READERS, every: '1s' },
        {
          path: '/s/simulated',
          driver: 'simulated',
          seed: 7,
          min: 15,
          max: 25,
          unit: 'Cel',
          group: READERS,
          every: '1s',
        },
      ],
      ...habitat?.settings,
    }),
    proxy: await config(at('proxy', 'proxy.yaml'), {
      state: 'state',
      keyservers: [{ uri: keyServer.uri, plain: `coap://127.0.0.1:${coap}`, ca: set.ca.root }],
      coap: { host: '127.0.0.1', port: proxyPort },
      http: { listen: `127.0.0.1:${httpPort}` },
    }),
  }
  await runToEnd('iotchain-keyserver', ['init', '--config', configs.keyserver])

  const owner = set.session.account.address
  const ticket = decodeRegistrationTicket(
    (
      await runToEnd('iotchain-device', [
        'registration',
        ...['--config', configs.device, '--owner', owner, '--keyserver-spki', spki, '--uri', keyServer.uri],
      ])
    ).trim(),
  )
  await registerDevice(set.session, ticket, [set.contract], keyServer.uri)
  await setOffer(set.session, {
    contract: set.contract,
    plan: parsePolicy(`puzzle(${PUZZLE_BITS})`, owner),
    device: made.address,
    claims: 1 << READERS,
    maxTtlSeconds: 3600,
  })
  return {
    folder,
    chain,
    owner: set.session,
    contract: set.contract,
    device: made.address,
    registry: set.registry,
    keyServer,
    broadcastsUri: `coap://127.0.0.1:${coap}`,
    deviceUri,
    proxyUri,
    httpUri: `http://127.0.0.1:${httpPort}`,
    ca: set.ca,
    password: set.password,
    configs,
  }
}

export async function startDaemons(tree: ProcessTree, configs: Stage['configs']): Promise<void> {
  await tree.daemon('iotchain-keyserver', ['run', '--config', configs.keyserver])
  await Promise.all([
    tree.daemon('iotchain-proxy', ['run', '--config', configs.proxy]),
    tree.daemon('iotchain-device', ['run', '--config', configs.device]),
  ])
}

/** A client's own view of the chain. */
export function readerOf(stage: Stage): ChainReader {
  return new ChainReader({
    rpc: new JsonRpc({ url: stage.chain.url }),
    chainId: stage.chain.chainId,
    registry: stage.registry,
    confirmations: CONFIRMATIONS,
  })
}

/** JSON is YAML. */
async function config(file: string, content: object): Promise<string> {
  await writeFile(file, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 })
  return file
}
