/** The Nodes that one built binding must serve: the one that runs the suite, and the others as npm packages. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Arch, NODE_VERSION, nodeRuntime } from '../../tools/package/node-runtime.ts'
import { cacheFolder, once, PeerMissing } from './install.ts'

export const NODE_VERSIONS = {
  'node-20': '20.20.2',
  'node-22': '22.23.5',
  'node-24': NODE_VERSION,
  'node-26': '26.12.1',
} as const
export type NodeName = keyof typeof NODE_VERSIONS
export const NODE_NAMES = Object.keys(NODE_VERSIONS) as NodeName[]

export interface OtherNode {
  readonly name: NodeName
  readonly version: string
  readonly path: string
}

const ARCHITECTURES: Readonly<Record<string, Arch>> = { x64: 'amd64', arm64: 'arm64' }

/** @throws PeerMissing */
export async function findNode(name: NodeName): Promise<OtherNode> {
  const version = NODE_VERSIONS[name]
  if (process.version.split('.')[0] === `v${version.split('.')[0]}`) {
    return { name, version: process.version.slice(1), path: process.execPath }
  }
  const arch = ARCHITECTURES[process.arch]
  if (process.platform !== 'linux' || arch === undefined) {
    throw new PeerMissing(`npm has no Node ${version} for ${process.platform} on ${process.arch}`)
  }
  const path = await once(`node-${version}`, async () => {
    const folder = await nodeRuntime(arch, cacheFolder(), version).catch((error: Error) => {
      throw new PeerMissing(`Node ${version} cannot be had: ${error.message.split('\n')[0]}`)
    })
    return join(folder, 'bin', 'node')
  })
  const said = await promisify(execFile)(path, ['--version']).catch((error: Error) => {
    throw new PeerMissing(`Node ${version} does not run here: ${error.message.split('\n')[0]}`)
  })
  return { name, version: said.stdout.trim().slice(1), path }
}
