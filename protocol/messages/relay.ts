/**
 * /relay: a fresh address that owns nothing has its token request paid for by the key server's operator. What holds
 * strangers back is a puzzle that the key server sets, once for each request (protocol.md "Relay").
 */
import { sha256 } from '@noble/hashes/sha2.js'
import { concat, u32, utf8 } from '../bytes.ts'
import { encodeCbor } from '../cbor.ts'
import { decodeMessage, malformed, readArray, readBytes, readMap, readUint } from './fields.ts'
import { Label } from './labels.ts'

/** GET /relay: the task of one request, bound to the association. */
export interface RelayTask {
  /** 32 octets, single use */
  readonly challenge: Uint8Array
  /** seconds for which it holds */
  readonly exi: number
  /** leading zero bits that the solution's hash has to have */
  readonly difficulty: number
}

/**
 * ```cddl
 * relay-task = { 12 => exi: uint, 30 => challenge: bstr .size 32, "difficulty" => 0..64 }
 * ```
 */
export function encodeRelayTask(task: RelayTask): Uint8Array {
  return encodeCbor(
    new Map<number | string, number | Uint8Array>([
      [Label.exi, task.exi],
      [Label.kdcchallenge, task.challenge],
      ['difficulty', task.difficulty],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeRelayTask(octets: Uint8Array): RelayTask {
  const map = readMap<number | string>(decodeMessage(octets, 'relay task'), 'relay task', [
    Label.exi,
    Label.kdcchallenge,
    'difficulty',
  ])
  return {
    exi: readUint(map.get(Label.exi), 'exi', 86_400),
    challenge: readBytes(map.get(Label.kdcchallenge), 'challenge', 32),
    difficulty: readUint(map.get('difficulty'), 'difficulty', 64),
  }
}

/** POST /relay: a request for an offer, signed by the client for its AccessToken contract (EIP-712 TokenRequest). */
export interface RelayRequest {
  readonly challenge: Uint8Array
  /** 8 octets */
  readonly solution: Uint8Array
  /** AccessToken contract, 20 octets */
  readonly contract: Uint8Array
  /** 20 octets */
  readonly client: Uint8Array
  readonly offer: number
  readonly ttlSeconds: number
  /** what the offer's policy wants to see */
  readonly proof: Uint8Array
  /** unix seconds */
  readonly deadline: number
  /** 65 octets, more for a contract account */
  readonly signature: Uint8Array
}

/**
 * ```cddl
 * relay-request = [ challenge: bstr .size 32, solution: bstr .size 8, contract: bstr .size 20, client: bstr .size 20,
 *                   offer: uint, ttl: uint, proof: bstr .size (0..8192), deadline: uint, signature: bstr .size (65..4096) ]
 * ```
 */
export function encodeRelayRequest(r: RelayRequest): Uint8Array {
  return encodeCbor([
    r.challenge,
    r.solution,
    r.contract,
    r.client,
    r.offer,
    r.ttlSeconds,
    r.proof,
    r.deadline,
    r.signature,
  ])
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeRelayRequest(octets: Uint8Array): RelayRequest {
  const f = readArray(decodeMessage(octets, 'relay request'), 'relay request', 9)
  return {
    challenge: readBytes(f[0], 'challenge', 32),
    solution: readBytes(f[1], 'solution', 8),
    contract: readBytes(f[2], 'contract', 20),
    client: readBytes(f[3], 'client', 20),
    offer: readUint(f[4], 'offer', 0xffffffff),
    ttlSeconds: readUint(f[5], 'ttl'),
    proof: readBytes(f[6], 'proof', [0, 8192]),
    deadline: readUint(f[7], 'deadline'),
    signature: readBytes(f[8], 'signature', [65, 4096]),
  }
}

/** The reply: hash of the transaction that carries the request; the same request again gets the same hash. */
export function encodeRelayReply(transaction: Uint8Array): Uint8Array {
  return encodeCbor(new Map([['transaction', transaction]]))
}

/** 32 octets. @throws `message/malformed`, `cbor/…` */
export function decodeRelayReply(octets: Uint8Array): Uint8Array {
  const map = readMap(decodeMessage(octets, 'relay reply'), 'relay reply', ['transaction'])
  return readBytes(map.get('transaction'), 'transaction', 32)
}

/** What a solution is for: another request needs another one. */
export type RelayPuzzle = Pick<RelayRequest, 'challenge' | 'contract' | 'client'>

/** True if SHA-256("iotc1 relay" ‖ challenge ‖ contract ‖ client ‖ solution) begins with `difficulty` zero bits. */
export function solvesRelayPuzzle(puzzle: RelayPuzzle, solution: Uint8Array, difficulty: number): boolean {
  return leadingZeroBits(sha256(concat(prefixOf(puzzle), solution))) >= difficulty
}

/**
 * Tries `tries` solutions from number `from` on; call it again with `from + tries` until it finds one.
 * @returns 8 octets, or undefined
 */
export function searchRelaySolution(
  puzzle: RelayPuzzle,
  difficulty: number,
  from: number,
  tries: number,
): Uint8Array | undefined {
  if (!Number.isSafeInteger(from) || from < 0) throw malformed('solutions are counted from 0')
  const prefix = prefixOf(puzzle)
  for (let i = from; i < from + tries; i++) {
    const solution = concat(u32(Math.floor(i / 2 ** 32)), u32(i >>> 0))
    if (leadingZeroBits(sha256(concat(prefix, solution))) >= difficulty) return solution
  }
  return undefined
}

function prefixOf({ challenge, contract, client }: RelayPuzzle): Uint8Array {
  return concat(utf8('iotc1 relay'), challenge, contract, client)
}

function leadingZeroBits(hash: Uint8Array): number {
  let bits = 0
  for (const octet of hash) {
    if (octet !== 0) return bits + Math.clz32(octet) - 24
    bits += 8
  }
  return bits
}
