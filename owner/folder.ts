/** The owner's folder: settings, the encrypted key, the certification authority, what stands on the chain, the ledger. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { z } from 'zod'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, parseAddress } from '../protocol/messages/address.ts'
import { isThere, writeFileAtomic } from '../runtime/atomic-file.ts'
import { loadConfig } from '../runtime/config.ts'
import { makeFolder } from '../runtime/folder.ts'

const address = z.string().transform((text, context): Address => {
  try {
    return parseAddress(text)
  } catch {
    context.addIssue({ code: 'custom', message: `"${text}" is no Ethereum address` })
    return z.NEVER
  }
})

export const ownerSchema = z.strictObject({
  rpcUrl: z
    .url({ protocol: /^https?$/ })
    .default('http://127.0.0.1:8545')
    .describe('JSON-RPC of an Ethereum node'),
  chainId: z.int().positive().describe('chain id of the network; anything else the node says is refused'),
  registry: address.optional().describe('DeviceRegistry; without it `iotchain owner deploy` deploys one'),
  confirmations: z.int().min(0).max(1000).default(0).describe('blocks to wait for on top of a transaction'),
})
export type OwnerConfig = z.output<typeof ownerSchema>

/** What this owner has deployed, by the names it gave. */
export interface Standing {
  registry?: Address
  contracts: Record<string, Address>
  policies: Record<string, Address>
}

export class OwnerFolder {
  readonly path: string
  readonly configFile: string
  readonly keyFile: string
  readonly ledgerFile: string
  readonly caFolder: string

  /** @param home the folder that `--home` names; the owner's things are in `owner/` below it */
  constructor(home: string) {
    this.path = join(home, 'owner')
    this.configFile = join(this.path, 'config.yaml')
    this.keyFile = join(this.path, 'key.json')
    this.ledgerFile = join(this.path, 'ledger.jsonl')
    this.caFolder = join(this.path, 'ca')
  }

  get exists(): boolean {
    return isThere(this.configFile) || isThere(this.keyFile)
  }

  /** @throws `owner/not-initialised`, `config/…` */
  config(): OwnerConfig {
    if (!isThere(this.configFile)) {
      throw new IotchainError('owner/not-initialised', `there is no owner in ${this.path} yet`, {
        hint: 'Run `iotchain owner init` first, or name another folder with --home.',
      })
    }
    return loadConfig(ownerSchema, this.configFile)
  }

  create(config: {
    rpcUrl: string
    chainId: number
    registry?: Address | undefined
    confirmations?: number | undefined
  }): void {
    makeFolder(this.path)
    const text = stringify(Object.fromEntries(Object.entries(config).filter(([, v]) => v !== undefined)))
    writeFileAtomic(this.configFile, `# Settings of \`iotchain owner\`; see docs/owner.md\n${text}`, { mode: 0o600 })
  }

  standing(): Standing {
    const file = this.#standingFile
    if (!existsSync(file)) return { contracts: {}, policies: {} }
    try {
      return JSON.parse(readFileSync(file, 'utf8')) as Standing
    } catch (cause) {
      throw new IotchainError('owner/damaged', `${file} is damaged`, {
        hint: 'Restore it from a copy; `iotchain owner audit` and the ledger name all addresses.',
        cause,
      })
    }
  }

  /** Durable when it returns. */
  note(change: (standing: Standing) => void): void {
    const standing = this.standing()
    change(standing)
    writeFileAtomic(this.#standingFile, `${JSON.stringify(standing, null, 2)}\n`, { mode: 0o600 })
  }

  get #standingFile(): string {
    return join(this.path, 'standing.json')
  }
}
