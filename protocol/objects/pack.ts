/**
 * Packs: many readings of one resource and one session under a single seal (protocol.md §4.7). The plaintext is a CBOR
 * array whose first element says what it stands for; SenML records follow.
 */
import { type CborValue, decodeCbor } from '../cbor.ts'
import { CborWriter } from '../cbor-encode.ts'
import { IotchainError } from '../errors.ts'
import { SEQ_LIMIT } from './header.ts'
import { type SenmlRecord, senmlRecords, writeSenml } from './senml.ts'

/** Content-format of a pack's plaintext: application/cbor. */
export const PACK_CONTENT_FORMAT = 60
/** Readings in a pack that a device makes. */
export const PACK_READINGS = 64
/** A pack is sealed at the latest this long after the end of its session, seconds. */
export const PACK_DELAY = 30

export interface Pack {
  /** Sequence numbers of the single objects that it repeats, first and last. */
  readonly fromSeq: number
  readonly toSeq: number
  /** Times of the first and last reading, Unix seconds. */
  readonly from: number
  readonly to: number
  readonly records: readonly SenmlRecord[]
}

/** @throws `object/bad-pack`, `senml/bad-record` */
export function encodePack(pack: Pack): Uint8Array {
  const { fromSeq, toSeq, from, to } = pack
  const wrong = problem([fromSeq, toSeq, from, to])
  if (wrong !== undefined) throw new IotchainError('object/bad-pack', wrong)
  const writer = new CborWriter()
  writer.head(4, 1 + pack.records.length)
  writer.value([fromSeq, toSeq, from, to])
  writeSenml(writer, pack.records)
  return writer.finish()
}

/** @throws `object/bad-pack`, `senml/malformed` */
export function decodePack(plaintext: Uint8Array): Pack {
  let value: CborValue
  try {
    value = decodeCbor(plaintext, { canonical: false })
  } catch (cause) {
    throw new IotchainError('object/bad-pack', 'not a pack of readings', { cause })
  }
  const [head, ...records] = Array.isArray(value) ? value : []
  if (!Array.isArray(head) || head.length !== 4) throw new IotchainError('object/bad-pack', 'not a pack of readings')
  const wrong = problem(head)
  if (wrong !== undefined) throw new IotchainError('object/bad-pack', wrong)
  const [fromSeq, toSeq, from, to] = head as number[] as [number, number, number, number]
  return { fromSeq, toSeq, from, to, records: senmlRecords(records) }
}

/** The pack's seq is the last segment of the URI it was asked for. @throws `object/swapped` */
export function checkPackSeq(asked: number, seq: number): void {
  if (asked !== seq) throw new IotchainError('object/swapped', 'another pack than the one asked for')
}

function problem(head: readonly unknown[]): string | undefined {
  if (!head.every((x) => typeof x === 'number' && Number.isSafeInteger(x) && x >= 0)) {
    return 'the head of a pack is four whole numbers'
  }
  const [fromSeq, toSeq, from, to] = head as [number, number, number, number]
  if (fromSeq > toSeq || toSeq >= SEQ_LIMIT) return 'the sequence numbers of a pack run upwards'
  return from > to ? 'the times of a pack run upwards' : undefined
}
