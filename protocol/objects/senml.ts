/** SenML in CBOR (RFC 8428 §6): the plaintext of readings, content-format 112. */
import { type CborValue, decodeCbor } from '../cbor.ts'
import { CborWriter } from '../cbor-encode.ts'
import { IotchainError } from '../errors.ts'

/** One record; base fields apply to it and to those after it. Times in seconds, absolute from 2^28 on. */
export interface SenmlRecord {
  bver?: number
  /** Base name. */
  bn?: string
  /** Base time. */
  bt?: number
  /** Base unit. */
  bu?: string
  /** Base value and base sum. */
  bv?: number
  bs?: number
  n?: string
  u?: string
  /** Value as number, text, octets or truth: at most one of v, vs, vd, vb. */
  v?: number
  vs?: string
  vb?: boolean
  vd?: Uint8Array
  s?: number
  t?: number
  /** Update time. */
  ut?: number
}

type Kind = 'number' | 'text' | 'truth' | 'octets'

/** CBOR labels (RFC 8428 §6, table 4), in the order of their encoding: that of map keys in deterministic CBOR. */
const FIELDS: readonly (readonly [keyof SenmlRecord, number, Kind])[] = [
  ['n', 0, 'text'],
  ['u', 1, 'text'],
  ['v', 2, 'number'],
  ['vs', 3, 'text'],
  ['vb', 4, 'truth'],
  ['s', 5, 'number'],
  ['t', 6, 'number'],
  ['ut', 7, 'number'],
  ['vd', 8, 'octets'],
  ['bver', -1, 'number'],
  ['bn', -2, 'text'],
  ['bt', -3, 'number'],
  ['bu', -4, 'text'],
  ['bv', -5, 'number'],
  ['bs', -6, 'number'],
]
const FIELD_OF = new Map(FIELDS.map((field) => [field[0] as string, field]))

/** Records in one pack, at most. */
export const SENML_RECORDS = 4096

/** @throws `senml/bad-record` */
export function encodeSenml(records: readonly SenmlRecord[]): Uint8Array {
  const writer = new CborWriter()
  writer.head(4, records.length)
  writeSenml(writer, records)
  return writer.finish()
}

/** @throws `senml/malformed` */
export function decodeSenml(bytes: Uint8Array): SenmlRecord[] {
  let value: CborValue
  try {
    value = decodeCbor(bytes, { canonical: false })
  } catch (cause) {
    throw new IotchainError('senml/malformed', 'not SenML in CBOR', { cause })
  }
  if (!Array.isArray(value)) throw malformed('no array')
  return senmlRecords(value)
}

/** Writes the records one after the other, to be part of an array. @throws `senml/bad-record` */
export function writeSenml(writer: CborWriter, records: readonly SenmlRecord[]): void {
  if (records.length > SENML_RECORDS) throw bad('a pack has at most 4096 records')
  for (const record of records) {
    let count = 0
    let values = 0
    for (const name in record) {
      const value = record[name as keyof SenmlRecord]
      if (value === undefined) continue
      const field = FIELD_OF.get(name)
      if (field === undefined) throw bad(`SenML has no field ${name}`)
      if (!isKind(value, field[2])) throw bad(`SenML field ${name} is no ${field[2]}`)
      if (name === 'v' || name === 'vs' || name === 'vb' || name === 'vd') values++
      count++
    }
    if (values > 1) throw bad('a SenML record has at most one value')
    writer.head(5, count)
    for (const [name, label] of FIELDS) {
      const value = record[name]
      if (value === undefined) continue
      writer.octet(label < 0 ? 0x1f - label : label)
      writer.value(value)
    }
  }
}

/** @throws `senml/malformed` */
export function senmlRecords(values: readonly CborValue[]): SenmlRecord[] {
  if (values.length > SENML_RECORDS) throw malformed('over 4096 records')
  return values.map((map) => {
    if (!(map instanceof Map)) throw malformed('a record that is no map')
    const record: Partial<Record<keyof SenmlRecord, CborValue>> = {}
    for (const [label, value] of map) {
      const field = FIELDS.find(([, number]) => number === label)
      if (field === undefined) {
        // RFC 8428 §4.4: a label that ends in an underscore must be understood, others may be skipped
        if (typeof label === 'string' && label.endsWith('_')) throw malformed('an unknown mandatory field')
        continue
      }
      const [name, , kind] = field
      if (!isKind(value, kind)) throw malformed(`field ${name} is no ${kind}`)
      record[name] = typeof value === 'bigint' ? Number(value) : value
    }
    if (countValues(record as SenmlRecord) > 1) throw malformed('a record with two values')
    return record as SenmlRecord
  })
}

function countValues(record: SenmlRecord): number {
  return [record.v, record.vs, record.vb, record.vd].filter((value) => value !== undefined).length
}

function isKind(value: unknown, kind: Kind): boolean {
  if (kind === 'number') return typeof value === 'bigint' || (typeof value === 'number' && Number.isFinite(value))
  if (kind === 'text') return typeof value === 'string'
  if (kind === 'truth') return typeof value === 'boolean'
  return value instanceof Uint8Array
}

/** A record with its base fields applied: name, time and unit as they stand (RFC 8428 §4.6). */
export interface ResolvedRecord {
  name: string
  /** Unix seconds; `undefined` when neither time nor base time is given, which means "about now". */
  time: number | undefined
  unit: string | undefined
  value: number | string | boolean | Uint8Array | undefined
  sum: number | undefined
  /** Seconds until the sensor speaks again. */
  updateTime: number | undefined
}

/** Times below this are relative to now (RFC 8428 §4.5.3). */
const RELATIVE_TIME = 2 ** 28

/** @param now Unix seconds, for times relative to it */
export function resolveSenml(records: readonly SenmlRecord[], now: number): ResolvedRecord[] {
  let bn = ''
  let bt = 0
  let bu: string | undefined
  let bv = 0
  let bs = 0
  return records.map((record) => {
    bn = record.bn ?? bn
    bt = record.bt ?? bt
    bu = record.bu ?? bu
    bv = record.bv ?? bv
    bs = record.bs ?? bs
    const given = record.t !== undefined || bt !== 0
    const time = bt + (record.t ?? 0)
    return {
      name: bn + (record.n ?? ''),
      time: given ? (time < RELATIVE_TIME ? now + time : time) : undefined,
      unit: record.u ?? bu,
      value: record.v !== undefined ? bv + record.v : (record.vs ?? record.vb ?? record.vd),
      sum: record.s !== undefined ? bs + record.s : undefined,
      updateTime: record.ut,
    }
  })
}

function bad(what: string): IotchainError {
  return new IotchainError('senml/bad-record', what)
}

function malformed(what: string): IotchainError {
  return new IotchainError('senml/malformed', `not SenML in CBOR: ${what}`)
}
