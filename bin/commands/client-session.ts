/** What every client command shares: settings, the key (opened when it is needed), the chain (asked when it is needed). */
import type { ChainReader } from '../../chain/reader.ts'
import type { JsonRpc } from '../../chain/rpc.ts'
import type { Account } from '../../chain/wallet.ts'
import { ChainRegistry } from '../../client/chain-registry.ts'
import { IotClient } from '../../client/client.ts'
import { type ClientConfig, ClientHome } from '../../client/home.ts'
import type { KeyServerAddress } from '../../client/keyserver-session.ts'
import type { ClientSigner } from '../../client/signer.ts'
import { fileSource } from '../../client/sources.ts'
import type { ClientState } from '../../client/state.ts'
import { fromHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import { systemClock } from '../../runtime/clock.ts'
import type { CommandContext } from '../terminal/command.ts'
import { readPassword } from '../terminal/password.ts'

/** Options that client commands have in common. */
export interface ClientOptions {
  readonly key?: string
  readonly keyServer?: string
  readonly keyServerSpki?: string
  readonly allowStale?: boolean
  /** A file with a session broadcast. */
  readonly broadcast?: string
  /** commander's --no-chain */
  readonly chain?: boolean
}

export class ClientSession {
  readonly ctx: CommandContext
  readonly home: ClientHome
  readonly config: ClientConfig
  readonly state: ClientState
  readonly options: ClientOptions
  readonly #closeState: () => Promise<void>
  readonly #accounts = new Map<Address, Promise<Account>>()
  #chosen: Address | undefined
  #chain: Promise<{ reader: ChainReader; rpc: JsonRpc }> | undefined
  #client: Promise<IotClient> | undefined
  #registry: ChainRegistry | undefined

  constructor(ctx: CommandContext, options: ClientOptions) {
    this.ctx = ctx
    this.options = options
    this.home = new ClientHome(ctx.home)
    this.config = this.home.config()
    const { state, close } = this.home.openState()
    this.state = state
    this.#closeState = close
  }

  /** Works with this key from now on, which is in the wallet already and open. Before the first use of `client`. */
  useAccount(account: Account): void {
    this.#chosen = account.address
    this.#accounts.set(account.address, Promise.resolve(account))
  }

  /** The same with a key of the wallet that is opened when it is needed. */
  useAddress(address: Address): void {
    this.#chosen = address
  }

  /** The address of this command's key; no password is needed to know it. */
  get address(): Address {
    return this.#chosen ?? this.home.chooseKey(this.options.key, this.config.defaultKey)
  }

  /**
   * The address that has to do with a device: the one that is named, or the only one, else the one that is a member or
   * has asked for a token there (each grant may have an address of its own).
   * @throws `wallet/no-key`, `wallet/which-key`
   */
  async addressFor(device: Address): Promise<Address> {
    const own = this.home.addresses()
    if (this.#chosen !== undefined || this.options.key !== undefined || own.length < 2) return this.address
    const members = (await this.state.memberships()).filter((m) => m.device === device)
    const asked = (await Promise.all(own.map((a) => this.state.requests(a)))).flat().filter((r) => r.device === device)
    const newest = [
      ...members.map((m) => ({ client: m.client, at: m.joinedAt })),
      ...asked.map((r) => ({ client: r.client, at: r.requestedAt })),
    ].sort((a, b) => b.at - a.at)[0]
    return newest !== undefined && own.includes(newest.client) ? newest.client : this.address
  }

  /** The opened key: asks for its password the first time. */
  account(address: Address = this.address): Promise<Account> {
    let account = this.#accounts.get(address)
    if (account === undefined) {
      account = this.#openAccount(address)
      this.#accounts.set(address, account)
      // a password that was mistyped is asked for again, when a long watch needs the key the next time
      account.catch(() => this.#accounts.delete(address))
    }
    return account
  }

  /** Signs in the name of a key; opens it when the first signature is asked for. */
  signerOf(address: Address): ClientSigner {
    return {
      address,
      signStruct: async (domain, struct, values) => (await this.account(address)).signStruct(domain, struct, values),
    }
  }

  get hasChain(): boolean {
    return this.config.rpcUrl !== undefined && this.options.chain !== false
  }

  /** @throws `client/no-chain` when no node is configured */
  chain(): Promise<{ reader: ChainReader; rpc: JsonRpc }> {
    this.#chain ??= this.#openChain()
    return this.#chain
  }

  async registry(): Promise<ChainRegistry> {
    this.#registry ??= new ChainRegistry((await this.chain()).reader, systemClock)
    return this.#registry
  }

  client(): Promise<IotClient> {
    this.#client ??= this.#openClient()
    return this.#client
  }

  /**
   * The key server of a device: by the options, else as the registry on chain names it.
   * @throws `client/which-key-server`, `client/unregistered-device`, `chain/…`
   */
  async keyServerOf(device: Address): Promise<KeyServerAddress> {
    const { keyServer, keyServerSpki } = this.options
    if (keyServer !== undefined && keyServerSpki !== undefined) {
      return { uri: keyServer, spki: parseSpki(keyServerSpki) }
    }
    if (!this.hasChain) {
      throw new IotchainError('client/which-key-server', `the key server of ${device} is not known without a chain`, {
        hint: 'give --key-server coaps://HOST:PORT and --key-server-spki HEX, or set rpcUrl in config.yaml',
      })
    }
    const entry = await (await this.registry()).activeEntry(device)
    const uri = keyServer ?? entry.uri
    if (!uri.startsWith('coaps://')) {
      throw new IotchainError('client/which-key-server', `the registry names no coaps:// address for ${device}`, {
        hint: 'give it with --key-server coaps://HOST:PORT; its public key is known from the registry',
      })
    }
    return { uri, spki: keyServerSpki === undefined ? entry.keyServer : parseSpki(keyServerSpki) }
  }

  async close(): Promise<void> {
    const client = await this.#client?.catch(() => undefined)
    await client?.close()
    await this.#closeState()
  }

  async #openAccount(address: Address): Promise<Account> {
    const { home, ctx } = this
    const { loadKeystore } = await import('../../chain/wallet.ts')
    const password = await readPassword(ctx.passwordFile, `Password of ${address}`)
    ctx.out.progress('opening the key')
    return loadKeystore(home.keyFile(address), password)
  }

  async #openChain(): Promise<{ reader: ChainReader; rpc: JsonRpc }> {
    const { rpcUrl, chainId, registry, confirmations } = this.config
    if (rpcUrl === undefined) {
      throw new IotchainError('client/no-chain', 'no node is configured', {
        hint: `set rpcUrl in ${this.home.configFile}`,
      })
    }
    const [{ ChainReader: Reader }, { JsonRpc: Rpc }] = await Promise.all([
      import('../../chain/reader.ts'),
      import('../../chain/rpc.ts'),
    ])
    const rpc = new Rpc({ url: rpcUrl })
    return { rpc, reader: new Reader({ rpc, chainId, registry, confirmations }) }
  }

  async #openClient(): Promise<IotClient> {
    const { chainId, registry } = this.config
    const client = new IotClient({
      chain: { chainId, registry },
      clock: systemClock,
      state: this.state,
      registry: this.hasChain ? await this.registry() : undefined,
      allowStale: this.options.allowStale,
      extraSources: this.options.broadcast === undefined ? [] : [fileSource(this.options.broadcast)],
    })
    const named = this.#chosen ?? (this.options.key === undefined ? undefined : this.address)
    for (const address of named === undefined ? this.home.addresses() : [named]) {
      await client.load(address)
      client.useSigner(this.signerOf(address))
    }
    return client
  }
}

/** Opens a session, runs the work, closes it whatever happens. */
export async function withClient<O extends ClientOptions>(
  ctx: CommandContext,
  options: O,
  work: (session: ClientSession) => Promise<void>,
): Promise<void> {
  const session = new ClientSession(ctx, options)
  try {
    await work(session)
  } finally {
    await session.close()
  }
}

function parseSpki(text: string): Uint8Array {
  if (!/^(0x)?[0-9a-fA-F]{64}$/.test(text)) {
    throw new IotchainError('client/bad-spki', 'a key server is named by 64 hexadecimal digits', {
      hint: 'pass what `iotchain-keyserver spki` prints',
    })
  }
  return fromHex(text)
}
