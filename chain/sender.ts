/**
 * Sends transactions of one account: estimates, prices, signs, sends, follows each until it is as deep as asked, and
 * sends it again if a reorg or a restarted node lost it. One at a time in each process; a nonce that another process
 * took meanwhile is taken anew.
 */
import { IotchainError } from '../protocol/errors.ts'
import { keccak256 } from './account.ts'
import { pause, within } from './patience.ts'
import { revertError } from './revert.ts'
import { type Rpc, RpcError } from './rpc.ts'
import {
  type Intent,
  noFunds,
  notMined,
  type OpenTransaction,
  type Quote,
  quantity,
  type RawReceipt,
  type Receipt,
  raised,
  refused,
  replaced,
  type SendOptions,
  toReceipt,
} from './transaction.ts'
import type { Hex } from './types.ts'
import type { Account, UnsignedTransaction } from './wallet.ts'

export interface TransactionSenderOptions {
  readonly rpc: Rpc
  readonly chainId: number
  readonly account: Account
  /** How long a transaction may take to be mined before that is an error; default 300. */
  readonly patienceSeconds?: number
  /** Pause between looks at a pending transaction; default 500. */
  readonly pollMs?: number
}

export class TransactionSender {
  readonly account: Account
  readonly rpc: Rpc
  readonly chainId: number
  readonly #patienceMs: number
  readonly #pollMs: number
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: TransactionSenderOptions) {
    this.account = options.account
    this.rpc = options.rpc
    this.chainId = options.chainId
    this.#patienceMs = (options.patienceSeconds ?? 300) * 1000
    this.#pollMs = options.pollMs ?? 500
  }

  /** What it would cost now, after a trial run on the newest state. @throws `chain/reverted`, `chain/no-funds` */
  async quote(intent: Intent): Promise<Quote> {
    const { quote } = await this.#prepare(intent)
    return quote
  }

  /**
   * Sends and follows a transaction.
   *
   * @throws `chain/reverted` with the contract's reason, `chain/no-funds`, `chain/wrong-chain`, `chain/not-mined`,
   *   `chain/unreachable`
   */
  async send(intent: Intent, options: SendOptions = {}): Promise<Receipt> {
    const sent = await this.#inTurn(() => this.#submit(intent, options))
    return this.#follow(intent, sent.raw, [sent.hash], options)
  }

  /**
   * Goes on with a transaction that was signed before (by this process or one that was cut off).
   *
   * @param options.raiseFee sends it again with a higher fee, if it is not mined yet
   * @returns undefined if it can never be mined any more: another transaction took its nonce
   */
  async resume(
    intent: Intent,
    open: OpenTransaction,
    options: SendOptions & { raiseFee?: boolean } = {},
  ): Promise<Receipt | undefined> {
    let { raw } = open
    let hashes = [keccak256(raw), ...(open.earlier ?? [])]
    if (!(await this.#isMined(hashes))) {
      if (options.raiseFee === true) {
        raw = await this.#withHigherFee(intent, raw)
        await options.beforeSending?.({ raw, earlier: hashes })
        hashes = [keccak256(raw), ...hashes]
      }
      try {
        await this.rpc.call<Hex>('eth_sendRawTransaction', [raw])
      } catch (error) {
        if (!(error instanceof RpcError)) throw error
        // refused, or mined between the two questions; what no node takes cannot be mined besides the next of this nonce
        if (!KNOWN.test(error.message) && !(await this.#isMined(hashes))) return undefined
      }
    }
    options.onProgress?.({ phase: 'sent', hash: hashes[0] as Hex })
    return this.#follow(intent, raw, hashes, options)
  }

  async #isMined(hashes: readonly Hex[]): Promise<boolean> {
    const receipts = await Promise.all(
      hashes.map((hash) => this.rpc.call<RawReceipt | null>('eth_getTransactionReceipt', [hash])),
    )
    return receipts.some((r) => r !== null)
  }

  async #withHigherFee(intent: Intent, raw: Hex): Promise<Hex> {
    const { rpc, account } = this
    const { readTransaction } = await import('./wallet.ts')
    const old = readTransaction(raw)
    const [balance, block] = await Promise.all([
      rpc.call<Hex>('eth_getBalance', [account.address, 'latest']),
      rpc.call<{ baseFeePerGas?: Hex }>('eth_getBlockByNumber', ['latest', false]),
    ])
    const now = await this.#fees(old.maxFeePerGas === undefined ? undefined : block.baseFeePerGas)
    const fees =
      old.maxFeePerGas === undefined
        ? { gasPrice: raised(old.gasPrice ?? 0n, now.gasPrice ?? 0n) }
        : {
            maxFeePerGas: raised(old.maxFeePerGas, now.maxFeePerGas ?? 0n),
            maxPriorityFeePerGas: raised(old.maxPriorityFeePerGas ?? 0n, now.maxPriorityFeePerGas ?? 0n),
          }
    const total = old.gasLimit * (fees.maxFeePerGas ?? fees.gasPrice ?? 0n) + old.value
    if (total > BigInt(balance)) throw noFunds(intent, account.address, BigInt(balance), total)
    return account.signTransaction({ ...old, ...fees })
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work)
    this.#turn = mine.catch(() => undefined)
    return mine
  }

  async #prepare(intent: Intent): Promise<{ unsigned: UnsignedTransaction; quote: Quote }> {
    const { rpc, account, chainId } = this
    const { to, data, value = 0n } = intent
    const call = { from: account.address, ...(to === undefined ? {} : { to }), data, value: quantity(value) }
    const [chain, nonce, balance, block] = await Promise.all([
      rpc.call<Hex>('eth_chainId'),
      rpc.call<Hex>('eth_getTransactionCount', [account.address, 'pending']),
      rpc.call<Hex>('eth_getBalance', [account.address, 'latest']),
      rpc.call<{ baseFeePerGas?: Hex }>('eth_getBlockByNumber', ['latest', false]),
    ])
    if (Number(chain) !== chainId) {
      throw new IotchainError(
        'chain/wrong-chain',
        `the node at ${rpc.name} is on chain ${Number(chain)}, not on ${chainId}`,
        {
          hint: 'Point rpcUrl at a node of the right network, or correct chainId.',
        },
      )
    }
    const fees = await this.#fees(block.baseFeePerGas)
    const estimate = await rpc.call<Hex>('eth_estimateGas', [call]).catch((error: unknown) => {
      throw refused(intent, error, account.address, BigInt(balance))
    })
    // estimates of calls that pass on a fixed amount of gas come out low by up to 1/63
    const gasLimit = (BigInt(estimate) * 21n) / 20n
    const gasPrice = fees.maxFeePerGas ?? fees.gasPrice ?? 0n
    const quote = { gas: gasLimit, gasPrice, total: gasLimit * gasPrice + value, balance: BigInt(balance) }
    if (quote.total > quote.balance) throw noFunds(intent, account.address, quote.balance, quote.total)
    const unsigned = { chainId, nonce: Number(nonce), to: to ?? null, data, value, gasLimit, ...fees }
    return { unsigned, quote }
  }

  async #fees(
    baseFee: Hex | undefined,
  ): Promise<Pick<UnsignedTransaction, 'maxFeePerGas' | 'maxPriorityFeePerGas' | 'gasPrice'>> {
    if (baseFee === undefined) return { gasPrice: BigInt(await this.rpc.call<Hex>('eth_gasPrice')) }
    const tip = await this.rpc.call<Hex>('eth_maxPriorityFeePerGas').catch((error: unknown) => {
      if (error instanceof RpcError) return '0x1' as Hex
      throw error
    })
    // room for six full blocks in a row, each of which may raise the base fee by an eighth
    return { maxPriorityFeePerGas: BigInt(tip), maxFeePerGas: 2n * BigInt(baseFee) + BigInt(tip) }
  }

  async #submit(intent: Intent, options: SendOptions): Promise<{ raw: Hex; hash: Hex }> {
    for (let attempt = 1; ; attempt++) {
      options.signal?.throwIfAborted()
      const { unsigned, quote } = await this.#prepare(intent)
      options.onProgress?.({ phase: 'priced', quote })
      const raw = await this.account.signTransaction(unsigned)
      const hash = keccak256(raw)
      await options.beforeSending?.({ raw })
      options.onProgress?.({ phase: 'signed', hash, raw })
      try {
        await this.rpc.call<Hex>('eth_sendRawTransaction', [raw])
      } catch (error) {
        if (error instanceof RpcError && NONCE_TAKEN.test(error.message) && attempt < 4) continue
        if (!(error instanceof RpcError && KNOWN.test(error.message)))
          throw refused(intent, error, this.account.address, quote.balance)
      }
      options.onProgress?.({ phase: 'sent', hash })
      return { raw, hash }
    }
  }

  /** @param hashes of the transaction, and of those with lower fees that it takes the place of */
  async #follow(intent: Intent, raw: Hex, hashes: readonly Hex[], options: SendOptions): Promise<Receipt> {
    const { confirmations: of = 0, signal } = options
    let seenMs = performance.now()
    let lastDepth = -1
    // a node that takes questions and answers none must not make it longer
    const patient = <T>(work: Promise<T>): Promise<T | undefined> =>
      within(Math.max(this.#pollMs, seenMs + this.#patienceMs - performance.now()), work, signal)
    for (let look = 1; ; look++) {
      signal?.throwIfAborted()
      const found = await patient(this.#look(hashes))
      if (found === undefined) {
        lastDepth = -1
        // a reorg or a restart may have lost it; sending it again is harmless
        if (look % 20 === 0 && (await patient(this.#isOvertaken(raw, hashes)))) {
          throw replaced(intent, hashes[0] as Hex)
        }
        if (performance.now() - seenMs > this.#patienceMs) throw notMined(intent, hashes[0] as Hex, this.#patienceMs)
      } else {
        const { hash, receipt, depth } = found
        seenMs = performance.now()
        if (receipt.status === '0x0') throw await this.#failure(intent, receipt)
        if (depth !== lastDepth) {
          options.onProgress?.({
            phase: 'confirming',
            hash,
            block: Number(receipt.blockNumber),
            depth: Math.min(depth, of),
            of,
          })
        }
        lastDepth = depth
        if (depth >= of) return toReceipt(hash, receipt)
      }
      await pause(this.#pollMs, signal)
    }
  }

  /** Sends it again; true if another transaction of this account was mined in its place. */
  async #isOvertaken(raw: Hex, hashes: readonly Hex[]): Promise<boolean> {
    try {
      await this.rpc.call('eth_sendRawTransaction', [raw])
      return false
    } catch (error) {
      if (!(error instanceof RpcError && NONCE_TAKEN.test(error.message))) return false
      return (await this.#look(hashes)) === undefined
    }
  }

  /** The receipt and how many blocks stand on it; undefined while there is none or the node is away. */
  async #look(hashes: readonly Hex[]): Promise<{ hash: Hex; receipt: RawReceipt; depth: number } | undefined> {
    try {
      const [height, ...receipts] = await Promise.all([
        this.rpc.call<Hex>('eth_blockNumber'),
        ...hashes.map((hash) => this.rpc.call<RawReceipt | null>('eth_getTransactionReceipt', [hash])),
      ])
      const at = receipts.findIndex((r) => r !== null)
      const receipt = receipts[at]
      if (receipt === undefined || receipt === null) return undefined
      return { hash: hashes[at] as Hex, receipt, depth: Math.max(0, Number(height) - Number(receipt.blockNumber)) }
    } catch (error) {
      if (error instanceof IotchainError && (error.code === 'chain/unreachable' || error.code === 'chain/rpc'))
        return undefined
      throw error
    }
  }

  /** Runs a mined failure again on the state it met, to learn the reason. */
  async #failure(intent: Intent, receipt: RawReceipt): Promise<IotchainError> {
    const { to, data, value = 0n } = intent
    const call = { from: this.account.address, ...(to === undefined ? {} : { to }), data, value: quantity(value) }
    try {
      await this.rpc.call('eth_call', [call, receipt.blockNumber])
    } catch (error) {
      if (error instanceof RpcError) return revertError(intent.what, error)
    }
    return revertError(intent.what, undefined)
  }
}

const NONCE_TAKEN = /nonce too low|replacement transaction underpriced|nonce has already been used/i
const KNOWN = /already known|already imported|known transaction/i
