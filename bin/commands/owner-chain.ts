/** `iotchain owner deploy|offer|register|update|transfer|accept|deactivate`: what stands on the chain for a while. */
import type { Command } from 'commander'
import {
  acceptDevice,
  deactivateDevice,
  registerDevice,
  setOffer,
  switchOffer,
  transferDevice,
  updateDevice,
} from '../../owner/actions.ts'
import { deployContract, deployRegistry } from '../../owner/deploy.ts'
import { makeDescriptor } from '../../owner/descriptor.ts'
import { parsePolicy } from '../../owner/policy-text.ts'
import type { OwnerSession } from '../../owner/session.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { parseAddress, ZERO_ADDRESS } from '../../protocol/messages/address.ts'
import { decodeRegistrationTicket } from '../../protocol/messages/registration.ts'
import { readFileOrExplain, writeFileAtomic } from '../../runtime/atomic-file.ts'
import { action } from '../terminal/command.ts'
import { readPassword } from '../terminal/password.ts'
import { type ChainOptions, finish, openSession, parseClaims, parseCount, parseSeconds } from './owner-session.ts'

/** Options of every command that sends something. */
export function sending(command: Command): Command {
  return command
    .option('--dry-run', 'say what it would cost, send nothing')
    .option('--confirmations <n>', 'blocks to wait for on top of each transaction')
    .option('--patience <duration>', 'how long a transaction may take to be mined', '5m')
    .option('--raise-fee', 'the same command again: send what is not mined yet once more, with a higher fee')
}

export function registerDeploy(owner: Command): void {
  sending(owner.command('deploy'))
    .description('deploy the DeviceRegistry (unless the settings name one) and an AccessToken contract')
    .option('--name <name>', 'name for the contract in other commands', 'main')
    .option('--device <address>', 'the device that calls without one speak of (getToken with one argument)')
    .action(
      action<ChainOptions & { name: string; device?: string }, []>(async (ctx, options) => {
        const session = await openSession(ctx, options)
        const resource = options.device === undefined ? ZERO_ADDRESS : parseAddress(options.device)
        const registry = await deployRegistry(session)
        const contract = await deployContract(session, options.name, resource)
        finish(
          ctx,
          session,
          { registry, contract, name: options.name },
          `registry ${registry}\ncontract ${contract} (${options.name})`,
        )
      }),
    )
}

export function registerDescriptor(owner: Command): void {
  owner
    .command('descriptor')
    .description('sign what the chain looks like, for key servers to hold their node against')
    .requiredOption('--out <file>', 'where it goes')
    .option('--enode <urls...>', 'boot nodes to pin')
    .action(
      action<ChainOptions & { out: string; enode?: string[] }, []>(async (ctx, options) => {
        const session = await openSession(ctx, options)
        const password = await readPassword(ctx.passwordFile, "Password of the owner's authority")
        const { descriptor, text } = await makeDescriptor(session, password, options.enode ?? [])
        writeFileAtomic(options.out, text, { mode: 0o644 })
        ctx.out.result(
          { file: options.out, descriptor },
          `chain ${descriptor.chainId}, checkpoint block ${descriptor.checkpoint.number}: ${options.out}`,
        )
      }),
    )
}

interface OfferCommandOptions extends ChainOptions {
  contract?: string
  offer?: string
  policy?: string
  device?: string
  claims?: string
  maxTtl: string
  close?: boolean
  reopen?: boolean
}

export function registerOffer(owner: Command): void {
  sending(owner.command('offer'))
    .description('offer tokens to clients that meet a policy, e.g. --policy "all(puzzle(16),quota(1d,2,100))"')
    .option('--contract <name>', 'contract, by name or address (default: main)')
    .option('--offer <n>', 'number of an offer to change (default: a new one)')
    .option(
      '--policy <policy>',
      'open, puzzle(BITS), quota(PERIOD,EACH,ALL), allowlist(FILE), attestation(HASH,ISSUER…), ether(WEI,PERSECOND), token(CURRENCY,UNITS,PERSECOND), holder(ASSET,MINIMUM), all(…), any(…)',
    )
    .option('--device <address>', 'the device')
    .option('--claims <bits>', 'rights that a token gives, e.g. 0,3')
    .option('--max-ttl <duration>', 'longest life of a token', '30d')
    .option('--close', 'close offer --offer')
    .option('--reopen', 'open offer --offer again')
    .action(
      action<OfferCommandOptions, []>(async (ctx, options) => {
        const session = await openSession(ctx, options)
        const contract = session.contract(options.contract)
        const offer = options.offer === undefined ? undefined : parseCount(options.offer)
        if (options.close === true || options.reopen === true) {
          if (offer === undefined) throw missing('--offer')
          await switchOffer(session, contract, offer, options.reopen === true)
          const state = options.reopen === true ? 'open' : 'closed'
          finish(ctx, session, { contract, offer, state }, `offer ${offer} of ${contract} is ${state}`)
          return
        }
        if (options.policy === undefined) throw missing('--policy')
        if (options.device === undefined) throw missing('--device')
        if (options.claims === undefined) throw missing('--claims')
        const made = await setOffer(session, {
          contract,
          offer,
          plan: parsePolicy(options.policy, session.account.address),
          device: parseAddress(options.device),
          claims: parseClaims(options.claims),
          maxTtlSeconds: parseSeconds(options.maxTtl),
        })
        finish(ctx, session, { contract, ...made }, `offer ${made.offer} of ${contract}, policy ${made.policy}`)
      }),
    )
}

