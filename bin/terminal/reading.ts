/** A reading for people and for scripts. */
import type { Reading } from '../../client/open.ts'
import { toHex } from '../../protocol/bytes.ts'
import type { ResolvedRecord } from '../../protocol/objects/senml.ts'
import { formatPath } from '../../transport/coap/uri.ts'

export function readingText(reading: Reading): string {
  const lines = reading.records.map((r) => `${recordText(r)}  ${timeText(r.time ?? reading.header.iat)}`)
  if (lines.length === 0)
    lines.push(
      `${reading.plaintext.length} octets of content-format ${reading.header.contentFormat}: ${toHex(reading.plaintext)}`,
    )
  return lines.map((line) => `${line}${remarks(reading)}`).join('\n')
}

export function readingJson(reading: Reading): Record<string, unknown> {
  const { header } = reading
  return {
    device: reading.device,
    path: formatPath(reading.path),
    records: reading.records.map((r) => ({ name: r.name, value: r.value, unit: r.unit, time: r.time })),
    ...(reading.records.length === 0 ? { plaintext: reading.plaintext } : {}),
    contentFormat: header.contentFormat,
    form: reading.form,
    session: header.session,
    sid: header.sid,
    seq: header.seq,
    sealedAt: header.iat,
    stale: reading.stale,
    oldSession: reading.oldSession,
    octets: reading.bytes.length,
  }
}

function recordText(record: ResolvedRecord): string {
  const value = record.value instanceof Uint8Array ? toHex(record.value) : String(record.value ?? record.sum ?? '')
  return `${record.name} ${value}${record.unit === undefined ? '' : ` ${unitText(record.unit)}`}`
}

/** SenML names units after UCUM; people read °C. */
function unitText(unit: string): string {
  return unit === 'Cel' ? '°C' : unit === '%RH' ? '% rH' : unit
}

export function timeText(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(/\.000Z$/, 'Z')
}

function remarks(reading: Reading): string {
  const all = [
    reading.stale ? 'stale' : undefined,
    reading.oldSession ? 'sealed under an old session' : undefined,
    reading.form === 'mac' ? 'integrity key' : undefined,
  ].filter((r) => r !== undefined)
  return all.length === 0 ? '' : `  (${all.join(', ')})`
}
