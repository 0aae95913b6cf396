/** An owner at work: one account, one chain, one ledger. Every transaction of an owner goes through `perform`. */
import { keccak256 } from '../chain/account.ts'
import { ChainReader } from '../chain/reader.ts'
import { JsonRpc } from '../chain/rpc.ts'
import { TransactionSender } from '../chain/sender.ts'
import type { Intent, OpenTransaction, Quote, Receipt, SendProgress } from '../chain/transaction.ts'
import type { Hex } from '../chain/types.ts'
import type { Account } from '../chain/wallet.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { OwnerConfig, OwnerFolder } from './folder.ts'
import { Ledger, type LedgerLine } from './ledger.ts'

export type OwnerProgress = { readonly what: string } & (SendProgress | { readonly phase: 'resumed' | 'done-before' })

export interface OwnerSessionOptions {
  readonly folder: OwnerFolder
  readonly config: OwnerConfig
  readonly account: Account
  /** Says what each step would cost and sends nothing. */
  readonly dryRun?: boolean
  readonly onProgress?: (progress: OwnerProgress) => void
  readonly signal?: AbortSignal
  readonly pollMs?: number
  /** How long a transaction may take to be mined. */
  readonly patienceSeconds?: number | undefined
  /** Sends what is on its way and not mined again, with a higher fee. */
  readonly raiseFee?: boolean | undefined
}

/** What became of one step. */
export interface Step {
  readonly what: string
  readonly receipt?: Receipt
  /** in a dry run: what it would cost; undefined for a step that depends on one before it */
  readonly quote?: Quote | undefined
  /** it had been done before, or was found on its way */
  readonly repeated: boolean
}

/** Stands for an address that a dry run cannot know. Drawn at random: code is full of runs of one octet. */
const UNKNOWN: Address = '0x9d1fa3c85b7e4206e8c17f94d05b2a6637ce81f2'

export class OwnerSession {
  readonly folder: OwnerFolder
  readonly config: OwnerConfig
  readonly account: Account
  readonly rpc: JsonRpc
  readonly sender: TransactionSender
  readonly ledger: Ledger
  readonly dryRun: boolean
  /** What was done so far, in order. */
  readonly steps: Step[] = []
  readonly #options: OwnerSessionOptions

  constructor(options: OwnerSessionOptions) {
    const { folder, config, account } = options
    this.folder = folder
    this.config = config
    this.account = account
    this.dryRun = options.dryRun ?? false
    this.#options = options
    this.rpc = new JsonRpc({ url: config.rpcUrl })
    const { pollMs, patienceSeconds } = options
    this.sender = new TransactionSender({
      rpc: this.rpc,
      chainId: config.chainId,
      account,
      ...(pollMs !== undefined && { pollMs }),
      ...(patienceSeconds !== undefined && { patienceSeconds }),
    })
    this.ledger = new Ledger(folder.ledgerFile)
  }

  /** The registry of the settings, or the one that this owner deployed. @throws `owner/no-registry` */
  get registry(): Address {
    const registry = this.config.registry ?? this.folder.standing().registry
    if (registry === undefined) {
      throw new IotchainError('owner/no-registry', 'no DeviceRegistry is known', {
        hint: 'Run `iotchain owner deploy`, or name one in `registry:` of the settings.',
      })
    }
    return registry
  }

  reader(): ChainReader {
    const { chainId } = this.config
    // an owner may look at a chain that mines on demand only
    return new ChainReader({
      rpc: this.rpc,
      chainId,
      registry: this.registry,
      confirmations: 0,
      maxHeadAgeSeconds: Number.MAX_SAFE_INTEGER,
    })
  }

  /** A contract by the name that it was given, or by address. @throws `owner/no-contract` */
  contract(name: string | undefined): Address {
    const { contracts } = this.folder.standing()
    if (name?.startsWith('0x')) return name.toLowerCase() as Address
    const found = contracts[name ?? 'main']
    if (found === undefined) {
      const known = Object.keys(contracts)
      throw new IotchainError('owner/no-contract', `there is no contract named ${name ?? 'main'}`, {
        hint: known.length === 0 ? 'Run `iotchain owner deploy` first.' : `Known are: ${known.join(', ')}.`,
      })
    }
    return found
  }

  /**
   * Sends a transaction, unless the ledger shows that the same step is on its way: then it goes on with that.
   *
   * @param key names the step
   * @param once a step that is done once for all (a deployment): if it was mined before, it is not repeated
   */
  async perform(key: string, intent: Intent, once = false): Promise<Step> {
    const step = await this.#perform(key, intent, once)
    this.steps.push(step)
    return step
  }

