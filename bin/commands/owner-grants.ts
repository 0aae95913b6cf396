/** `iotchain owner grant|revoke|bar|appoint|dismiss|list|audit`: who may read. */
import type { Command } from 'commander'
import { conditionOf, describeCondition, offersOf } from '../../chain/offers.ts'
import { bar, grant, revoke, setRole } from '../../owner/actions.ts'
import { type AuditEvent, audit, contractsOfOwner, devicesOfOwner, type Reader } from '../../owner/audit.ts'
import { readAddressList } from '../../owner/policy-text.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Address, parseAddress } from '../../protocol/messages/address.ts'
import { action } from '../terminal/command.ts'
import { sending } from './owner-chain.ts'
import {
  type ChainOptions,
  finish,
  openSession,
  parseAddresses,
  parseClaims,
  parseSeconds,
  table,
  when,
} from './owner-session.ts'

interface GrantOptions extends ChainOptions {
  device: string
  contract?: string
  clientsFile?: string
  claims: string
  ttl: string
}

export function registerGrants(owner: Command): void {
  sending(owner.command('grant [clients...]'))
    .description('grant tokens as an authorization server')
    .requiredOption('--device <address>', 'the device')
    .option('--contract <name>', 'contract, by name or address (default: main)')
    .option('--clients-file <file>', 'addresses, one a line')
    .option('--claims <bits>', 'rights, e.g. 0,3', '0')
    .option('--ttl <duration>', 'life of the tokens', '30d')
    .action(
      action<GrantOptions, [string[]]>(async (ctx, options, list) => {
        const clients = clientsOf(list, options.clientsFile)
        const device = parseAddress(options.device)
        const claims = parseClaims(options.claims)
        const ttlSeconds = parseSeconds(options.ttl)
        const session = await openSession(ctx, options)
        const contract = session.contract(options.contract)
        await grant(session, { contract, clients, device, claims, ttlSeconds })
        finish(ctx, session, { contract, device, clients, claims, ttlSeconds }, `${clients.length} client(s) granted`)
      }),
    )
  sending(owner.command('revoke [clients...]'))
    .description('take tokens away; with an open offer a client can get a new one: then bar it')
    .requiredOption('--device <address>', 'the device')
    .option('--contract <name>', 'contract, by name or address (default: main)')
    .option('--clients-file <file>', 'addresses, one a line')
    .action(
      action<GrantOptions, [string[]]>(async (ctx, options, list) => {
        const clients = clientsOf(list, options.clientsFile)
        const device = parseAddress(options.device)
        const session = await openSession(ctx, options)
        const contract = session.contract(options.contract)
        await revoke(session, contract, clients, device)
        finish(ctx, session, { contract, device, clients }, `${clients.length} client(s) revoked`)
      }),
    )
  sending(owner.command('bar <client>'))
    .description('take a token away and refuse new ones for some time')
    .requiredOption('--device <address>', 'the device')
    .option('--contract <name>', 'contract, by name or address (default: main)')
    .option('--for <duration>', 'how long', '365d')
    .option('--lift', 'end a bar')
    .action(
      action<ChainOptions & { device: string; contract?: string; for: string; lift?: boolean }, [string]>(
        async (ctx, options, text) => {
          const client = parseAddress(text)
          const device = parseAddress(options.device)
          const until = options.lift === true ? 0 : Math.floor(Date.now() / 1000) + parseSeconds(options.for)
          const session = await openSession(ctx, options)
          const contract = session.contract(options.contract)
          await bar(session, contract, client, device, until)
          const state = until === 0 ? 'is barred no more' : `is barred until ${when(until)}`
          finish(ctx, session, { contract, device, client, until }, `client ${client} ${state}`)
        },
      ),
    )
  for (const [name, held] of [
    ['appoint', true],
    ['dismiss', false],
  ] as const) {
    sending(owner.command(`${name} <account>`))
      .description(held ? 'let another account grant and revoke (an authorization server)' : 'end what appoint began')
      .option('--contract <name>', 'contract, by name or address (default: main)')
      .option('--as-owner', 'also or instead: offers and roles, like yourself')
      .action(
        action<ChainOptions & { contract?: string; asOwner?: boolean }, [string]>(async (ctx, options, text) => {
          const account = parseAddress(text)
          const session = await openSession(ctx, options)
          const contract = session.contract(options.contract)
          const role = options.asOwner === true ? 'owner' : 'authorization-server'
          await setRole(session, contract, role, account, held)
          finish(
            ctx,
            session,
            { contract, account, role, held },
            `${account} is ${held ? '' : 'no longer '}${role} of ${contract}`,
          )
        }),
      )
  }
}

