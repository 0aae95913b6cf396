/** Renewal of tokens before they end, so that the membership goes on without a gap. */
import { type Holding, holdingsOf } from '../../client/holdings.ts'
import type { RequestRecord } from '../../client/state.ts'
import { isIotchainError } from '../../protocol/errors.ts'
import { parseDuration } from '../../runtime/duration.ts'
import { timeText } from '../terminal/reading.ts'
import { askFor, parseWei } from './asking.ts'
import type { ClientSession } from './client-session.ts'
import { sleep } from './joining.ts'

export interface RenewOptions {
  readonly ahead?: string
  readonly pay?: string
  readonly keep?: boolean
}

interface Due {
  readonly holding: Holding
  readonly request: RequestRecord
  /** unix seconds: to be renewed at the latest then */
  readonly at: number
}

const DEFAULT_SESSION_SECONDS = 900
const MAX_PAUSE_MS = 60_000

/** Renews what is due; with `keep` stays and does so for ever. */
export async function renewDue(session: ClientSession, options: RenewOptions): Promise<void> {
  const { ctx } = session
  const ahead = parseDuration(options.ahead ?? '0s') / 1000
  const pay = parseWei(options.pay ?? '0')
  let renewed = 0
  let failure: unknown
  do {
    const plan = await planRenewals(session, ahead)
    const now = Date.now() / 1000
    for (const { holding, request, at } of plan) {
      if (at > now) continue
      ctx.out.note(`renewing ${holding.device} (ends ${timeText(holding.expiresAt)})`)
      try {
        const { token } = await askFor(session, {
          client: request.client,
          contract: request.contract,
          offer: request.offer,
          ttlSeconds: request.ttlSeconds,
          payAtMost: pay,
          shown: request.shown ?? {},
          confirmations: 0,
          relayed: request.relayed,
        })
        renewed++
        ctx.out.result(
          { device: holding.device, contract: holding.contract, expiresAt: token.expiresAt },
          `${holding.device}: until ${timeText(token.expiresAt)}`,
        )
      } catch (error) {
        // the others are renewed all the same
        if (!isIotchainError(error)) throw error
        failure ??= error
        ctx.out.warn(`${holding.device} was not renewed: ${error.message}`)
      }
    }
    if (options.keep !== true) {
      if (failure !== undefined) throw failure
      if (renewed === 0) ctx.out.note(nothingDue(plan))
      return
    }
    const next = Math.min(...plan.map((p) => p.at * 1000 - Date.now()), MAX_PAUSE_MS)
    await sleep(Math.max(1000, next), ctx.signal)
  } while (!ctx.signal.aborted)
}

/**
 * A renewal counts only when it is n blocks deep, and the key server looks once a session: so it is sent at least n
 * blocks and two sessions before the token ends.
 */
async function planRenewals(session: ClientSession, ahead: number): Promise<Due[]> {
  const { reader, rpc } = await session.chain()
  const { config, state, home, options } = session
  const blockSeconds = await averageBlockSeconds(rpc)
  const plan: Due[] = []
  for (const address of options.key === undefined ? home.addresses() : [session.address]) {
    const memberships = await state.memberships(address)
    const holdings = await holdingsOf(reader, state, address, memberships)
    for (const request of await state.requests(address)) {
      const holding = holdings.find((h) => h.contract === request.contract && h.device === request.device)
      if (holding === undefined || holding.standing !== 'good') continue
      const lengths = memberships.filter((m) => m.device === request.device).map((m) => m.policies.sessionSeconds)
      const session = lengths.length === 0 ? DEFAULT_SESSION_SECONDS : Math.max(...lengths)
      const margin = config.confirmations * blockSeconds + 2 * session
      plan.push({ holding, request, at: holding.expiresAt - margin - ahead })
    }
  }
  return plan.sort((a, b) => a.at - b.at)
}

async function averageBlockSeconds(rpc: {
  call<T>(method: string, params?: readonly unknown[]): Promise<T>
}): Promise<number> {
  type Block = { number: string; timestamp: string } | null
  const newest = await rpc.call<Block>('eth_getBlockByNumber', ['latest', false])
  if (newest === null) return 12
  const back = Math.min(Number(newest.number), 32)
  if (back === 0) return 12
  const older = await rpc.call<Block>('eth_getBlockByNumber', [
    `0x${(Number(newest.number) - back).toString(16)}`,
    false,
  ])
  return older === null ? 12 : Math.max(1, (Number(newest.timestamp) - Number(older.timestamp)) / back)
}

function nothingDue(plan: readonly Due[]): string {
  const [first] = plan
  if (first === undefined) return 'there is no token to renew'
  return `nothing is due; the first renewal is due at ${timeText(Math.floor(first.at))}`
}