export function registerDevices(owner: Command): void {
  sending(owner.command('register <ticket>'))
    .description(
      'register a device by the line that `iotchain-device registration` printed (a file, or - for standard input)',
    )
    .option('--contract <names...>', 'contracts whose tokens count (default: main)')
    .option('--uri <uri>', "coaps:// address of the key server, for clients (default: the ticket's)")
    .action(
      action<ChainOptions & { contract?: string[]; uri?: string }, [string]>(async (ctx, options, file) => {
        const text = file === '-' ? await standardInput() : readFileOrExplain(file, 'registration').toString('utf8')
        const ticket = decodeRegistrationTicket(text.trim())
        const session = await openSession(ctx, options)
        const contracts = contractsOf(session, options.contract)
        const outcome = await registerDevice(session, ticket, contracts, options.uri ?? ticket.uri)
        finish(ctx, session, { device: ticket.device, outcome, contracts }, `device ${ticket.device} ${outcome}`)
      }),
    )
  sending(owner.command('update <device>'))
    .description('change which contracts count for a device, or where it is')
    .option('--contract <names...>', 'the new list of contracts')
    .option('--uri <uri>', 'coaps:// address of the key server, for clients')
    .action(
      action<ChainOptions & { contract?: string[]; uri?: string }, [string]>(async (ctx, options, device) => {
        const session = await openSession(ctx, options)
        const contracts = options.contract === undefined ? undefined : contractsOf(session, options.contract)
        const entry = await updateDevice(session, parseAddress(device), { contracts, uri: options.uri })
        finish(ctx, session, { device, contracts: entry.contracts, uri: entry.uri }, `device ${device} updated`)
      }),
    )
  sending(owner.command('transfer <device> <new-owner>'))
    .description('offer a device to another owner, who has to accept')
    .action(
      action<ChainOptions, [string, string]>(async (ctx, options, device, newOwner) => {
        const session = await openSession(ctx, options)
        await transferDevice(session, parseAddress(device), parseAddress(newOwner))
        finish(ctx, session, { device, offeredTo: newOwner }, `device ${device} offered to ${newOwner}`)
      }),
    )
  sending(owner.command('accept <device>'))
    .description('take over a device that was offered to you')
    .action(
      action<ChainOptions, [string]>(async (ctx, options, device) => {
        const session = await openSession(ctx, options)
        await acceptDevice(session, parseAddress(device))
        finish(ctx, session, { device }, `device ${device} is yours; name its contracts with \`iotchain owner update\``)
      }),
    )
  sending(owner.command('deactivate <device>'))
    .description('take a device out of service: nobody gets keys for it any more')
    .action(
      action<ChainOptions, [string]>(async (ctx, options, device) => {
        const session = await openSession(ctx, options)
        await deactivateDevice(session, parseAddress(device))
        finish(ctx, session, { device }, `device ${device} deactivated`)
      }),
    )
}

const contractsOf = (session: OwnerSession, names: readonly string[] = ['main']) =>
  names.map((n) => session.contract(n))

function missing(option: string): IotchainError {
  return new IotchainError('owner/missing-option', `${option} is missing`, {
    hint: 'See `iotchain owner offer --help`.',
  })
}

async function standardInput(): Promise<string> {
  let text = ''
  for await (const chunk of process.stdin) {
    text += String(chunk)
    if (text.length > 16_384)
      throw new IotchainError('message/bad-registration', 'standard input is longer than a registration')
  }
  return text
}
