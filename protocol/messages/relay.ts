/**
 * /relay on the key server: somebody else pays for the token request of a fresh address (protocol.md "Relay"). GET gives
 * a puzzle, POST brings its solution with the request that the client signed; the same request again gets the same
 * transaction hash.
 */
import { sha256 } from '@noble/hashes/sha2.js'
import { concat } from '../bytes.ts'
import { encodeCbor } from '../cbor.ts'
import { decodeMessage, malformed, readArray, readBytes, readMap, readUint } from './fields.ts'

/** GET /relay: single use, bound to the association that asked. */
export interface RelayPuzzle {
  /** 32 octets */
  readonly challenge: Uint8Array
  /** leading zero bits of SHA-256(challenge ‖ SHA-256(request) ‖ nonce) */
  readonly difficulty: number
  /** seconds for which it holds */
  readonly exi: number
}

/**
 * ```cddl
 * relay-puzzle = { "challenge" => bstr .size 32, "difficulty" => 0..64, "exi" => uint }
 * ```
 */
export function encodeRelayPuzzle(puzzle: RelayPuzzle): Uint8Array {
  return encodeCbor(
    new Map<string, number | Uint8Array>([
      ['challenge', puzzle.challenge],
      ['difficulty', puzzle.difficulty],
      ['exi', puzzle.exi],
    ]),
  )
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeRelayPuzzle(octets: Uint8Array): RelayPuzzle {
  const map = readMap(decodeMessage(octets, 'relay puzzle'), 'relay puzzle', ['challenge', 'difficulty', 'exi'])
  return {
    challenge: readBytes(map.get('challenge'), 'challenge', 32),
    difficulty: readUint(map.get('difficulty'), 'difficulty', 64),
    exi: readUint(map.get('exi'), 'exi', 86_400),
  }
}

/** What the client signed for AccessToken.requestTokenFor. */
export interface RelayRequest {
  /** AccessToken contract, 20 octets */
  readonly contract: Uint8Array
  /** 20 octets */
  readonly client: Uint8Array
  readonly offer: number
  /** seconds */
  readonly ttl: number
  /** proof for the offer's policy */
  readonly proof: Uint8Array
  /** unix seconds */
  readonly deadline: number
  /** over EIP-712 TokenRequest */
  readonly signature: Uint8Array
}

export interface RelayMessage {
  readonly request: RelayRequest
  /** of the puzzle, 32 octets */
  readonly challenge: Uint8Array
  /** its solution, 8 octets */
  readonly nonce: Uint8Array
}

function requestValue(r: RelayRequest): (number | Uint8Array)[] {
  return [r.contract, r.client, r.offer, r.ttl, r.proof, r.deadline, r.signature]
}

/**
 * POST /relay.
 * ```cddl
 * relay-message = [ request: relay-request, challenge: bstr .size 32, nonce: bstr .size 8 ]
 * relay-request = [ contract: bstr .size 20, client: bstr .size 20, offer: uint, ttl: uint, proof: bstr .size (0..8192),
 *                   deadline: uint, signature: bstr .size (65..4096) ]
 * ```
 */
export function encodeRelayMessage(message: RelayMessage): Uint8Array {
  return encodeCbor([requestValue(message.request), message.challenge, message.nonce])
}

/** @throws `message/malformed`, `cbor/…` */
export function decodeRelayMessage(octets: Uint8Array): RelayMessage {
  const [request, challenge, nonce] = readArray(decodeMessage(octets, 'relay message'), 'relay message', 3)
  const r = readArray(request, 'relay request', 7)
  return {
    request: {
      contract: readBytes(r[0], 'contract', 20),
      client: readBytes(r[1], 'client', 20),
      offer: readUint(r[2], 'offer', 0xffffffff),
      ttl: readUint(r[3], 'ttl'),
      proof: readBytes(r[4], 'proof', [0, 8192]),
      deadline: readUint(r[5], 'deadline'),
      signature: readBytes(r[6], 'signature', [65, 4096]),
    },
    challenge: readBytes(challenge, 'challenge', 32),
    nonce: readBytes(nonce, 'nonce', 8),
  }
}

/** True if the nonce solves the puzzle for exactly this request. */
export function solvesRelayPuzzle(message: RelayMessage, difficulty: number): boolean {
  return leadingZeroBits(sha256(concat(puzzleInput(message), message.nonce))) >= difficulty
}

/** What a solver puts before its nonces: challenge ‖ SHA-256(request), 64 octets. */
export function puzzleInput(message: Omit<RelayMessage, 'nonce'>): Uint8Array {
  return concat(message.challenge, sha256(encodeCbor(requestValue(message.request))))
}

export function leadingZeroBits(hash: Uint8Array): number {
  let bits = 0
  for (const octet of hash) {
    if (octet !== 0) return bits + Math.clz32(octet) - 24
    bits += 8
  }
  return bits
}

/** 2.01 for a transaction that was sent now, 2.04 for one sent before. `{ "tx" => bstr .size 32 }`. */
export function encodeRelayReply(transaction: Uint8Array): Uint8Array {
  if (transaction.length !== 32) throw malformed('a transaction hash has 32 octets')
  return encodeCbor(new Map([['tx', transaction]]))
}

/** The transaction's hash, 32 octets. @throws `message/malformed`, `cbor/…` */
export function decodeRelayReply(octets: Uint8Array): Uint8Array {
  return readBytes(readMap(decodeMessage(octets, 'relay reply'), 'relay reply', ['tx']).get('tx'), 'tx', 32)
}
