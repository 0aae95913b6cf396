/**
 * The chain descriptor: what a deployment's own chain looks like, signed under its CA, so that a key server does not
 * take an attacker's private chain with the same id for it (IoTChain §III-E). A JSON file; the signature is ECDSA P-256
 * with SHA-256 (r ‖ s, base64) over "iotchain-chain-descriptor-1\n" and the payload with sorted keys and no spaces.
 */
import { type KeyObject, sign, verify } from 'node:crypto'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, parseAddress } from '../protocol/messages/address.ts'
import { keccak256 } from './account.ts'
import type { Rpc } from './rpc.ts'
import type { Hex } from './types.ts'

export interface ChainDescriptor {
  readonly chainId: number
  readonly genesisHash: Hex
  readonly registry: Address
  /** keccak-256 of runtime codes: of the registry, and of the AccessToken contracts that count */
  readonly codeHashes: { readonly registry: Hex; readonly accessToken: readonly Hex[] }
  /** boot nodes; an enode URL is the node's public key, so pinning it authenticates the node */
  readonly enodes: readonly string[]
  /** a block that has to be on the chain */
  readonly checkpoint: { readonly number: number; readonly hash: Hex }
}

const CONTEXT = 'iotchain-chain-descriptor-1\n'
const MAX_LENGTH = 65_536

/** The file's text. @param key of the root (or any CA that the key server lists under `issuers`) */
export function signDescriptor(descriptor: ChainDescriptor, key: KeyObject): string {
  const signature = sign('sha256', message(descriptor), { key, dsaEncoding: 'ieee-p1363' })
  return `${JSON.stringify({ payload: descriptor, signature: signature.toString('base64') }, null, 2)}\n`
}

/**
 * Reads a descriptor whose signature is of one of `keys`.
 *
 * @throws `chain/bad-descriptor`
 */
export function openDescriptor(text: string, keys: readonly KeyObject[]): ChainDescriptor {
  if (text.length > MAX_LENGTH) throw bad('is longer than 64 kB')
  let file: { payload?: unknown; signature?: unknown }
  try {
    file = JSON.parse(text)
  } catch {
    throw bad('is no JSON')
  }
  const descriptor = read(file?.payload)
  const signature = typeof file.signature === 'string' ? Buffer.from(file.signature, 'base64') : Buffer.alloc(0)
  const genuine = keys.some(
    (key) =>
      key.asymmetricKeyType === 'ec' &&
      signature.length === 64 &&
      verify('sha256', message(descriptor), { key, dsaEncoding: 'ieee-p1363' }, signature),
  )
  if (!genuine) throw bad('is not signed by a CA of this deployment')
  return descriptor
}

/**
 * Holds a node against the descriptor. A node that answers and differs is an impostor, or the wrong one.
 *
 * @throws `chain/impostor`, `chain/unreachable`
 */
export async function checkAgainst(descriptor: ChainDescriptor, rpc: Rpc): Promise<void> {
  const { genesisHash, checkpoint, registry, codeHashes } = descriptor
  const numberOf = (n: number): Hex => `0x${n.toString(16)}`
  const [genesis, known, code] = await Promise.all([
    rpc.call<{ hash: Hex } | null>('eth_getBlockByNumber', ['0x0', false]),
    rpc.call<{ hash: Hex } | null>('eth_getBlockByNumber', [numberOf(checkpoint.number), false]),
    rpc.call<Hex>('eth_getCode', [registry, 'latest']),
  ])
  if (genesis?.hash !== genesisHash) throw impostor(rpc, 'another genesis block')
  if (known?.hash !== checkpoint.hash) throw impostor(rpc, `another block ${checkpoint.number} (the checkpoint)`)
  if (keccak256(code) !== codeHashes.registry) throw impostor(rpc, 'another contract at the address of the registry')
}

function impostor(rpc: Rpc, what: string): IotchainError {
  return new IotchainError('chain/impostor', `the node at ${rpc.name} has ${what} than the chain descriptor says`, {
    hint: 'It may follow an attacker\u2019s chain of the same id: point rpcUrl at a node of yours, and check its peers.',
    retryAfterSeconds: 60,
  })
}

const message = (descriptor: ChainDescriptor): Buffer => Buffer.from(CONTEXT + canonical(descriptor))

/** JSON with sorted keys and no spaces; the values here are strings, integers, lists and objects. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
    return `{${entries.map(([k, v]) => `${JSON.stringify(k)}:${canonical(v)}`).join(',')}}`
  }
  return JSON.stringify(value)
}

function read(value: unknown): ChainDescriptor {
  const o = object(value, ['chainId', 'genesisHash', 'registry', 'codeHashes', 'enodes', 'checkpoint'])
  const codes = object(o['codeHashes'], ['registry', 'accessToken'])
  const checkpoint = object(o['checkpoint'], ['number', 'hash'])
  const registry = o['registry']
  if (typeof registry !== 'string') throw bad('has no registry')
  return {
    chainId: integer(o['chainId']),
    genesisHash: hash(o['genesisHash']),
    registry: parseAddress(registry),
    codeHashes: { registry: hash(codes['registry']), accessToken: list(codes['accessToken']).map(hash) },
    enodes: list(o['enodes']).map((e) => {
      if (typeof e !== 'string' || !/^enode:\/\/[0-9a-f]{128}@[^\s]{1,200}$/.test(e))
        throw bad('has an enode that is none')
      return e
    }),
    checkpoint: { number: integer(checkpoint['number']), hash: hash(checkpoint['hash']) },
  }
}

function object(value: unknown, keys: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('lacks a part')
  if (Object.keys(value).sort().join() !== [...keys].sort().join()) throw bad('has too few or too many entries')
  return value as Record<string, unknown>
}

function list(value: unknown): unknown[] {
  if (!Array.isArray(value) || value.length > 64) throw bad('has a list that is none, or is too long')
  return value
}

function integer(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw bad('has a number that is none')
  return value
}

function hash(value: unknown): Hex {
  if (typeof value !== 'string' || !/^0x[0-9a-f]{64}$/.test(value)) throw bad('has a hash that is none')
  return value as Hex
}

function bad(why: string): IotchainError {
  return new IotchainError('chain/bad-descriptor', `the chain descriptor ${why}`, {
    hint: 'Make it anew with `iotchain owner descriptor`, and copy it unchanged.',
  })
}