export function registerLooks(owner: Command): void {
  owner
    .command('list')
    .description('devices, contracts, offers, and tokens in force')
    .action(
      action<ChainOptions, []>(async (ctx, options) => {
        const session = await openSession(ctx, options)
        const { contracts } = session.folder.standing()
        const reader = session.reader()
        const head = await reader.head()
        const devices = await devicesOfOwner(session)
        const offers = (await Promise.all(Object.values(contracts).map((c) => offersOf(reader, c, head)))).flat()
        const described = await Promise.all(
          offers.map(async (offer) => {
            const ask = {
              client: session.account.address,
              offer,
              ttlSeconds: offer.maxTtlSeconds,
              caller: session.account.address,
            }
            return { ...offer, condition: describeCondition(await conditionOf(reader, ask, head)) }
          }),
        )
        const { readers } = await audit(session, await contractsOfOwner(session))
        ctx.out.result(
          { block: head.number, registry: session.registry, contracts, devices, offers: described, tokens: readers },
          [
            `block ${head.number} · registry ${session.registry}`,
            section('contracts', Object.entries(contracts)),
            section(
              'devices',
              devices.map((d) => [
                d.device,
                d.active ? 'active' : 'out of service',
                d.uri,
                `${d.contracts.length} contract(s)`,
              ]),
            ),
            section(
              'offers',
              described.map((o) => [
                `${o.id} of ${o.contract}`,
                `bits ${bitsText(o.claims)}`,
                `≤ ${o.maxTtlSeconds} s`,
                o.active ? o.condition : 'closed',
              ]),
            ),
            section('tokens in force', readers.map(readerRow)),
          ].join('\n'),
        )
      }),
    )
  owner
    .command('audit')
    .description('who was granted what, when, by which transaction, and who can read now')
    .option('--contract <names...>', 'contracts (default: all of yours)')
    .option('--client <address>', 'only this client')
    .action(
      action<ChainOptions & { contract?: string[]; client?: string }, []>(async (ctx, options) => {
        const session = await openSession(ctx, options)
        const only = options.client === undefined ? undefined : parseAddress(options.client)
        const contracts = options.contract?.map((n) => session.contract(n)) ?? (await contractsOfOwner(session))
        const found = await audit(session, contracts, (block, of) =>
          ctx.out.progress(`reading blocks: ${block} of ${of}`),
        )
        const events = found.events.filter((e) => only === undefined || e.client === only)
        const readers = found.readers.filter((r) => only === undefined || r.client === only)
        ctx.out.result(
          { block: found.head.number, events, readers, sent: session.ledger.lines.length },
          [
            section('history', events.map(eventRow)),
            section(
              `can read at block ${found.head.number}`,
              readers.filter((r) => r.idle === undefined).map(readerRow),
            ),
            ...(readers.some((r) => r.idle !== undefined)
              ? [
                  section(
                    'tokens that open nothing',
                    readers.filter((r) => r.idle !== undefined).map((r) => [...readerRow(r), r.idle ?? '']),
                  ),
                ]
              : []),
          ].join('\n'),
        )
      }),
    )
}

function section(title: string, rows: readonly (readonly string[])[]): string {
  return `${title}\n${rows.length === 0 ? '  none' : table(rows).replaceAll(/^/gm, '  ')}`
}

function eventRow(e: AuditEvent): string[] {
  const how =
    e.kind === 'granted'
      ? `bits ${e.bits?.join(',')} until ${when(e.until ?? 0)}, ${e.offer === undefined ? 'by decision' : `offer ${e.offer}`}`
      : e.kind === 'barred'
        ? e.until === 0
          ? 'bar lifted'
          : `until ${when(e.until ?? 0)}`
        : ''
  return [when(e.at), e.kind, e.client, `at ${e.device}`, how, `by ${e.by}`, e.transaction]
}

function readerRow(r: Reader): string[] {
  return [
    r.client,
    `at ${r.device}`,
    `bits ${r.bits.join(',')}`,
    `until ${when(r.token.expiresAt)}`,
    `since block ${r.token.grantBlock}`,
  ]
}

function bitsText(claims: number): string {
  return Array.from({ length: 32 }, (_, b) => b)
    .filter((b) => (claims >>> b) & 1)
    .join(',')
}

function clientsOf(list: readonly string[], file: string | undefined): Address[] {
  const clients = [...parseAddresses(list), ...(file === undefined ? [] : readAddressList(file))]
  if (clients.length > 0) return clients
  throw new IotchainError('owner/missing-option', 'no client is named', {
    hint: 'Name addresses, or a file with --clients-file.',
  })
}
