/** Who was granted what, when, by whom and by which transaction, and who can read now. From events, checked against state. */
import { accessToken, deviceRegistry } from '../chain/contracts.ts'
import { type Log, scanLogs } from '../chain/logs.ts'
import { bitsOf } from '../chain/rule.ts'
import type { DeviceEntry, Head, Hex, Token } from '../chain/types.ts'
import { toHex } from '../protocol/bytes.ts'
import type { Address } from '../protocol/messages/address.ts'
import { addressBytes } from '../protocol/messages/address.ts'
import type { OwnerSession } from './session.ts'

export interface AuditEvent {
  readonly kind: 'granted' | 'revoked' | 'barred'
  readonly contract: Address
  readonly client: Address
  readonly device: Address
  readonly block: number
  /** unix seconds of the block */
  readonly at: number
  readonly transaction: Hex
  /** the account that sent the transaction */
  readonly by: Address
  /** of a grant: the offer it came by; undefined: an authorization server's own decision */
  readonly offer?: number | undefined
  readonly bits?: readonly number[] | undefined
  /** unix seconds: end of the grant, or of the bar */
  readonly until?: number | undefined
}

export interface Reader {
  readonly contract: Address
  readonly client: Address
  readonly device: Address
  readonly token: Token
  readonly bits: readonly number[]
  /** Why it opens nothing although it is in force; undefined: it opens the device. */
  readonly idle: string | undefined
}

export interface Audit {
  readonly head: Head
  readonly events: readonly AuditEvent[]
  /** Tokens in force at `head`: who still can read, and who could if their contract counted. */
  readonly readers: readonly Reader[]
}

/** Events that are looked at together. */
const CHUNK = 200

const NO_OFFER = 0xffffffff

/** @param onProgress the last block that was looked at */
export async function audit(
  session: OwnerSession,
  contracts: readonly Address[],
  onProgress?: (block: number, of: number) => void,
): Promise<Audit> {
  const reader = session.reader()
  const head = await reader.head()
  const topics = [['TokenGranted', 'TokenRevoked', 'ClientBarred'].map((name) => accessToken.topic(name))]
  const logs =
    contracts.length === 0
      ? []
      : await scanLogs(session.rpc, { addresses: contracts, topics, fromBlock: 0, toBlock: head.number }, (block) =>
          onProgress?.(block, head.number),
        )
  const events: AuditEvent[] = []
  const lookUp = lookUps(session)
  for (let at = 0; at < logs.length; at += CHUNK) {
    events.push(...(await Promise.all(logs.slice(at, at + CHUNK).map((log) => eventOf(lookUp, log)))))
  }
  return { head, events, readers: await readersOf(session, events, head) }
}

/** Who sent a transaction and when a block was made, each asked once: grants in bulk share both. */
function lookUps(session: OwnerSession) {
  const known = new Map<Hex, Promise<unknown>>()
  return <T>(method: string, hash: Hex, ...rest: unknown[]): Promise<T> => {
    const found = known.get(hash) ?? session.rpc.call<T>(method, [hash, ...rest])
    known.set(hash, found)
    return found as Promise<T>
  }
}

async function eventOf(lookUp: ReturnType<typeof lookUps>, log: Log): Promise<AuditEvent> {
  const { name, args } = accessToken.decodeLog(log.topics, log.data) as { name: string; args: Record<string, unknown> }
  const [transaction, block] = await Promise.all([
    lookUp<{ from: string }>('eth_getTransactionByHash', log.transaction),
    lookUp<{ timestamp: Hex }>('eth_getBlockByHash', log.blockHash, false),
  ])
  const base = {
    contract: log.address,
    client: args['client'] as Address,
    device: args['resource'] as Address,
    block: log.block,
    at: Number(block.timestamp),
    transaction: log.transaction,
    by: transaction.from.toLowerCase() as Address,
  }
  if (name === 'TokenRevoked') return { kind: 'revoked', ...base }
  if (name === 'ClientBarred') return { kind: 'barred', ...base, until: Number(args['until']) }
  const offer = Number(args['offer'])
  return {
    kind: 'granted',
    ...base,
    offer: offer === NO_OFFER ? undefined : offer,
    bits: bitsOf(Number(args['claims'])),
    until: Number(args['expiresAt']),
  }
}

/** Events only say whom to look at; the tokens come from the state. */
async function readersOf(session: OwnerSession, events: readonly AuditEvent[], head: Head): Promise<Reader[]> {
  const reader = session.reader()
  const groups = new Map<string, { contract: Address; device: Address; clients: Set<Address> }>()
  for (const { contract, device, client, kind } of events) {
    if (kind !== 'granted') continue
    const key = `${contract} ${device}`
    const group = groups.get(key) ?? { contract, device, clients: new Set() }
    group.clients.add(client)
    groups.set(key, group)
  }
  const devices = [...new Set([...groups.values()].map((g) => g.device))]
  const entries = new Map((await reader.devicesOf(devices, head)).map((entry, i) => [devices[i] as Address, entry]))
  const found: Reader[] = []
  for (const { contract, device, clients } of groups.values()) {
    const list = [...clients]
    const idle = idleBecause(entries.get(device), contract)
    const tokens = await reader.tokensOf(contract, device, list, head)
    tokens.forEach((token, i) => {
      if (token.expiresAt > head.timestamp) {
        found.push({ contract, device, client: list[i] as Address, token, bits: bitsOf(token.claims), idle })
      }
    })
  }
  return found
}

function idleBecause(entry: DeviceEntry | undefined, contract: Address): string | undefined {
  if (entry === undefined) return 'the device is not registered'
  if (!entry.active) return 'the device is out of service'
  return entry.contracts.includes(contract) ? undefined : 'the device does not name this contract'
}

/** Contracts to look at: those that this owner has deployed, and those that its devices name. */
export async function contractsOfOwner(session: OwnerSession): Promise<Address[]> {
  const own = Object.values(session.folder.standing().contracts)
  const devices = await devicesOfOwner(session)
  return [...new Set([...own, ...devices.flatMap((d) => d.contracts)])]
}

/** The devices that are this owner's now. */
export async function devicesOfOwner(session: OwnerSession): Promise<DeviceEntry[]> {
  const reader = session.reader()
  const head = await reader.head()
  const owner: Hex = `0x${'00'.repeat(12)}${toHex(addressBytes(session.account.address))}`
  const topics = [['DeviceRegistered', 'DeviceTransferred'].map((name) => deviceRegistry.topic(name)), null, owner]
  const logs = await scanLogs(session.rpc, {
    addresses: [session.registry],
    topics,
    fromBlock: 0,
    toBlock: head.number,
  })
  const devices = [...new Set(logs.map((l) => `0x${(l.topics[1] as string).slice(26)}` as Address))]
  const entries = await reader.devicesOf(devices, head)
  return entries.filter((e): e is DeviceEntry => e !== undefined && e.owner === session.account.address)
}
