/** Asking the chain for a token: by the client's own transaction, or through the key server's relay. */
import type { Evidence } from '../../chain/evidence.ts'
import type { Token } from '../../chain/types.ts'
import type { RelayKeeper, RelayRecord } from '../../client/relay-record.ts'
import type { RelayProgress } from '../../client/relayed-request.ts'
import type { ShownEvidence } from '../../client/state.ts'
import { IotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { systemClock } from '../../runtime/clock.ts'
import type { ClientSession } from './client-session.ts'
import { readAllowlist, readAttestation } from './evidence.ts'

export interface Asking {
  /** Which of the keys asks. */
  readonly client: Address
  readonly contract: Address
  readonly offer: number
  readonly ttlSeconds: number | undefined
  /** wei, or units of the currency of the offer */
  readonly payAtMost: bigint
  readonly shown: ShownEvidence
  readonly confirmations: number
  /** The key server's relay pays the transaction. */
  readonly relayed: boolean
  /** how long a transaction may take to be mined */
  readonly patienceSeconds?: number | undefined
  readonly raiseFee?: boolean | undefined
}

export interface Granted {
  readonly token: Token
  readonly device: Address
  readonly transaction: string | undefined
  /** wei; of one's own transaction */
  readonly fee?: bigint
  readonly paid?: bigint
}

/**
 * Sends the request with progress; goes on with one that was cut off. What was asked for is kept before it counts as
 * done, so that it can be renewed in the same way.
 */
export function askFor(session: ClientSession, asking: Asking): Promise<Granted> {
  return asking.relayed ? throughRelay(session, asking) : byOwnTransaction(session, asking)
}

async function evidenceOf({ client, payAtMost, shown }: Asking): Promise<Evidence> {
  return {
    payAtMost,
    list: shown.list === undefined ? undefined : await readAllowlist(shown.list),
    attestation: shown.attestation === undefined ? undefined : await readAttestation(shown.attestation, client),
  }
}

async function remember(session: ClientSession, asking: Asking, device: Address, token: Token): Promise<void> {
  await session.state.saveRequest({
    client: asking.client,
    device,
    contract: asking.contract,
    offer: asking.offer,
    ttlSeconds: asking.ttlSeconds ?? token.expiresAt - token.issuedAt,
    relayed: asking.relayed,
    requestedAt: token.issuedAt,
    shown: asking.shown,
  })
}

async function byOwnTransaction(session: ClientSession, asking: Asking): Promise<Granted> {
  const { ctx, config } = session
  const [{ requestToken }, { TransactionSender }] = await Promise.all([
    import('../../chain/request.ts'),
    import('../../chain/sender.ts'),
  ])
  const { reader, rpc } = await session.chain()
  const { patienceSeconds, raiseFee = false } = asking
  const sender = new TransactionSender({
    rpc,
    chainId: config.chainId,
    account: await session.account(asking.client),
    ...(patienceSeconds !== undefined && { patienceSeconds }),
  })
  const { token, device, receipt, paid } = await requestToken({
    reader,
    sender,
    contract: asking.contract,
    offer: asking.offer,
    ttlSeconds: asking.ttlSeconds,
    evidence: await evidenceOf(asking),
    confirmations: asking.confirmations,
    allowContracts: config.allowContracts,
    journal: {
      open: (step) => session.state.openTransaction(asking, step),
      signed: (step, transaction) => session.state.keepTransaction(asking, step, transaction),
      closed: (step) => session.state.keepTransaction(asking, step, undefined),
    },
    raiseFee,
    onGranted: (granted) => remember(session, asking, granted.device, granted.token),
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
      evidence: await evidenceOf(asking),
      confirmations: asking.confirmations,
      allowContracts: config.allowContracts,
      keeper: relayKeeper(session, asking),
      onGranted: (granted) => remember(session, asking, offer.resource, granted),
      onProgress: (p) => ctx.out.progress(progressText(p)),
      signal: ctx.signal,
    })
    return { token, device: offer.resource, transaction }
  } finally {
    await association.close()
  }
}

function relayKeeper(session: ClientSession, asking: Asking): RelayKeeper {
  const { client, contract, offer } = asking
  const { state } = session
  const load = async (): Promise<RelayRecord | undefined> =>
    (await state.relayRecords(contract, offer)).find((r) => r.client === client)
  return {
    load,
    save: async (change) => {
      const { fresh = false } = (await load()) ?? {}
      await state.saveRelayRecord({ client, contract, offer, fresh, ...change })
    },
    clear: () => state.removeRelayRecord(asking),
  }
}

function progressText(p: RelayProgress): string {
  switch (p.phase) {
    case 'relay-puzzle':
      return `solving the relay's puzzle: ${p.tried} tries, about ${p.expected} expected`
    case 'puzzle':
      return `solving the puzzle: ${p.tried} tries, about ${p.expected} expected`
    case 'puzzle-lost':
      return `a reorganisation took block ${p.block} that the puzzle is bound to: solving it again (${p.attempt + 1} of ${p.of})`
    case 'resumed':
      return 'an earlier request that was cut off is on its way: going on with it'
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
