/** What an address may read according to the chain: its tokens in the contracts of every device that it has to do with. */
import { bitsOf } from '../chain/rule.ts'
import type { ChainView } from '../chain/view.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { ClientState, MembershipRecord } from './state.ts'

export interface Holding {
  readonly client: Address
  readonly device: Address
  readonly contract: Address
  readonly bits: readonly number[]
  /** unix seconds */
  readonly expiresAt: number
  /** `ended`: expired; `revoked`: it was there once; `good`: it stands (confirmations are the key server's affair). */
  readonly standing: 'good' | 'ended' | 'revoked'
  readonly grantBlock: number
}

/**
 * @param memberships what the client has joined
 * @returns one entry for each contract in which the client ever had a token
 * @throws `chain/…`
 */
export async function holdingsOf(
  chain: ChainView,
  state: ClientState,
  client: Address,
  memberships: readonly MembershipRecord[],
): Promise<Holding[]> {
  const requests = await state.requests(client)
  const devices = [...new Set([...memberships.map((m) => m.device), ...requests.map((r) => r.device)])].sort()
  if (devices.length === 0) return []
  return chain.atHead(async (head) => {
    const entries = await chain.devicesOf(devices, head)
    const holdings: Holding[] = []
    for (const [i, device] of devices.entries()) {
      const asked = requests.filter((r) => r.device === device).map((r) => r.contract)
      const contracts = [...new Set([...(entries[i]?.contracts ?? []), ...asked])]
      for (const contract of contracts) {
        const [token] = await chain.tokensOf(contract, device, [client], head)
        if (token === undefined || token.serial === 0) continue
        const standing = token.expiresAt === 0 ? 'revoked' : token.expiresAt <= head.timestamp ? 'ended' : 'good'
        const { expiresAt, grantBlock } = token
        holdings.push({ client, device, contract, bits: bitsOf(token.claims), expiresAt, standing, grantBlock })
      }
    }
    return holdings
  })
}
