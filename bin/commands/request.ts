/** `iotchain request` and `iotchain offers`: what a device's owner offers, and asking for it. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { Condition, Offer } from '../../chain/offers.ts'
import { bitsOf } from '../../chain/rule.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Address, parseAddress } from '../../protocol/messages/address.ts'
import { formatDuration, parseDuration } from '../../runtime/duration.ts'
import { action } from '../terminal/command.ts'
import { timeText } from '../terminal/reading.ts'
import { askFor, parseWei } from './asking.ts'
import { type ClientOptions, type ClientSession, withClient } from './client-session.ts'
import { absolute } from './evidence.ts'
import { wholeNumber } from './init.ts'
import { joinGroup } from './joining.ts'
import { createKey } from './wallet-keys.ts'

interface RequestOptions extends ClientOptions {
  readonly contract?: string
  readonly offer?: string
  readonly ttl?: string
  readonly pay?: string
  readonly list?: string
  readonly attestation?: string
  readonly confirmations?: string
  readonly join?: boolean
  readonly fresh?: boolean
  readonly light?: boolean
  readonly patience?: string
  readonly raiseFee?: boolean
}

/** What is on offer for a device, and what each offer wants of this client. */
export interface OfferLine {
  readonly offer: Offer
  readonly condition: Condition | undefined
}

export function registerRequest(program: Command): void {
  program
    .command('offers <device>')
    .description('what the owner of a device offers to clients, and on which conditions')
    .option('--key <address>', 'which of the keys asks')
    .action(
      action<ClientOptions, [string]>((ctx, options, text) =>
        withClient(ctx, options, async (session) => {
          const { describeCondition } = await import('../../chain/offers.ts')
          const lines = await offersFor(session, parseAddress(text))
          ctx.out.result(
            lines.map(({ offer, condition }) => ({
              ...offer,
              bits: bitsOf(offer.claims),
              condition: condition === undefined ? undefined : describeCondition(condition),
            })),
            lines.length === 0
              ? 'nothing is offered'
              : lines
                  .map(
                    ({ offer, condition }) =>
                      `${offerText(offer)}: ${condition === undefined ? '' : describeCondition(condition)}`,
                  )
                  .join('\n'),
          )
        }),
      ),
    )
  program
    .command('request <device>')
    .description('ask for a token: checks who offers it, solves the puzzle or pays, waits for confirmations')
    .option('--contract <address>', 'AccessToken contract (default: the one that the registry names)')
    .option('--offer <n>', 'which offer (default: the only open one)')
    .option('--ttl <duration>', 'for how long (default: as long as the offer allows)')
    .option('--pay <wei>', 'spend at most so much', '0')
    .option('--list <file>', 'addresses of an allowlist, one a line')
    .option('--attestation <file-or-url>', 'an attestation: JSON {issuer, expiresAt, signature}')
    .option('--confirmations <n>', 'blocks to wait for (default: as in config.yaml)')
    .option('--patience <duration>', 'how long the transaction may take to be mined', '5m')
    .option('--raise-fee', 'the same request again: send what is not mined yet once more, with a higher fee')
    .option('--join', 'then become a member of the groups that the token names')
    .option('--fresh', 'with a new address that owns nothing: the key server’s relay pays the transaction')
    .option('--light', 'with --fresh: spend little on encrypting the key, for development chains')
    .option('--key <address>', 'which of the keys asks')
    .option('--key-server <uri>', 'with --join: coaps:// address of the key server (default: from the registry)')
    .action(
      action<RequestOptions, [string]>((ctx, options, text) =>
        withClient(ctx, options, (session) => request(session, options, parseAddress(text))),
      ),
    )
}

async function request(session: ClientSession, options: RequestOptions, device: Address): Promise<void> {
  const { ctx, config } = session
  if (options.fresh === true && options.key !== undefined) {
    throw new IotchainError('client/bad-number', '--fresh makes a key, --key names one')
  }
  const offer = await chooseOffer(session, options, device)
  if (options.fresh === true) await useFreshKey(session, options, offer)
  const payAtMost = parseWei(options.pay ?? '0')
  const shown = {
    list: options.list === undefined ? undefined : resolve(options.list),
    attestation: options.attestation === undefined ? undefined : absolute(options.attestation),
  }
  ctx.out.note(`asking for ${offerText(offer)} as ${session.address}`)
  const granted = await askFor(session, {
    client: session.address,
    contract: offer.contract,
    offer: offer.id,
    relayed: options.fresh === true,
    ttlSeconds: options.ttl === undefined ? undefined : Math.floor(parseDuration(options.ttl) / 1000),
    payAtMost,
    shown,
    patienceSeconds: options.patience === undefined ? undefined : parseDuration(options.patience) / 1000,
    raiseFee: options.raiseFee,
    confirmations:
      options.confirmations === undefined
        ? config.confirmations
        : wholeNumber(options.confirmations, '--confirmations'),
  })
  const { token, transaction } = granted
  const bits = bitsOf(token.claims)
  ctx.out.result(
    {
      device,
      contract: offer.contract,
      client: session.address,
      bits,
      expiresAt: token.expiresAt,
      transaction,
      feeWei: granted.fee,
      paidWei: granted.paid,
    },
    `token for bit${bits.length === 1 ? '' : 's'} ${bits.join(', ')} of ${device} until ${timeText(token.expiresAt)}`,
  )
  if (options.join !== true) return
  for (const bit of bits) await joinGroup(session, { device, bit })
  ctx.out.note(`member of ${bits.length === 1 ? 'its group' : `${bits.length} groups`}`)
}

