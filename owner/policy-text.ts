/**
 * Policies as an owner writes them on a command line:
 * `open`, `puzzle(16)`, `quota(1d,2,100)`, `allowlist(FILE)`, `attestation(STATEMENT,ISSUER,…)`, `ether(FIXED,PERSECOND)`,
 * `token(CURRENCY,FIXED,PERSECOND)`, `holder(ASSET,MINIMUM)`, `all(POLICY,…)`, `any(POLICY,…)`.
 */
import type { PolicySpec } from '../chain/deployments.ts'
import { merkleTree } from '../chain/merkle.ts'
import type { Hex } from '../chain/types.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, parseAddress } from '../protocol/messages/address.ts'
import { readFileOrExplain } from '../runtime/atomic-file.ts'
import { parseDuration } from '../runtime/duration.ts'

/** A policy whose parts do not stand yet. */
export type PolicyPlan =
  | { readonly leaf: Exclude<PolicySpec, { kind: 'all-of' | 'any-of' }> }
  | { readonly kind: 'all-of' | 'any-of'; readonly parts: readonly PolicyPlan[] }

const MAX_PARTS = 8
const MAX_DEPTH = 4

/**
 * @param owner sets lists and issuers, and is paid
 * @throws `owner/bad-policy`
 */
export function parsePolicy(text: string, owner: Address): PolicyPlan {
  return plan(text.trim(), owner, 0)
}

function plan(text: string, owner: Address, depth: number): PolicyPlan {
  const match = /^([a-z]+)(?:\((.*)\))?$/s.exec(text)
  if (match === null) throw bad(text, 'it should look like puzzle(16) or all(puzzle(16),quota(1d,2,100))')
  const name = match[1] as string
  const args = splitArguments(match[2] ?? '')
  if (name === 'all' || name === 'any') {
    if (depth >= MAX_DEPTH) throw bad(text, 'that is nested too deeply')
    if (args.length === 0 || args.length > MAX_PARTS) throw bad(text, `it takes 1 to ${MAX_PARTS} parts`)
    return { kind: name === 'all' ? 'all-of' : 'any-of', parts: args.map((a) => plan(a, owner, depth + 1)) }
  }
  return { leaf: leaf(name, args, owner, text) }
}

function leaf(
  name: string,
  args: readonly string[],
  owner: Address,
  text: string,
): Exclude<PolicySpec, { kind: 'all-of' | 'any-of' }> {
  const count = (least: number, most: number): void => {
    if (args.length < least || args.length > most)
      throw bad(text, `${name} takes ${least === most ? least : `${least} to ${most}`} values`)
  }
  const arg = (i: number): string => args[i] ?? ''
  switch (name) {
    case 'open':
      count(0, 0)
      return { kind: 'open' }
    case 'puzzle':
      count(1, 1)
      return { kind: 'puzzle', difficulty: integer(arg(0), 1, 40, text) }
    case 'quota': {
      count(3, 3)
      const periodSeconds = Math.floor(parseDuration(arg(0)) / 1000)
      if (periodSeconds < 1) throw bad(text, 'the period is at least a second')
      return {
        kind: 'quota',
        periodSeconds,
        perClient: integer(arg(1), 1, 2 ** 32 - 1, text),
        total: integer(arg(2), 1, 2 ** 32 - 1, text),
      }
    }
    case 'allowlist':
      count(1, 1)
      return { kind: 'allowlist', owner, root: merkleTree(readAddressList(arg(0))).root }
    case 'attestation':
      count(2, 33)
      if (!/^0x[0-9a-fA-F]{64}$/.test(arg(0))) throw bad(text, 'the statement is 0x and 64 hexadecimal digits')
      return {
        kind: 'attestation',
        owner,
        statement: arg(0).toLowerCase() as Hex,
        issuers: args.slice(1).map((a) => parseAddress(a)),
      }
    case 'ether':
      count(1, 2)
      return {
        kind: 'payment-ether',
        payee: owner,
        fixed: amount(arg(0), text),
        perSecond: amount(args[1] ?? '0', text),
      }
    case 'token':
      count(2, 3)
      return {
        kind: 'payment-token',
        currency: parseAddress(arg(0)),
        payee: owner,
        fixed: amount(arg(1), text),
        perSecond: amount(args[2] ?? '0', text),
      }
    case 'holder':
      count(1, 2)
      return { kind: 'holder', asset: parseAddress(arg(0)), minimum: amount(args[1] ?? '1', text) }
    default:
      throw bad(text, 'known are open, puzzle, quota, allowlist, attestation, ether, token, holder, all, any')
  }
}

/** Addresses, one a line; `#` begins a remark. @throws `runtime/cannot-read`, `message/bad-address` */
export function readAddressList(file: string): Address[] {
  return readFileOrExplain(file, 'list of addresses')
    .toString('utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
    .map((line) => parseAddress(line))
}

/** At commas that stand in no inner parentheses. */
function splitArguments(text: string): string[] {
  const parts: string[] = []
  let depth = 0
  let current = ''
  for (const c of text) {
    if (c === '(') depth++
    if (c === ')') depth--
    if (c === ',' && depth === 0) {
      parts.push(current.trim())
      current = ''
    } else current += c
  }
  if (current.trim() !== '') parts.push(current.trim())
  return parts
}

function integer(text: string, least: number, most: number, whole: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= least && value <= most)) throw bad(whole, `"${text}" should be a number from ${least} to ${most}`)
  return value
}

function amount(text: string, whole: string): bigint {
  if (!/^\d{1,70}$/.test(text)) throw bad(whole, `"${text}" should be an amount in the smallest unit`)
  return BigInt(text)
}

function bad(text: string, why: string): IotchainError {
  return new IotchainError('owner/bad-policy', `"${text.slice(0, 80)}" is no policy: ${why}`, {
    hint: 'The policies are described in docs/contracts.md.',
  })
}
