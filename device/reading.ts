/** From samples to the SenML that is sealed (RFC 8428). */
import { encodeSenml, type SenmlRecord } from '../protocol/objects/senml.ts'
import type { Sample } from './drivers/driver.ts'

export interface ReadingContext {
  /** Last segment of the resource's path: the name of an only value. */
  readonly name: string
  /** Made-up values say so in their base name, whoever reads them. */
  readonly simulated: boolean
  /** The present: time and monotonic time of the same instant, to place samples of an unsynchronised clock. */
  readonly nowMs: number
  readonly monotonicMs: number
}

/** Records of one reading; whole seconds, the common time as base time. */
export function senmlOf(samples: readonly Sample[], context: ReadingContext): SenmlRecord[] {
  const records: SenmlRecord[] = []
  const single = samples.length === 1
  const bt = timeOf(samples[0], context)
  for (const sample of samples) {
    const n = sample.name ?? context.name
    const offset = timeOf(sample, context) - bt
    const time = single ? { t: bt } : offset === 0 ? {} : { t: offset }
    const unit = sample.u === undefined ? {} : { u: sample.u }
    if (sample.quality !== 'error' && sample.v !== undefined) {
      records.push({ n, ...unit, ...senmlValueOf(sample.v), ...time })
    }
    if (sample.quality !== 'ok') records.push({ n: `${n}.quality`, vs: sample.quality, ...time })
  }
  const first = records[0]
  if (first !== undefined && !single) records[0] = { bt, ...first }
  if (first !== undefined && context.simulated) records[0] = { bn: 'simulated:', ...(records[0] as SenmlRecord) }
  return records
}

/** Plaintext of one reading, content-format 112. @param extra records to put behind it */
export function encodeReading(
  samples: readonly Sample[],
  context: ReadingContext,
  extra: readonly SenmlRecord[] = [],
): Uint8Array {
  return encodeSenml([...senmlOf(samples, context), ...extra])
}

function timeOf(sample: Sample | undefined, context: ReadingContext): number {
  if (sample === undefined) return Math.floor(context.nowMs / 1000)
  if (sample.timeQuality === 'synchronised') return Math.floor(sample.t)
  return Math.floor((context.nowMs - (context.monotonicMs - sample.monotonicMs)) / 1000)
}

function senmlValueOf(v: number | boolean | string): SenmlRecord {
  if (typeof v === 'boolean') return { vb: v }
  return typeof v === 'string' ? { vs: v } : { v }
}
