/**
 * Solves the Puzzle policy: a nonce such that SHA-256(challenge ‖ nonce) begins with enough zero bits (hashcash). The
 * challenge binds chain, policy, consumer, contract, client, resource, offer and a block hash of the last 256 blocks.
 */
import { createHash, randomBytes } from 'node:crypto'
import { concat, fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, addressBytes } from '../protocol/messages/address.ts'
import { keccak256 } from './account.ts'
import type { Hex } from './types.ts'

export interface PuzzleTask {
  readonly chainId: number
  readonly policy: Address
  /** who asks the policy: the AccessToken contract, or the composite that the policy is part of */
  readonly consumer: Address
  readonly accessToken: Address
  readonly client: Address
  readonly resource: Address
  readonly offer: number
  readonly block: { readonly number: number; readonly hash: Hex }
  /** leading zero bits */
  readonly difficulty: number
}

export interface PuzzleProgress {
  readonly tried: number
  /** 2^difficulty: how many it takes on average */
  readonly expected: number
}

export interface PuzzleOptions {
  readonly onProgress?: (progress: PuzzleProgress) => void
  readonly signal?: AbortSignal
}

/** Hashes between two breaths: some milliseconds, so that timers and Ctrl-C are served. */
const SLICE = 4_096
/** More than this would not end in a day; the offer is a mistake. */
const MAX_DIFFICULTY = 40

/** @returns the proof that `requestToken` takes: abi.encode(uint64 blockNumber, uint256 nonce) */
export async function solvePuzzle(task: PuzzleTask, options: PuzzleOptions = {}): Promise<Hex> {
  if (task.difficulty > MAX_DIFFICULTY) {
    throw new IotchainError('chain/puzzle-too-hard', `a puzzle of ${task.difficulty} bits would take days`, {
      hint: 'Ask the resource owner for an easier offer.',
    })
  }
  const input = Buffer.concat([fromHex(puzzleChallenge(task)), randomBytes(32)])
  const expected = 2 ** task.difficulty
  let tried = 0
  for (;;) {
    for (let i = 0; i < SLICE; i++) {
      input.writeUInt32BE(tried >>> 0, 60)
      input.writeUInt32BE(Math.floor(tried / 2 ** 32), 56)
      tried++
      if (isSolution(createHash('sha256').update(input).digest(), task.difficulty)) {
        options.onProgress?.({ tried, expected })
        return `0x${word(BigInt(task.block.number))}${toHex(input.subarray(32))}`
      }
    }
    options.onProgress?.({ tried, expected })
    await new Promise((resolve) => setImmediate(resolve))
    options.signal?.throwIfAborted()
  }
}

export function puzzleChallenge(task: PuzzleTask): Hex {
  const words = [
    fromHex(word(BigInt(task.chainId))),
    ...[task.policy, task.consumer, task.accessToken, task.client, task.resource].map(addressWord),
    fromHex(word(BigInt(task.offer))),
    fromHex(task.block.hash),
  ]
  return keccak256(concat(...words))
}

function isSolution(hash: Uint8Array, bits: number): boolean {
  let left = bits
  for (const octet of hash) {
    if (left <= 0) return true
    if (left >= 8 ? octet !== 0 : octet >>> (8 - left) !== 0) return false
    left -= 8
  }
  return true
}

const word = (value: bigint): string => value.toString(16).padStart(64, '0')
const addressWord = (address: Address): Uint8Array => concat(new Uint8Array(12), addressBytes(address))