/** A new address, unless one was made for this request and the request was cut off: then that. */
async function useFreshKey(session: ClientSession, options: RequestOptions, offer: Offer): Promise<void> {
  const { ctx, state, home } = session
  const { contract, id } = offer
  const own = home.addresses()
  const before = (await state.relayRecords(contract, id)).find((r) => r.fresh && own.includes(r.client))
  if (before !== undefined) {
    ctx.out.note(`going on with ${before.client}, which was made for this before`)
    session.useAddress(before.client)
    return
  }
  const account = await createKey(ctx, options.light === true)
  session.useAccount(account)
  await state.saveRelayRecord({ client: account.address, contract, offer: id, fresh: true })
}

/** @throws `client/unregistered-device`, `client/no-offer`, `client/which-offer` */
async function chooseOffer(session: ClientSession, options: RequestOptions, device: Address): Promise<Offer> {
  const contract = options.contract === undefined ? undefined : parseAddress(options.contract)
  if (contract !== undefined) {
    const { checkPublisher } = await import('../../chain/trust.ts')
    const { reader } = await session.chain()
    await reader.atHead((head) => checkPublisher(reader, device, contract, head, session.config.allowContracts))
  }
  const id = options.offer === undefined ? undefined : wholeNumber(options.offer, '--offer')
  const all = (await offersFor(session, device, contract)).map((l) => l.offer)
  const open = all.filter((o) => (id === undefined ? o.active : o.id === id))
  const [only, another] = open
  if (only === undefined) {
    if (id !== undefined) await refuseOtherDevice(session, device, contract, id)
    throw new IotchainError('client/no-offer', `nothing of that kind is offered for ${device}`, {
      hint: '`iotchain offers DEVICE` shows what there is; the owner may also grant a token directly',
    })
  }
  if (another !== undefined) {
    const list = open.map((o) => `--contract ${o.contract} --offer ${o.id}`).join(' or ')
    throw new IotchainError('client/which-offer', `there are ${open.length} offers for ${device}`, {
      hint: `choose ${list}`,
    })
  }
  return only
}

/** One contract may serve several devices: an offer for another one gives no right to this one. */
async function refuseOtherDevice(
  session: ClientSession,
  device: Address,
  contract: Address | undefined,
  id: number,
): Promise<void> {
  const { offersOf } = await import('../../chain/offers.ts')
  const { reader } = await session.chain()
  const contracts =
    contract === undefined ? (await (await session.registry()).activeEntry(device)).contracts : [contract]
  const all = await reader.atHead((head) => Promise.all(contracts.map((c) => offersOf(reader, c, head))))
  const other = all.flat().find((o) => o.id === id)
  if (other === undefined) return
  throw new IotchainError(
    'client/no-offer',
    `offer ${id} of ${other.contract} is for device ${other.resource}: a token of it opens nothing of ${device}`,
    { hint: `\`iotchain offers ${device}\` shows what there is for this device` },
  )
}

/** The offers for a device in the contracts that its owner has put into the registry. */
export async function offersFor(session: ClientSession, device: Address, contract?: Address): Promise<OfferLine[]> {
  const { offersOf, conditionOf } = await import('../../chain/offers.ts')
  const { reader } = await session.chain()
  const entry = await (await session.registry()).activeEntry(device)
  const contracts = contract === undefined ? entry.contracts : [contract]
  const own = session.home.addresses()
  const client = own.length === 1 || session.options.key !== undefined ? session.address : own[0]
  return reader.atHead(async (head) => {
    const lines: OfferLine[] = []
    for (const c of contracts) {
      for (const offer of await offersOf(reader, c, head)) {
        if (offer.resource !== device) continue
        const ask = { client: client ?? device, offer, ttlSeconds: offer.maxTtlSeconds, caller: client ?? device }
        lines.push({ offer, condition: await conditionOf(reader, ask, head) })
      }
    }
    return lines
  })
}

function offerText(offer: Offer): string {
  const bits = bitsOf(offer.claims)
  const closed = offer.active ? '' : ' (closed)'
  const most = formatDuration(offer.maxTtlSeconds * 1000)
  return `offer ${offer.id} of ${offer.contract}${closed}: bit${bits.length === 1 ? '' : 's'} ${bits.join(', ')}, at most ${most}`
}