  /** Deploys once under a name and remembers the address with `note`. */
  async deploy(key: string, intent: Intent, note: (address: Address) => void): Promise<Address> {
    const step = await this.perform(key, intent, true)
    if (this.dryRun && step.receipt === undefined) return UNKNOWN
    const address = step.receipt?.contract
    if (address === undefined) throw new IotchainError('chain/bad-answer', `the ${intent.what} has no address`)
    note(address)
    return address
  }

  async #perform(key: string, intent: Intent, once: boolean): Promise<Step> {
    const { what } = intent
    const before = this.ledger.latest(key, this.config.chainId, this.account.address)
    if (before?.phase === 'mined' && once && (await this.#stillStands(before))) {
      this.#options.onProgress?.({ what, phase: 'done-before' })
      return { what, receipt: receiptOf(before), repeated: true }
    }
    if (this.dryRun) {
      const depends = intent.to === UNKNOWN || intent.data.includes(UNKNOWN.slice(2))
      return { what, quote: depends ? undefined : await this.sender.quote(intent), repeated: false }
    }
    if (before?.phase === 'signed' && before.raw !== undefined) {
      this.#options.onProgress?.({ what, phase: 'resumed' })
      const cutOff = once || this.#wasJustCutOff(before)
      const receipt = await this.#recorded(key, intent, before.hash, () =>
        this.sender.resume(intent, this.#openOf(before), {
          ...this.#sendOptions(key, intent),
          raiseFee: this.#options.raiseFee ?? false,
        }),
      )
      if (receipt !== undefined && cutOff) return { what, receipt, repeated: true }
    }
    const receipt = await this.#recorded(key, intent, undefined, () =>
      this.sender.send(intent, this.#sendOptions(key, intent)),
    )
    return { what, receipt: receipt as Receipt, repeated: false }
  }

  /**
   * A step that was signed as the last thing, within the hour, is the one that is being repeated. After anything later a
   * repeated command means what it says: do it again.
   */
  #wasJustCutOff(line: LedgerLine): boolean {
    return this.ledger.lines.at(-1) === line && Date.now() - Date.parse(line.at) < 3_600_000
  }

  #sendOptions(key: string, intent: Intent) {
    const { signal, onProgress } = this.#options
    return {
      confirmations: this.config.confirmations,
      ...(signal && { signal }),
      beforeSending: ({ raw, earlier }: OpenTransaction): void =>
        this.#note(key, intent, 'signed', keccak256(raw), { raw, earlier }),
      onProgress: (p: SendProgress): void => onProgress?.({ what: intent.what, ...p }),
    }
  }

  #openOf(line: LedgerLine): OpenTransaction {
    return { raw: line.raw as Hex, earlier: line.earlier }
  }

  /** Writes down how a sent step ended; an interruption leaves it open. */
  async #recorded(
    key: string,
    intent: Intent,
    hash: Hex | undefined,
    work: () => Promise<Receipt | undefined>,
  ): Promise<Receipt | undefined> {
    try {
      const r = await work()
      if (r === undefined) this.#note(key, intent, 'failed', hash ?? '0x', { error: 'overtaken' })
      else {
        const gasUsed = Number(r.gasUsed)
        this.#note(key, intent, 'mined', r.hash, {
          block: r.block,
          gasUsed,
          feeWei: r.fee.toString(),
          contract: r.contract,
        })
      }
      return r
    } catch (error) {
      const last = this.ledger.latest(key, this.config.chainId, this.account.address)
      const final = isIotchainError(error) && (error.code === 'chain/reverted' || error.code === 'chain/replaced')
      if (final && last?.phase === 'signed') this.#note(key, intent, 'failed', last.hash, { error: error.message })
      throw error
    }
  }

  #note(key: string, intent: Intent, phase: LedgerLine['phase'], hash: Hex, rest: Partial<LedgerLine>): void {
    const { chainId } = this.config
    const at = new Date().toISOString()
    this.ledger.append({ at, key, what: intent.what, chainId, from: this.account.address, phase, hash, ...rest })
  }

  /** A development chain forgets; then the step is done again. */
  async #stillStands(line: LedgerLine): Promise<boolean> {
    const receipt = await this.rpc.call<object | null>('eth_getTransactionReceipt', [line.hash])
    return receipt !== null
  }
}

function receiptOf(line: LedgerLine): Receipt {
  return {
    hash: line.hash,
    block: line.block ?? 0,
    gasUsed: BigInt(line.gasUsed ?? 0),
    fee: BigInt(line.feeWei ?? 0),
    contract: line.contract,
  }
}
