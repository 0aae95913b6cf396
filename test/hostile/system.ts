/**
 * What is attacked: the key server, the device and the proxy of the demo's set-up, with their ports on the address that
 * the outer namespace reaches, and a bare server on the engine with the resources that the daemons do not have.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from '#crypto'
import { CHAIN_ID, startChain } from '../../demo/chain.ts'
import { ProcessTree } from '../../demo/processes.ts'
import { READERS, type Stage, setUpDaemons, setUpOwner } from '../../demo/stage.ts'
import { toHex } from '../../protocol/bytes.ts'
import { gidOf } from '../../protocol/groups/gid.ts'
import { addressBytes } from '../../protocol/messages/address.ts'
import { dial } from '../../transport/dial.ts'
import { DaemonProcess } from './daemon-process.ts'

export interface Target {
  /** Column of the table. */
  readonly name: string
  readonly daemon: DaemonProcess
  readonly port: number
  readonly secure: boolean
  /** Anybody may GET this: a reading, a broadcast. On coaps `/.well-known/core`. */
  readonly readPath: string
  readonly observable: boolean
  /** Where an upload is thrown. */
  readonly uploadPath: string
}

export interface System {
  readonly folder: string
  readonly targets: readonly Target[]
  readonly daemons: readonly DaemonProcess[]
  /** PEM file of the root that the key server's certificate chains to. */
  readonly caFile: string
  stop(): Promise<void>
}

const portOf = (uri: string): number => Number(/:(\d+)$/.exec(uri)?.[1])

/** The demo's configurations listen on loopback; here on every address of the namespace. */
function widen(configs: Stage['configs']): void {
  for (const file of Object.values(configs)) {
    const text = readFileSync(file, 'utf8')
    const config = JSON.parse(text) as {
      listen?: { coaps: string; coap: string }
      device?: { listen: string }
      coap?: { host: string }
    }
    if (config.listen !== undefined) {
      config.listen.coaps = config.listen.coaps.replace('127.0.0.1', '0.0.0.0')
      config.listen.coap = config.listen.coap.replace('127.0.0.1', '0.0.0.0')
    }
    if (config.device !== undefined) config.device.listen = config.device.listen.replace('127.0.0.1', '0.0.0.0')
    if (config.coap !== undefined) config.coap.host = '0.0.0.0'
    writeFileSync(file, JSON.stringify(config, null, 2))
  }
}

/** Waits until `path` is served. @throws Error with what was answered last */
async function served(uri: string, path: string, patienceMs: number): Promise<void> {
  const client = await dial(uri)
  let last = 'nothing'
  try {
    for (const end = performance.now() + patienceMs; performance.now() < end; await delay(300)) {
      try {
        const response = await client.get(path, { timeoutMs: 3000 })
        if (response.ok) return
        last = response.codeText
      } catch (error) {
        last = error instanceof Error ? error.message : String(error)
      }
    }
  } finally {
    await client.close()
  }
  throw new Error(`${uri}${path} is not served: ${last}`)
}

/** @throws Error when something does not come up */
export async function startSystem(): Promise<System> {
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-hostile-'))
  const tree = new ProcessTree()
  const daemons: DaemonProcess[] = []
  const stop = async (): Promise<void> => {
    for (const daemon of [...daemons].reverse()) await daemon.stop()
    await tree.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const chain = await startChain(tree)
    const stage = await setUpDaemons(folder, chain, await setUpOwner(folder, chain))
    widen(stage.configs)
    const start = async (name: string, config: string): Promise<DaemonProcess> => {
      const daemon = await DaemonProcess.start(name, config)
      daemons.push(daemon)
      return daemon
    }
    const keyserver = await start('iotchain-keyserver', stage.configs.keyserver)
    const proxy = await start('iotchain-proxy', stage.configs.proxy)
    const device = await start('iotchain-device', stage.configs.device)
    const bare = await DaemonProcess.program('bare-server', [])
    daemons.push(bare)
    const group = toHex(
      gidOf(suite, {
        chainId: CHAIN_ID,
        registry: addressBytes(stage.registry),
        device: addressBytes(stage.device),
        bit: READERS,
      }),
    )
    const readings = `/d/${stage.device}/s/host`
    await served(stage.deviceUri, '/s/host', 40_000)
    await served(stage.proxyUri, readings, 20_000)
    await served(stage.broadcastsUri, `/bc/${group}`, 10_000)
    const plain = { secure: false, observable: true }
    return {
      folder,
      daemons,
      caFile: stage.ca.root,
      stop,
      targets: [
        {
          name: 'device',
          daemon: device,
          port: portOf(stage.deviceUri),
          readPath: '/s/host',
          uploadPath: '/s/host',
          ...plain,
        },
        {
          name: 'key server',
          daemon: keyserver,
          port: portOf(stage.broadcastsUri),
          readPath: `/bc/${group}`,
          uploadPath: '/authz-info',
          ...plain,
        },
        {
          name: 'proxy',
          daemon: proxy,
          port: portOf(stage.proxyUri),
          readPath: readings,
          uploadPath: readings,
          ...plain,
        },
        { name: 'engine', daemon: bare, port: bare.port, readPath: '/reading', uploadPath: '/store', ...plain },
        {
          name: 'key server, DTLS',
          daemon: keyserver,
          port: portOf(stage.keyServer.uri),
          secure: true,
          readPath: '/.well-known/core',
          observable: false,
          uploadPath: '/authz-info',
        },
      ],
    }
  } catch (error) {
    await stop()
    throw error
  }
}
