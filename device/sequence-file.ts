/**
 * The file that must never be wrong: up to which sequence number the device may have sealed, and under which Sender
 * IDs and sessions. One line of JSON and its SHA-256; replaced whole, durably.
 */
import { createHash } from 'node:crypto'
import { fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { readFileIfExists, writeFileAtomic } from '../runtime/atomic-file.ts'

export interface GroupSequence {
  /** Sender ID of this incarnation, 1 to 7 octets. */
  readonly sid: Uint8Array
  /** The highest session that was sealed under. */
  readonly session: number
}

export interface SequenceState {
  /** From `machineId()`. */
  readonly machine: string
  /** No number at or above this was used. */
  readonly limit: number
  /** Unix seconds: the latest time that was seen. */
  readonly latest: number
  /** By group name. */
  readonly groups: ReadonlyMap<string, GroupSequence>
}

/**
 * The state, or why there is none: `missing`, or `damaged` when the checksum or the form is wrong. Both mean that the
 * Sender IDs of before must not be used again.
 */
export function readSequenceFile(path: string): SequenceState | 'missing' | 'damaged' {
  let text: string
  try {
    const bytes = readFileIfExists(path)
    if (bytes === undefined) return 'missing'
    text = bytes.toString('utf8')
  } catch {
    return 'damaged'
  }
  const [line, sum, rest] = text.split('\n')
  if (line === undefined || rest !== '' || sum !== checksum(line)) return 'damaged'
  return stateOf(parseJson(line)) ?? 'damaged'
}

/** Checked by hand: this runs at each start, and a schema library for it alone would cost a small device memory. */
function stateOf(value: unknown): SequenceState | undefined {
  if (!hasKeys(value, ['version', 'machine', 'limit', 'latest', 'groups'])) return undefined
  const { version, machine, limit, latest, groups } = value
  if (version !== 1 || typeof machine !== 'string' || machine.length > 64) return undefined
  if (!isCount(limit, 2 ** 40) || !isCount(latest, Number.MAX_SAFE_INTEGER) || !isObject(groups)) return undefined
  const read = new Map<string, GroupSequence>()
  for (const [name, group] of Object.entries(groups)) {
    if (!/^[0-9a-f]{16}$/.test(name) || !hasKeys(group, ['sid', 'session'])) return undefined
    const { sid, session } = group
    if (typeof sid !== 'string' || !/^([0-9a-f]{2}){1,7}$/.test(sid) || !isCount(session, 2 ** 32 - 1)) return undefined
    read.set(name, { sid: fromHex(sid), session })
  }
  return { machine, limit, latest, groups: read }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Has these keys and no other. */
function hasKeys(value: unknown, keys: readonly string[]): value is Record<string, unknown> {
  return isObject(value) && Object.keys(value).length === keys.length && keys.every((key) => Object.hasOwn(value, key))
}

function isCount(value: unknown, max: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max
}

/** Durable when it returns. @throws `runtime/disk-full`, `runtime/cannot-write` */
export function writeSequenceFile(path: string, state: SequenceState): void {
  const groups = Object.fromEntries(
    [...state.groups].map(([name, g]) => [name, { sid: toHex(g.sid), session: g.session }]),
  )
  const { machine, limit, latest } = state
  const line = JSON.stringify({ version: 1, machine, limit, latest, groups })
  writeFileAtomic(path, `${line}\n${checksum(line)}\n`)
}

/** @throws `device/cloned` when the state was made on another machine */
export function assertSameMachine(state: SequenceState, machine: string, path: string): void {
  if (state.machine === machine) return
  throw new IotchainError('device/cloned', `${path} was written by another machine`, {
    hint: 'a copied card or folder must not seal: delete the state folder and enrol this device with keys of its own',
  })
}

function checksum(line: string): string {
  return createHash('sha256').update(line).digest('hex')
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
