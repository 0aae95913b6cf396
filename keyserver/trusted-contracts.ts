/** Which AccessToken contracts are believed: those of our release by their code, those of the descriptor, those allowed by name. */
import { accessTokenCode } from '../chain/bytecode.ts'
import type { Head } from '../chain/types.ts'
import type { ChainView } from '../chain/view.ts'
import type { Address } from '../protocol/messages/address.ts'
import type { Logger } from '../runtime/log.ts'

const REMEMBERED = 10_000

export class TrustedContracts {
  readonly #chain: ChainView
  readonly #allowed: ReadonlySet<Address>
  readonly #codeHashes: ReadonlySet<string>
  readonly #log: Logger
  /** A contract's code does not change: what is trusted stays so. */
  readonly #known = new Set<Address>()

  /** @param codeHashes of the chain descriptor; none: those of this release */
  constructor(chain: ChainView, allowed: Iterable<Address>, codeHashes: Iterable<string> | undefined, log: Logger) {
    this.#chain = chain
    this.#allowed = new Set(allowed)
    this.#codeHashes = new Set(codeHashes ?? [accessTokenCode.codeHash])
    this.#log = log
  }

  async isTrusted(contract: Address, head: Head): Promise<boolean> {
    if (this.#allowed.has(contract) || this.#known.has(contract)) return true
    const hash = await this.#chain.codeHash(contract, head)
    if (hash === undefined) return false
    if (!this.#codeHashes.has(hash)) {
      this.#log.limited(
        `contract/${contract}`,
        'warn',
        { contract, codeHash: hash },
        'a registered contract has unknown code: its tokens do not count (chain.allowContracts)',
      )
      return false
    }
    if (this.#known.size >= REMEMBERED) this.#known.clear()
    this.#known.add(contract)
    return true
  }
}
