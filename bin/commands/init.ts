/** `iotchain init` and `iotchain join`: the client's settings, and becoming a member of a group by hand. */
import type { Command } from 'commander'
import { suite } from '#crypto'
import { ClientHome } from '../../client/home.ts'
import { toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { parseAddress } from '../../protocol/messages/address.ts'
import { action } from '../terminal/command.ts'
import { type ClientOptions, withClient } from './client-session.ts'
import { joinGroup } from './joining.ts'

interface InitOptions {
  readonly rpc?: string
  readonly chainId: string
  readonly registry: string
  readonly confirmations?: string
  readonly force?: boolean
}

interface JoinOptions extends ClientOptions {
  readonly bit: string
  readonly command?: boolean
}

export function registerInit(program: Command): void {
  program
    .command('init')
    .description('write the settings of this client: which chain, which registry')
    .option('--rpc <url>', 'JSON-RPC of an Ethereum node')
    .requiredOption('--chain-id <n>', 'chain id of the network')
    .requiredOption('--registry <address>', 'the DeviceRegistry contract')
    .option('--confirmations <n>', 'blocks that the key servers here wait for (default: 12)')
    .option('--force', 'write over settings that are there')
    .action(
      action<InitOptions, []>(async (ctx, options) => {
        const home = new ClientHome(ctx.home)
        if (home.configured && options.force !== true) {
          throw new IotchainError('client/exists', `there are settings in ${home.configFile} already`, {
            hint: 'change them there, or write new ones with --force',
          })
        }
        const chainId = wholeNumber(options.chainId, '--chain-id')
        const confirmations =
          options.confirmations === undefined ? undefined : wholeNumber(options.confirmations, '--confirmations')
        const registry = parseAddress(options.registry)
        home.writeConfig({ rpcUrl: options.rpc, chainId, registry, confirmations })
        home.config()
        ctx.out.result({ config: home.configFile, chainId, registry }, `settings are in ${home.configFile}`)
      }),
    )
  program
    .command('join <device>')
    .description('become a member of a group of a device (read and watch do so by themselves)')
    .option('--bit <n>', 'claims bit of the group', '0')
    .option('--command', 'to send commands: with a signing key of its own')
    .option('--key <address>', 'which of the keys to use')
    .option('--key-server <uri>', 'coaps:// address of the key server (default: from the registry)')
    .option('--key-server-spki <hex>', 'SHA-256 of its public key (default: from the registry)')
    .option('--no-chain', 'do not ask the chain')
    .action(
      action<JoinOptions, [string]>((ctx, options, text) =>
        withClient(ctx, options, async (session) => {
          const device = parseAddress(text)
          const bit = wholeNumber(options.bit, '--bit')
          if (bit > 31) throw new IotchainError('client/bad-number', 'a claims bit is 0 to 31')
          const client = await session.client()
          const known = await session.state.membership(await session.addressFor(device), client.gid(device, bit))
          const commandSeed = options.command === true ? (known?.commandSeed ?? suite.ed25519.generate()) : undefined
          const membership = await joinGroup(session, {
            device,
            bit,
            ...(commandSeed === undefined ? {} : { commandSeed }),
          })
          const group = toHex(membership.gid)
          ctx.out.result(
            { device, bit, group, client: membership.client, session: membership.session, epochs: membership.epochs },
            `member of group ${group} (bit ${bit} of ${device}) as ${membership.client}`,
          )
        }),
      ),
    )
}

/** @throws `client/bad-number` */
export function wholeNumber(text: string, what: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new IotchainError('client/bad-number', `${what} is a whole number, not "${text}"`)
  return Number(text)
}
