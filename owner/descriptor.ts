/** Makes the chain descriptor of this owner's deployment: what the key servers hold their node against. */
import { keccak256 } from '../chain/account.ts'
import { accessTokenCode } from '../chain/bytecode.ts'
import { type ChainDescriptor, signDescriptor } from '../chain/descriptor.ts'
import { RpcError } from '../chain/rpc.ts'
import type { Hex } from '../chain/types.ts'
import { openOwnerRoot } from './authority.ts'
import type { OwnerSession } from './session.ts'

interface Block {
  readonly number: Hex
  readonly hash: Hex
}

/**
 * Reads genesis, a settled block and the registry's code from the owner's own node, and signs them with the root.
 *
 * @param enodes boot nodes to pin
 */
export async function makeDescriptor(
  session: OwnerSession,
  password: string,
  enodes: readonly string[],
): Promise<{ descriptor: ChainDescriptor; text: string }> {
  const { rpc, registry, config } = session
  const head = await session.reader().head()
  const blockAt = (which: string) => rpc.call<Block | null>('eth_getBlockByNumber', [which, false])
  const [genesis, code, settled] = await Promise.all([
    blockAt('0x0'),
    rpc.call<Hex>('eth_getCode', [registry, 'latest']),
    finalizedOr(blockAt, head.number),
  ])
  const descriptor: ChainDescriptor = {
    chainId: config.chainId,
    genesisHash: (genesis as Block).hash,
    registry,
    codeHashes: { registry: keccak256(code), accessToken: [accessTokenCode.codeHash] },
    enodes,
    checkpoint: { number: Number(settled.number), hash: settled.hash },
  }
  return { descriptor, text: signDescriptor(descriptor, openOwnerRoot(session.folder, password).key) }
}

/** The finalized block; where there is none, one that 128 others stand on; on a young chain the genesis block. */
async function finalizedOr(blockAt: (which: string) => Promise<Block | null>, head: number): Promise<Block> {
  const finalized = await blockAt('finalized').catch((error: unknown) => {
    if (error instanceof RpcError) return null
    throw error
  })
  return finalized ?? ((await blockAt(`0x${Math.max(0, head - 128).toString(16)}`)) as Block)
}
