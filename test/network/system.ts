/**
 * The daemons on the hosts of the LANs. Broadcasts reach the device by multicast alone: where the key server says that
 * they can be fetched, nobody is. The second device is in no group, and there to be discovered.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from '#crypto'
import { CHAIN_ID, startChain } from '../../demo/chain.ts'
import { ProcessTree, runToEnd } from '../../demo/processes.ts'
import { READERS, type Stage, setUpDaemons, setUpOwner } from '../../demo/stage.ts'
import { issueForDevice } from '../../owner/authority.ts'
import { toHex } from '../../protocol/bytes.ts'
import { gidOf } from '../../protocol/groups/gid.ts'
import { type Address, addressBytes } from '../../protocol/messages/address.ts'
import { DaemonProcess } from '../hostile/daemon-process.ts'
import { inside } from '../hostile/namespaces.ts'
import { addressOf, type Lan, NOBODY } from './lan.ts'

export class System {
  readonly #lan: Lan
  readonly #tree: ProcessTree
  readonly #stage: Stage
  readonly #second: string
  readonly #running = new Map<string, DaemonProcess>()
  readonly group: string

  private constructor(lan: Lan, tree: ProcessTree, stage: Stage, second: string) {
    this.#lan = lan
    this.#tree = tree
    this.#stage = stage
    this.#second = second
    this.group = toHex(
      gidOf(suite, {
        chainId: CHAIN_ID,
        registry: addressBytes(stage.registry),
        device: addressBytes(stage.device),
        bit: READERS,
      }),
    )
  }

  /** Keys, contracts and configurations; nothing runs yet but the chain. */
  static async prepare(lan: Lan): Promise<System> {
    const folder = await mkdtemp(join(tmpdir(), 'iotchain-network-'))
    const tree = new ProcessTree()
    try {
      const chain = await startChain(tree)
      const owner = await setUpOwner(folder, chain)
      const habitat = { thisHost: addressOf('keyserver'), listen: 'coap://[::]:5683', settings: {} }
      const stage = await setUpDaemons(folder, chain, owner, habitat)
      const made = JSON.parse(
        await runToEnd('iotchain-device', ['init', '--dir', join(folder, 'second'), '--json']),
      ) as {
        address: Address
      }
      const csr = await readFile(join(folder, 'second', 'device.csr'))
      const { chain: certificate } = await issueForDevice(owner.home, owner.password, csr, made)
      await writeFile(join(folder, 'second', 'device.crt'), certificate)
      await writeFile(join(folder, 'second', 'ca.crt'), await readFile(join(folder, 'device', 'ca.crt')))
      await writeFile(join(folder, 'second', 'device.yaml'), await readFile(stage.configs.device), { mode: 0o600 })
      const system = new System(lan, tree, stage, join(folder, 'second', 'device.yaml'))
      system.#spread()
      return system
    } catch (error) {
      await tree.stop()
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
  }

  async start(name: 'keyserver' | 'device' | 'proxy' | 'second'): Promise<DaemonProcess> {
    const config = name === 'second' ? this.#second : this.#stage.configs[name]
    const program = `iotchain-${name === 'second' ? 'device' : name}`
    const daemon = await DaemonProcess.start(program, config, (command) => inside(this.#lan.namespace(name), command))
    this.#running.set(name, daemon)
    return daemon
  }

  async stop(name: 'keyserver' | 'device' | 'proxy' | 'second'): Promise<void> {
    await this.#running.get(name)?.stop()
    this.#running.delete(name)
  }

  async end(): Promise<void> {
    for (const daemon of [...this.#running.values()].reverse()) await daemon.stop()
    await this.#tree.stop()
    rmSync(this.#stage.folder, { recursive: true, force: true })
  }

  /** From one host with everything on loopback to hosts of their own. */
  #spread(): void {
    const { configs } = this.#stage
    edit(configs.keyserver, (config) => {
      const coaps = /:(\d+)$/.exec(String(section(config, 'listen')['coaps']))?.[1]
      config['listen'] = { coaps: `[::]:${coaps}`, coap: '[::]:5683', publicUri: `coap://${NOBODY}` }
      config['multicast'] = { interface: 'eth0' }
    })
    for (const file of [configs.device, this.#second]) {
      edit(file, (config) => {
        const device = section(config, 'device')
        delete device['proxy']
        config['retry'] = { initial: '500ms', max: '2s' }
      })
    }
    edit(configs.proxy, (config) => {
      const [keyServer] = config['keyservers'] as Record<string, unknown>[]
      keyServer!['uri'] = String(keyServer!['uri']).replace('127.0.0.1', addressOf('keyserver'))
      keyServer!['plain'] = `coap://${addressOf('keyserver')}`
      config['coap'] = { host: '::', port: 5683 }
      config['http'] = { listen: 'off' }
    })
  }
}

type Section = Record<string, unknown>

const section = (config: Section, name: string): Section => config[name] as Section

function edit(file: string, change: (config: Section) => void): void {
  const config = JSON.parse(readFileSync(file, 'utf8')) as Section
  change(config)
  writeFileSync(file, JSON.stringify(config, null, 2))
}
