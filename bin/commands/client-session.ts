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
  #account: Promise<Account> | undefined
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
    this.#account = Promise.resolve(account)
  }

  /** The address of this command's key; no password is needed to know it. */
  get address(): Address {
    return this.#chosen ?? this.home.chooseKey(this.options.key, this.config.defaultKey)
  }

  /** The opened key: asks for the password the first time. */
  account(): Promise<Account> {
    this.#account ??= this.#openAccount()
    return this.#account
  }

  /** Signs in the name of the key; opens it when the first signature is asked for. */
  get signer(): ClientSigner {
    const address = this.address
    return {
      address,
      signStruct: async (domain, struct, values) => (await this.account()).signStruct(domain, struct, values),
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

  async #openAccount(): Promise<Account> {
    const { address, home, ctx } = this
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
    const own = this.home.addresses()
    if (own.length > 0) {
      await client.load(this.address)
      client.useSigner(this.signer)
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
