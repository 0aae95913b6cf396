/** `iotchain wallet`: the client's keys, and what each may read until when. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { type Holding, holdingsOf } from '../../client/holdings.ts'
import { ClientHome } from '../../client/home.ts'
import type { MembershipRecord } from '../../client/state.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Address, checksumAddress } from '../../protocol/messages/address.ts'
import { action, type CommandContext } from '../terminal/command.ts'
import { readPassword } from '../terminal/password.ts'
import { timeText } from '../terminal/reading.ts'
import { type ClientOptions, ClientSession, withClient } from './client-session.ts'
import { type RenewOptions, renewDue } from './renewing.ts'
import { createKey, keepKey } from './wallet-keys.ts'

interface CreateOptions {
  readonly light?: boolean
}

export function registerWallet(program: Command): void {
  const wallet = program.command('wallet').description('keys of this client, and what they may read')
  wallet
    .command('create')
    .description('make a key; its address is what tokens are granted to')
    .option('--light', 'spend little on encrypting the key: for development chains')
    .action(
      action<CreateOptions, []>(async (ctx, options) => {
        const { address } = await createKey(ctx, options.light === true)
        tell(ctx, address)
      }),
    )
  wallet
    .command('import <file>')
    .description('bring a key: an Ethereum keystore file, or a file whose first line is the private key in hex')
    .option('--light', 'spend little on encrypting the key: for development chains')
    .action(
      action<CreateOptions, [string]>(async (ctx, options, file) => {
        const { accountFromKey, openKeystore } = await import('../../chain/wallet.ts')
        const text = await readFile(file, 'utf8').catch((cause: unknown) => {
          throw new IotchainError('wallet/no-file', `${file} cannot be read`, { hint: 'check the path', cause })
        })
        if (text.trimStart().startsWith('{')) {
          const password = await readPassword(ctx.passwordFile, `Password of ${file}`)
          ctx.out.progress('opening the key')
          const account = await openKeystore(text, password)
          const home = new ClientHome(ctx.home)
          // Its own encryption is as good as a new one, and the password stays what it was.
          home.writeKey(account.address, text)
          tell(ctx, account.address)
          return
        }
        const account = accountFromKey(text.split('\n', 1)[0] as string)
        await keepKey(ctx, account, options.light === true)
        tell(ctx, account.address)
      }),
    )
  wallet
    .command('list')
    .description('keys, memberships and tokens: what each key may read, and until when')
    .option('--no-chain', 'only what is known without asking the chain')
    .action(action<ClientOptions, []>((ctx, options) => list(ctx, options)))
  wallet
    .command('renew')
    .description('ask again for tokens that are about to end')
    .option('--key <address>', 'only those of this key')
    .option('--ahead <duration>', 'renew what ends within so long, beside confirmations and two sessions', '0s')
    .option('--pay <wei>', 'spend at most so much on each', '0')
    .option('--keep', 'stay, and renew whenever something is due, until Ctrl-C')
    .action(
      action<RenewOptions & ClientOptions, []>((ctx, options) =>
        withClient(ctx, options, (session) => renewDue(session, options)),
      ),
    )
}

function tell(ctx: CommandContext, address: Address): void {
  const file = new ClientHome(ctx.home).keyFile(address)
  ctx.out.result({ address, file }, `${checksumAddress(address)}\n${file}`)
}

/** Works without settings too: then it shows the keys alone. */
async function list(ctx: CommandContext, options: ClientOptions): Promise<void> {
  const home = new ClientHome(ctx.home)
  const addresses = home.addresses()
  if (!home.configured) {
    ctx.out.result(
      addresses.map((address) => ({ address, holdings: [] })),
      addresses.length === 0 ? 'no keys yet: make one with `iotchain wallet create`' : addresses.join('\n'),
    )
    return
  }
  const session = new ClientSession(ctx, options)
  try {
    const memberships = await session.state.memberships()
    const reader = session.hasChain ? (await session.chain()).reader : undefined
    const all = []
    for (const address of addresses) {
      const own = memberships.filter((m) => m.client === address)
      const holdings = reader === undefined ? [] : await holdingsOf(reader, session.state, address, own)
      all.push({ address, memberships: own.map(membershipJson), holdings })
    }
    const text = all.flatMap(({ address, holdings, memberships: own }) => [
      address,
      ...own.map((m) => `  member of ${m.group} (bit ${m.bit} of ${m.device}), newest session ${m.session}`),
      ...holdings.map((h) => `  ${holdingText(h)}`),
      ...(own.length + holdings.length === 0 ? ['  nothing yet'] : []),
    ])
    ctx.out.result(all, text.length === 0 ? 'no keys yet: make one with `iotchain wallet create`' : text.join('\n'))
  } finally {
    await session.close()
  }
}

function membershipJson(record: MembershipRecord) {
  const { device, bit, gid, member, keyServer, joinedAt } = record
  return {
    device,
    bit,
    group: Buffer.from(gid).toString('hex'),
    session: member.session,
    keyServer: keyServer.uri,
    joinedAt,
  }
}

function holdingText(h: Holding): string {
  const bits = h.bits.length === 1 ? `bit ${h.bits[0]}` : `bits ${h.bits.join(', ')}`
  const state = h.standing === 'good' ? `until ${timeText(h.expiresAt)}` : h.standing
  return `token for ${bits} of ${h.device}: ${state} (contract ${h.contract})`
}
