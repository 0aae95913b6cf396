/** Many readings as one short SenML array: common name, unit and time stand once, in the base fields. */
import { type ResolvedRecord, resolveSenml, type SenmlRecord } from '../protocol/objects/senml.ts'

/** @param readings the records of each reading as they were sealed, in order; `now` places relative times */
export function packRecords(readings: readonly (readonly SenmlRecord[])[], now: number): SenmlRecord[] {
  const all = readings.flatMap((records) => resolveSenml(records, now))
  const first = all[0]
  if (first === undefined) return []
  const bn = commonPrefix(all.map((r) => r.name))
  const bt = first.time ?? now
  const unit = all.every((r) => r.unit === first.unit) ? first.unit : undefined
  return all.map((record, i) => {
    const name = record.name.slice(bn.length)
    const t = (record.time ?? now) - bt
    return {
      ...(i === 0 ? { ...(bn === '' ? {} : { bn }), bt, ...(unit === undefined ? {} : { bu: unit }) } : {}),
      ...(name === '' ? {} : { n: name }),
      ...(record.unit === undefined || record.unit === unit ? {} : { u: record.unit }),
      ...valueFields(record),
      ...(t === 0 ? {} : { t }),
    }
  })
}

function valueFields({ value }: ResolvedRecord): SenmlRecord {
  switch (typeof value) {
    case 'number':
      return { v: value }
    case 'string':
      return { vs: value }
    case 'boolean':
      return { vb: value }
    default:
      return value === undefined ? {} : { vd: value }
  }
}

function commonPrefix(names: readonly string[]): string {
  let prefix = names[0] ?? ''
  for (const name of names) {
    while (!name.startsWith(prefix)) prefix = prefix.slice(0, -1)
  }
  return prefix
}
