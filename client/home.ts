/**
 * The client's folder: `config.yaml` (which chain, which registry), `keys/` (encrypted keystore files, one for each
 * address), `state/` (memberships and what was accepted; secret, mode 0700).
 */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { z } from 'zod'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, parseAddress } from '../protocol/messages/address.ts'
import { isThere, writeFileAtomic } from '../runtime/atomic-file.ts'
import { loadConfig } from '../runtime/config.ts'
import { makeFolder } from '../runtime/folder.ts'
import { SharedStore } from './shared-store.ts'
import { ClientState } from './state.ts'

const address = z.string().transform((text, context): Address => {
  try {
    return parseAddress(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message })
    return z.NEVER
  }
})

export const clientSchema = z.strictObject({
  rpcUrl: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe(
      'JSON-RPC of an Ethereum node; without it tokens cannot be asked for, and signers are not checked on chain.',
    ),
  chainId: z.int().positive().describe('Chain id of the network.'),
  registry: address.describe('Address of the DeviceRegistry contract.'),
  confirmations: z.int().min(0).max(100_000).default(12).describe('Blocks that the key servers here wait for.'),
  allowContracts: z
    .array(address)
    .default([])
    .describe('AccessToken contracts that are trusted although their code is not of this release.'),
  defaultKey: address.optional().describe('The address that is used when --key names none.'),
})

export type ClientConfig = z.output<typeof clientSchema>

export class ClientHome {
  readonly path: string
  readonly configFile: string
  readonly keysFolder: string
  readonly stateFolder: string

  constructor(path: string) {
    this.path = path
    this.configFile = join(path, 'config.yaml')
    this.keysFolder = join(path, 'keys')
    this.stateFolder = join(path, 'state')
  }

  get configured(): boolean {
    return isThere(this.configFile)
  }

  /** @throws `client/not-initialised`, `config/…` */
  config(): ClientConfig {
    if (!this.configured) {
      throw new IotchainError('client/not-initialised', `there is no ${this.configFile} yet`, {
        hint: 'run `iotchain init --rpc URL --chain-id N --registry 0x…`, or name another folder with --home',
      })
    }
    return loadConfig(clientSchema, this.configFile)
  }

  writeConfig(config: z.input<typeof clientSchema>): void {
    this.#folder(this.path)
    const text = stringify(Object.fromEntries(Object.entries(config).filter(([, v]) => v !== undefined)))
    writeFileAtomic(this.configFile, `# Settings of the iotchain client; see docs/client.md\n${text}`, { mode: 0o600 })
  }

  /** Addresses that have a keystore file here. */
  addresses(): Address[] {
    if (!existsSync(this.keysFolder)) return []
    return readdirSync(this.keysFolder)
      .filter((name) => /^0x[0-9a-f]{40}\.json$/.test(name))
      .map((name) => name.slice(0, -5) as Address)
      .sort()
  }

  keyFile(of: Address): string {
    return join(this.keysFolder, `${of}.json`)
  }

  /** @throws `wallet/exists` */
  assertNoKey(of: Address): void {
    const file = this.keyFile(of)
    if (existsSync(file)) {
      throw new IotchainError('wallet/exists', `there is a key of ${of} already`, { hint: `it is in ${file}` })
    }
  }

  /** @throws `wallet/exists` when there is a key of this address */
  writeKey(of: Address, keystore: string): string {
    this.#folder(this.path)
    this.#folder(this.keysFolder)
    this.assertNoKey(of)
    const file = this.keyFile(of)
    writeFileAtomic(file, keystore, { mode: 0o600, exclusive: true })
    return file
  }

  /**
   * The address that a command works for.
   * @param wished what `--key` says
   * @throws `wallet/no-key`, `wallet/which-key`, `message/bad-address`
   */
  chooseKey(wished: string | undefined, defaultKey: Address | undefined): Address {
    const own = this.addresses()
    const chosen = wished === undefined ? defaultKey : parseAddress(wished)
    if (chosen !== undefined) {
      if (own.includes(chosen)) return chosen
      throw new IotchainError('wallet/no-key', `there is no key of ${chosen} in ${this.keysFolder}`, {
        hint: '`iotchain wallet list` shows the keys that there are',
      })
    }
    const [only, another] = own
    if (only === undefined) {
      throw new IotchainError('wallet/no-key', `there is no key in ${this.keysFolder} yet`, {
        hint: 'make one with `iotchain wallet create`, or bring one with `iotchain wallet import FILE`',
      })
    }
    if (another !== undefined) {
      throw new IotchainError('wallet/which-key', 'there are several keys', {
        hint: `say which with --key, or set defaultKey in ${this.configFile}`,
      })
    }
    return only
  }

  openState(): { state: ClientState; close: () => Promise<void> } {
    this.#folder(this.path)
    const store = new SharedStore(this.stateFolder)
    return { state: new ClientState(store), close: () => store.close() }
  }

  #folder(path: string): void {
    try {
      makeFolder(path)
    } catch (cause) {
      throw new IotchainError('client/home', `the folder ${path} cannot be made`, {
        cause,
        hint: 'check its path and who may write there, or name another with --home',
      })
    }
  }
}
