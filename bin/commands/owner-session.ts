/** What every `iotchain owner` command shares: opening the owner's session, and telling what was sent. */
import type { Quote } from '../../chain/transaction.ts'
import { loadKeystore } from '../../chain/wallet.ts'
import { OwnerFolder } from '../../owner/folder.ts'
import { type OwnerProgress, OwnerSession, type Step } from '../../owner/session.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Address, parseAddress } from '../../protocol/messages/address.ts'
import { parseDuration } from '../../runtime/duration.ts'
import type { CommandContext } from '../terminal/command.ts'
import { readPassword } from '../terminal/password.ts'

export interface ChainOptions {
  readonly dryRun?: boolean
  readonly confirmations?: string
  readonly patience?: string
  readonly raiseFee?: boolean
}

/** Opens the owner's key and connects to its chain; nothing is sent yet. */
export async function openSession(ctx: CommandContext, options: ChainOptions): Promise<OwnerSession> {
  const folder = new OwnerFolder(ctx.home)
  const settings = folder.config()
  const config =
    options.confirmations === undefined ? settings : { ...settings, confirmations: parseCount(options.confirmations) }
  const password = await readPassword(ctx.passwordFile, "Password of the owner's key")
  const account = await loadKeystore(folder.keyFile, password)
  return new OwnerSession({
    folder,
    config,
    account,
    dryRun: options.dryRun === true,
    patienceSeconds: options.patience === undefined ? undefined : parseSeconds(options.patience),
    raiseFee: options.raiseFee === true,
    signal: ctx.signal,
    onProgress: (p) => ctx.out.progress(describeProgress(p)),
  })
}

function describeProgress(p: OwnerProgress): string {
  switch (p.phase) {
    case 'resumed':
      return `${p.what}: was on its way already, going on with it`
    case 'done-before':
      return `${p.what}: done before`
    case 'priced':
      return `${p.what}: up to ${ether(p.quote.total)}`
    case 'signed':
      return `${p.what}: signed`
    case 'sent':
      return `${p.what}: sent as ${p.hash}, waiting for a block`
    case 'confirming':
      return `${p.what}: in block ${p.block}, ${p.depth} of ${p.of} confirmations`
  }
}

/** Ends a command: one result with what was asked for and every transaction, or its price in a dry run. */
export function finish(
  ctx: CommandContext,
  session: OwnerSession,
  result: Record<string, unknown>,
  text: string,
): void {
  if (session.dryRun) {
    const steps = session.steps.map((s) => ({
      what: s.what,
      ...(s.receipt === undefined ? { quote: quoteOf(s.quote) } : { done: true }),
    }))
    ctx.out.result({ dryRun: true, steps }, session.steps.map(describeDryStep).join('\n') || 'nothing would be sent')
    return
  }
  const transactions = session.steps.map((s) => ({
    what: s.what,
    hash: s.receipt?.hash,
    block: s.receipt?.block,
    gasUsed: s.receipt?.gasUsed,
    feeWei: s.receipt?.fee.toString(),
    repeated: s.repeated,
  }))
  ctx.out.result(
    { ...result, transactions },
    [text, ...session.steps.map(describeStep)].filter((l) => l !== '').join('\n'),
  )
}

function describeStep(s: Step): string {
  const r = s.receipt
  if (r === undefined) return `  ${s.what}`
  const note = s.repeated ? ' (was done already)' : ''
  return `  ${s.what}: block ${r.block}, ${r.gasUsed} gas, ${ether(r.fee)}${note}`
}

function describeDryStep(s: Step): string {
  if (s.receipt !== undefined) return `${s.what}: done already, nothing to send`
  if (s.quote === undefined) return `${s.what}: price known once the step before is done`
  return `${s.what}: up to ${s.quote.gas} gas at ${s.quote.gasPrice} wei = ${ether(s.quote.total)} (you own ${ether(s.quote.balance)})`
}

function quoteOf(q: Quote | undefined): object | undefined {
  return (
    q && {
      gas: q.gas,
      gasPriceWei: q.gasPrice.toString(),
      totalWei: q.total.toString(),
      balanceWei: q.balance.toString(),
    }
  )
}

/** Wei as people read it: seven digits of ether. */
export function ether(wei: bigint): string {
  const digits = wei.toString().padStart(19, '0')
  const fraction = digits.slice(-18, -11).replace(/0+$/, '')
  if (wei !== 0n && fraction === '' && digits.slice(0, -18) === '0') return `${wei} wei`
  return `${digits.slice(0, -18)}${fraction === '' ? '' : `.${fraction}`} ether`
}

/** Bits of claims as people write them: `0`, `0,3`, or `0x00000009`. @returns uint32 */
export function parseClaims(text: string): number {
  if (/^0x[0-9a-fA-F]{8}$/.test(text) && Number(text) !== 0) return Number(text)
  const bits = text.split(',').map((b) => b.trim())
  if (text === '' || !bits.every((b) => /^\d{1,2}$/.test(b) && Number(b) < 32)) {
    throw new IotchainError('owner/bad-claims', `"${text}" are no claims`, {
      hint: 'Write the bits, 0 to 31, with commas between: --claims 0,3.',
    })
  }
  return bits.reduce((word, b) => (word | (1 << Number(b))) >>> 0, 0)
}

/** `30d`, `12h`, … as whole seconds, at least one. */
export function parseSeconds(text: string): number {
  const seconds = Math.floor(parseDuration(text) / 1000)
  if (seconds >= 1) return seconds
  throw new IotchainError('config/bad-duration', `"${text}" is less than a second`, {
    hint: 'Write for example 12h or 30d.',
  })
}

export function parseCount(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text)
  throw new IotchainError('owner/bad-number', `"${text}" is no number`, { hint: 'Write a whole number.' })
}

export function parseAddresses(list: readonly string[]): Address[] {
  return list.map((text) => parseAddress(text))
}

/** Local time to the second. */
export function when(seconds: number): string {
  if (seconds >= 8.64e12) return 'for ever'
  return new Date(seconds * 1000).toISOString().replace('T', ' ').replace('.000Z', ' UTC')
}

/** Rows with columns as wide as they need to be. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  }
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
