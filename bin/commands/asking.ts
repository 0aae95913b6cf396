/** Asking the chain for a token: by the client's own transaction, or through the key server's relay. */
import type { Evidence } from '../../chain/request.ts'
import type { Token } from '../../chain/types.ts'
import type { RelayProgress } from '../../client/relayed-request.ts'
import { IotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { systemClock } from '../../runtime/clock.ts'
import type { ClientSession } from './client-session.ts'

export interface Asking {
  /** Which of the keys asks. */
  readonly client: Address
  readonly contract: Address
  readonly offer: number
  readonly ttlSeconds: number | undefined
  readonly evidence: Evidence
  readonly confirmations: number
  /** The key server's relay pays the transaction. */
  readonly relayed: boolean
}

export interface Granted {
  readonly token: Token
  readonly device: Address
  readonly transaction: string
  /** wei; of one's own transaction */
  readonly fee?: bigint
  readonly paid?: bigint
}

/** Sends the request with progress, and keeps what was asked for, so that it can be renewed in the same way. */
export async function askFor(session: ClientSession, asking: Asking): Promise<Granted> {
  const granted = asking.relayed ? await throughRelay(session, asking) : await byOwnTransaction(session, asking)
  const { token } = granted
  await session.state.saveRequest({
    client: asking.client,
    device: granted.device,
    contract: asking.contract,
    offer: asking.offer,
    ttlSeconds: asking.ttlSeconds ?? token.expiresAt - token.issuedAt,
    relayed: asking.relayed,
    requestedAt: token.issuedAt,
  })
  return granted
}

async function byOwnTransaction(session: ClientSession, asking: Asking): Promise<Granted> {
  const { ctx, config } = session
  const [{ requestToken }, { TransactionSender }] = await Promise.all([
    import('../../chain/request.ts'),
    import('../../chain/sender.ts'),
  ])
  const { reader, rpc } = await session.chain()
  const sender = new TransactionSender({ rpc, chainId: config.chainId, account: await session.account(asking.client) })
  const { token, device, receipt, paid } = await requestToken({
    reader,
    sender,
    contract: asking.contract,
    offer: asking.offer,
    ttlSeconds: asking.ttlSeconds,
    evidence: asking.evidence,
    confirmations: asking.confirmations,
    allowContracts: config.allowContracts,
    onProgress: (p) => ctx.out.progress(progressText(p)),
    signal: ctx.signal,
  })
  return { token, device, transaction: receipt.hash, fee: receipt.fee, paid }
}

async function throughRelay(session: ClientSession, asking: Asking): Promise<Granted> {
  const { ctx, config } = session
  const [{ requestThroughRelay }, { offerOf }, { KeyServerSession }] = await Promise.all([
    import('../../client/relayed-request.ts'),
    import('../../chain/offers.ts'),
    import('../../client/keyserver-session.ts'),
  ])
  const { reader, rpc } = await session.chain()
  const offer = await reader.atHead((head) => offerOf(reader, asking.contract, asking.offer, head))
  const keyServer = await session.keyServerOf(offer.resource)
  const association = await KeyServerSession.open(keyServer, config, { clock: systemClock, signal: ctx.signal })
  try {
    const { token, transaction } = await requestThroughRelay({
      session: association,
      reader,
      rpc,
      account: await session.account(asking.client),
      clock: systemClock,
      offer,
      ttlSeconds: asking.ttlSeconds ?? offer.maxTtlSeconds,
      evidence: asking.evidence,
      confirmations: asking.confirmations,
      allowContracts: config.allowContracts,
      onProgress: (p) => ctx.out.progress(progressText(p)),
      signal: ctx.signal,
    })
    return { token, device: offer.resource, transaction }
  } finally {
    await association.close()
  }
}

function progressText(p: RelayProgress): string {
  switch (p.phase) {
    case 'relay-puzzle':
      return `solving the relay's puzzle: ${p.tried} tries, about ${p.expected} expected`
    case 'puzzle':
      return `solving the puzzle: ${p.tried} tries, about ${p.expected} expected`
    case 'allowance':
      return `allowing the payment of ${p.amount} units of ${p.currency}`
    case 'priced':
      return `the transaction costs up to ${p.quote.total} wei`
    case 'signed':
      return 'signed'
    case 'sent':
      return `sent as ${p.hash}, waiting for a block`
    case 'confirming':
      return `in block ${p.block}: ${p.depth} of ${p.of} confirmations`
  }
}

export function parseWei(text: string): bigint {
  if (!/^\d{1,30}$/.test(text)) {
    throw new IotchainError('client/bad-number', `"${text}" is no amount of wei`, {
      hint: 'write a whole number of wei',
    })
  }
  return BigInt(text)
}
