/** SenML in CBOR (RFC 8428 §6): the plaintext of readings, content-format 112. */
import { type CborMap, type CborValue, decodeCbor, encodeCbor } from '../cbor.ts'
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

/** CBOR labels (RFC 8428 §6, table 4). */
const FIELDS: readonly (readonly [keyof SenmlRecord, number, Kind])[] = [
  ['bver', -1, 'number'],
  ['bn', -2, 'text'],
  ['bt', -3, 'number'],
  ['bu', -4, 'text'],
  ['bv', -5, 'number'],
  ['bs', -6, 'number'],
  ['n', 0, 'text'],
  ['u', 1, 'text'],
  ['v', 2, 'number'],
  ['vs', 3, 'text'],
  ['vb', 4, 'truth'],
  ['s', 5, 'number'],
  ['t', 6, 'number'],
  ['ut', 7, 'number'],
  ['vd', 8, 'octets'],
]

/** Records in one pack, at most. */
export const SENML_RECORDS = 4096

/** @throws `senml/bad-record` */
export function encodeSenml(records: readonly SenmlRecord[]): Uint8Array {
  return encodeCbor(senmlValue(records))
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

/** The array of maps that SenML is, to be put into a larger structure. @throws `senml/bad-record` */
export function senmlValue(records: readonly SenmlRecord[]): CborMap[] {
  if (records.length > SENML_RECORDS) throw new IotchainError('senml/bad-record', 'a pack has at most 4096 records')
  return records.map((record) => {
    const map: CborMap = new Map()
    for (const [name, label, kind] of FIELDS) {
      const value = record[name]
      if (value === undefined) continue
      if (!isKind(value, kind)) throw new IotchainError('senml/bad-record', `SenML field ${name} is no ${kind}`)
      map.set(label, value)
    }
    const known: readonly string[] = FIELDS.map(([name]) => name)
    for (const name of Object.keys(record)) {
      if (!known.includes(name)) throw new IotchainError('senml/bad-record', `SenML has no field ${name}`)
    }
    if (countValues(record) > 1) throw new IotchainError('senml/bad-record', 'a SenML record has at most one value')
    return map
  })
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

function malformed(what: string): IotchainError {
  return new IotchainError('senml/malformed', `not SenML in CBOR: ${what}`)
}
