/** The chain of the demo: anvil from npm or, when asked for, real geth in development mode; a block a second. */
import { startAnvil } from '../tools/anvil.ts'
import { startGethDev } from '../tools/geth-dev.ts'
import type { ProcessTree } from './processes.ts'

export const CHAIN_ID = 20_180_415

export interface DemoChain {
  readonly what: string
  readonly url: string
  readonly chainId: number
  /** private keys of accounts that own test ether */
  readonly ownerKey: string
  readonly clientKeys: readonly [string, string]
  /** for whoever plays after the story */
  readonly spareKey: string
}

export type ChainKind = 'anvil' | 'geth'

/** @throws `chain/unreachable` where the program is missing */
export async function startChain(tree: ProcessTree, what: ChainKind = 'anvil'): Promise<DemoChain> {
  const start = what === 'geth' ? startGethDev : startAnvil
  const chain = await start({ chainId: CHAIN_ID, blockTimeSeconds: 1 })
  tree.add({ name: what, pid: chain.process.pid ?? 0, stop: () => chain.stop() })
  const [ownerKey, a, b, spareKey] = chain.keys as readonly [string, string, string, string]
  return { what, url: chain.url, chainId: chain.chainId, ownerKey, clientKeys: [a, b], spareKey }
}
