/**
 * A fuzzer over fast-check: inputs are mutations of a saved corpus, and random octets. A target takes octets and may
 * throw nothing but an IotchainError; what it accepts may be checked further by the target itself.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { suite } from '../../protocol/crypto/node.ts'
import { isIotchainError } from '../../protocol/errors.ts'

export interface FuzzTarget {
  readonly name: string
  /** Octets that the parser takes, made by its own encoder: what the corpus starts from. */
  readonly seeds: () => readonly Uint8Array[]
  /** Parses; throws an IotchainError or nothing. Any other error, or a failed check of its own, is a finding. */
  readonly run: (bytes: Uint8Array) => unknown
}

export interface FuzzResult {
  inputs: number
  accepted: number
  /** of the search itself, behind the saved inputs */
  milliseconds: number
  readonly findings: { readonly input: Uint8Array; readonly reason: string }[]
}

/** A parser that needs longer than this for one input hangs. */
const HANG_MS = 5_000
/** Octets that a parser may leave behind after many inputs. */
const MEMORY_LIMIT = 400 * 2 ** 20

type Edit =
  | { readonly kind: 'set'; readonly at: number; readonly octet: number }
  | { readonly kind: 'insert'; readonly at: number; readonly octet: number }
  | { readonly kind: 'flip'; readonly at: number; readonly bit: number }
  | { readonly kind: 'remove'; readonly at: number; readonly length: number }
  | { readonly kind: 'repeat'; readonly at: number; readonly length: number }
  | { readonly kind: 'cut'; readonly at: number }
  | { readonly kind: 'splice'; readonly at: number; readonly other: number }

const place = fc.nat(0xffff)
const octet = fc.oneof(fc.nat(255), fc.constantFrom(0, 0x18, 0x1b, 0x40, 0x5b, 0x80, 0x9f, 0xa0, 0xbb, 0xc0, 0xff))
const length = fc.integer({ min: 1, max: 40 })
const edits: fc.Arbitrary<Edit> = fc.oneof(
  fc.record({ kind: fc.constant('set' as const), at: place, octet }),
  fc.record({ kind: fc.constant('insert' as const), at: place, octet }),
  fc.record({ kind: fc.constant('flip' as const), at: place, bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('remove' as const), at: place, length }),
  fc.record({ kind: fc.constant('repeat' as const), at: place, length }),
  fc.record({ kind: fc.constant('cut' as const), at: place }),
  fc.record({ kind: fc.constant('splice' as const), at: place, other: fc.nat(0xffff) }),
)

function apply(bytes: Uint8Array, list: readonly Edit[], corpus: readonly Uint8Array[]): Uint8Array {
  let out = Array.from(bytes)
  for (const edit of list) {
    const at = out.length === 0 ? 0 : edit.at % out.length
    if (edit.kind === 'set') out[at] = edit.octet
    else if (edit.kind === 'insert') out.splice(at, 0, edit.octet)
    else if (edit.kind === 'flip') out[at] = (out[at] ?? 0) ^ (1 << edit.bit)
    else if (edit.kind === 'remove') out.splice(at, edit.length)
    else if (edit.kind === 'repeat') out.splice(at, 0, ...out.slice(at, at + edit.length))
    else if (edit.kind === 'cut') out = out.slice(0, at)
    else out = [...out.slice(0, at), ...(corpus[edit.other % corpus.length] ?? []).slice(at)]
  }
  return Uint8Array.from(out.slice(0, 70_000))
}

/** The saved inputs of a target: one hex file each. */
export function loadCorpus(folder: string, target: FuzzTarget): Uint8Array[] {
  let names: string[]
  try {
    names = readdirSync(join(folder, target.name)).sort()
  } catch {
    names = []
  }
  return names.map((name) => fromHex(readFileSync(join(folder, target.name, name), 'utf8').trim()))
}

/** Adds an input to the saved corpus. @returns its file */
export function saveInput(folder: string, target: FuzzTarget, input: Uint8Array): string {
  const path = join(folder, target.name, `${toHex(suite.sha256(input)).slice(0, 16)}.hex`)
  mkdirSync(join(folder, target.name), { recursive: true })
  writeFileSync(path, `${toHex(input)}\n`)
  return path
}

export interface FuzzOptions {
  readonly seed: number
  /** Inputs, at most. */
  readonly runs?: number
  readonly milliseconds?: number
}

export function fuzz(target: FuzzTarget, saved: readonly Uint8Array[], options: FuzzOptions): FuzzResult {
  const result: FuzzResult = { inputs: 0, accepted: 0, milliseconds: 0, findings: [] }
  const corpus = [...saved, ...target.seeds()]
  const probe = (bytes: Uint8Array): string | undefined => {
    result.inputs++
    const before = Date.now()
    try {
      target.run(bytes)
      result.accepted++
    } catch (error) {
      if (!isIotchainError(error)) return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
    }
    const took = Date.now() - before
    return took > HANG_MS ? `took ${took} ms` : undefined
  }
  const found = (input: Uint8Array): boolean => {
    const reason = probe(input)
    if (reason !== undefined) result.findings.push({ input, reason })
    return reason !== undefined
  }
  for (const input of corpus) if (found(input)) return result
  const inputs = fc.oneof(
    { arbitrary: fc.tuple(fc.nat(0xffff), fc.array(edits, { minLength: 1, maxLength: 6 })), weight: 5 },
    { arbitrary: fc.uint8Array({ maxLength: 200 }), weight: 1 },
  )
  const make = (input: Uint8Array | [number, Edit[]]): Uint8Array => {
    if (input instanceof Uint8Array) return input
    const [pick, list] = input
    return apply(corpus[pick % corpus.length] ?? new Uint8Array(0), list, corpus)
  }
  const memory = process.memoryUsage.rss()
  const begun = performance.now()
  const details = fc.check(
    fc.property(inputs, (input) => probe(make(input)) === undefined),
    {
      seed: options.seed,
      numRuns: options.runs ?? Number.MAX_SAFE_INTEGER,
      ...(options.milliseconds === undefined ? {} : { interruptAfterTimeLimit: options.milliseconds }),
    },
  )
  result.milliseconds = performance.now() - begun
  const [smallest] = details.counterexample ?? []
  if (details.failed && smallest !== undefined && !details.interrupted) {
    const input = make(smallest)
    result.findings.push({ input, reason: probe(input) ?? 'fails now and then' })
  }
  const grown = process.memoryUsage.rss() - memory
  if (grown > MEMORY_LIMIT) {
    result.findings.push({ input: new Uint8Array(0), reason: `${Math.round(grown / 2 ** 20)} MiB were left behind` })
  }
  return result
}
