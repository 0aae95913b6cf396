/** `iotchain owner init` and `iotchain owner ca`: the owner's key and certification authority. No chain is needed. */
import { readFileSync, statSync } from 'node:fs'
import type { Command } from 'commander'
import { accountFromKey, createAccount, keystoreAddress } from '../../chain/wallet.ts'
import {
  caFiles,
  createOwnerCa,
  issueForDevice,
  issueForServer,
  records,
  refreshCrl,
  revokeDevice,
} from '../../owner/authority.ts'
import { OwnerFolder } from '../../owner/folder.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { parseAddress } from '../../protocol/messages/address.ts'
import { readFileOrExplain, writeFileAtomic } from '../../runtime/atomic-file.ts'
import { action, type CommandContext } from '../terminal/command.ts'
import { readNewPassword, readPassword } from '../terminal/password.ts'
import { parseCount, table } from './owner-session.ts'

interface InitOptions {
  rpc: string
  chainId: string
  registry?: string
  confirmations?: string
  importKeyFile?: string
  caName: string
  light?: boolean
}

export function registerInit(owner: Command): void {
  owner
    .command('init')
    .description("make the owner's settings, Ethereum key and certification authority")
    .option('--rpc <url>', 'JSON-RPC of an Ethereum node', 'http://127.0.0.1:8545')
    .requiredOption('--chain-id <n>', 'chain id of the network')
    .option('--registry <address>', 'a DeviceRegistry that stands already (default: deploy one)')
    .option('--confirmations <n>', 'blocks to wait for on top of each transaction (default: 0)')
    .option('--import-key-file <file>', 'file whose first line is the private key (hex) of a funded account')
    .option('--ca-name <name>', 'name of the certification authority', 'IoTChain')
    .option('--light', 'spend little on encrypting the key: for development chains')
    .action(
      action<InitOptions, []>(async (ctx, options) => {
        const folder = new OwnerFolder(ctx.home)
        if (folder.exists) {
          throw new IotchainError('owner/exists', `there is an owner in ${folder.path} already`, {
            hint: 'Use it, or name another folder with --home.',
          })
        }
        const chainId = parseCountLong(options.chainId)
        const registry = options.registry === undefined ? undefined : parseAddress(options.registry)
        const account =
          options.importKeyFile === undefined ? createAccount() : accountFromKey(firstLineOf(options.importKeyFile))
        const password = await readNewPassword(ctx.passwordFile, "New password of the owner's key and authority")
        ctx.out.progress('encrypting the key')
        const keystore = await account.encrypt(password, options.light === true)
        const confirmations = options.confirmations === undefined ? undefined : parseCount(options.confirmations)
        const ca = await createOwnerCa(folder, password, options.caName)
        writeFileAtomic(folder.keyFile, keystore, { mode: 0o600, exclusive: true })
        // last: only a folder that is whole counts as made
        folder.create({ rpcUrl: options.rpc, chainId, registry, confirmations })
        ctx.out.result(
          {
            address: account.address,
            home: folder.path,
            rootCertificate: ca.root,
            issuingCertificate: ca.issuing,
            crl: ca.crl,
          },
          [
            `owner ${account.address}`,
            `settings, key and authority are in ${folder.path}: keep a copy of that folder, and the password`,
            `every peer trusts ${ca.root}`,
          ].join('\n'),
        )
      }),
    )
}

export function registerCa(owner: Command): void {
  const ca = owner.command('ca').description('issue and take back certificates')
  ca.command('device <csr>')
    .description("sign a device's certificate request (PEM)")
    .option('--out <file>', 'where the certificate chain goes (default: standard output)')
    .option('--address <address>', 'the only device to accept')
    .option('--days <n>', 'life of the certificate (default: 90)')
    .action(
      action<{ out?: string; address?: string; days?: string }, [string]>(async (ctx, options, csr) => {
        const request = readFileOrExplain(csr, 'certificate request')
        const issued = await issueForDevice(new OwnerFolder(ctx.home), await password(ctx), request, {
          address: options.address === undefined ? undefined : parseAddress(options.address),
          days: options.days === undefined ? undefined : parseCount(options.days),
        })
        if (options.out !== undefined) writeFileAtomic(options.out, issued.chain, { mode: 0o644 })
        const where =
          options.out === undefined
            ? issued.chain.trimEnd()
            : `certificate of ${issued.address} written to ${options.out}`
        ctx.out.result(
          { device: issued.address, serial: issued.serial, certificate: options.out ?? issued.chain },
          where,
        )
      }),
    )
  ca.command('server <names...>')
    .description('make a key server its certificate (and its key, if there is none yet)')
    .requiredOption('--out <folder>', 'where server.crt and server.key go')
    .option('--days <n>', 'life of the certificate (default: 398)')
    .action(
      action<{ out: string; days?: string }, [string[]]>(async (ctx, options, names) => {
        const days = options.days === undefined ? undefined : parseCount(options.days)
        const made = await issueForServer(new OwnerFolder(ctx.home), await password(ctx), names, options.out, days)
        ctx.out.result(made, `certificate ${made.certificateFile}, key ${made.keyFile}\nSPKI SHA-256 ${made.spki}`)
      }),
    )
  ca.command('revoke <device>')
    .description('take the certificates of a device back and write a new revocation list')
    .action(
      action<object, [string]>(async (ctx, _options, device) => {
        const folder = new OwnerFolder(ctx.home)
        const serials = await revokeDevice(folder, await password(ctx), parseAddress(device))
        const { crl } = caFiles(folder)
        ctx.out.result(
          { device, serials, crl },
          `${serials.length} certificate(s) taken back; give ${crl} to the key server`,
        )
      }),
    )
  ca.command('crl')
    .description('write a fresh revocation list; it is out of date after a week')
    .action(
      action<object, []>(async (ctx) => {
        const crl = await refreshCrl(new OwnerFolder(ctx.home), await password(ctx))
        ctx.out.result({ crl }, crl)
      }),
    )
  ca.command('list')
    .description('what was issued and taken back')
    .action(
      action<object, []>(async (ctx) => {
        const lines = records(new OwnerFolder(ctx.home))
        ctx.out.result(lines, table(lines.map((l) => [l.at, l.kind, l.name, l.serial])))
      }),
    )
}

/** The address of the owner, without its password. */
export function registerAddress(owner: Command): void {
  owner
    .command('address')
    .description("the owner's address")
    .action(
      action<object, []>(async (ctx) => {
        const folder = new OwnerFolder(ctx.home)
        folder.config()
        const address = keystoreAddress(folder.keyFile)
        ctx.out.result({ address }, address)
      }),
    )
}

const password = (ctx: CommandContext): Promise<string> =>
  readPassword(ctx.passwordFile, "Password of the owner's authority")

function parseCountLong(text: string): number {
  const value = /^(0x[0-9a-fA-F]{1,12}|\d{1,15})$/.test(text) ? Number(text) : 0
  if (value > 0) return value
  throw new IotchainError('owner/bad-number', `"${text}" is no chain id`, { hint: 'Ask the node: eth_chainId.' })
}

function firstLineOf(file: string): string {
  try {
    if (statSync(file).size <= 4096) return (readFileSync(file, 'utf8').split('\n')[0] ?? '').trim()
  } catch (cause) {
    throw new IotchainError('wallet/no-file', `cannot read the key file ${file}`, {
      hint: 'Check path and owner.',
      cause,
    })
  }
  throw new IotchainError('wallet/bad-key', `${file} is too long for a private key`)
}
