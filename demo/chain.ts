/** The chain of the demo: anvil from npm, a block a second. */
import { startAnvil } from '../tools/anvil.ts'
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

export async function startChain(tree: ProcessTree): Promise<DemoChain> {
  const anvil = await startAnvil({ chainId: CHAIN_ID, blockTimeSeconds: 1 })
  tree.add({ name: 'anvil', pid: anvil.process.pid ?? 0, stop: () => anvil.stop() })
  const [ownerKey, a, b, spareKey] = anvil.keys as readonly [string, string, string, string]
  return { what: 'anvil', url: anvil.url, chainId: anvil.chainId, ownerKey, clientKeys: [a, b], spareKey }
}
