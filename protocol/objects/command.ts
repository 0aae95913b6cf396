/**
 * What a command to an actuator says (protocol.md "Commands"): SenML with one record, a truth or a number. The state
 * that the actuator answers with names the last command that it took, so that the sender can see that it was his.
 */
import { IotchainError } from '../errors.ts'
import { decodeSenml, encodeSenml, type SenmlRecord } from './senml.ts'

/** Content-format of a command's plaintext: application/senml+cbor. */
export const COMMAND_CONTENT_FORMAT = 112
/** A command counts for so long around its time of sealing, seconds. */
export const COMMAND_SECONDS = 30
/** A session that was superseded so short a while ago still counts, seconds. */
export const COMMAND_GRACE = 10

const SID = 'command.sid'
const SEQ = 'command.seq'

/** @throws `senml/bad-record` for a number that is none */
export function encodeCommand(value: boolean | number): Uint8Array {
  return encodeSenml([typeof value === 'boolean' ? { vb: value } : { v: value }])
}

/** @throws `senml/malformed`, `object/bad-command` */
export function decodeCommand(plaintext: Uint8Array): boolean | number {
  const [record, ...more] = decodeSenml(plaintext)
  const value = record?.vb ?? record?.v
  // a base value would have to be added: what is done shall be what stands there
  if (more.length > 0 || value === undefined || record?.bv !== undefined) {
    throw new IotchainError('object/bad-command', 'a command is one SenML record with a truth or a number')
  }
  return value
}

export interface CommandOrder {
  readonly sid: Uint8Array
  readonly seq: number
}

/** The records of a state that name the last command taken. */
export function commandRecords(last: CommandOrder): SenmlRecord[] {
  return [
    { n: SID, vd: last.sid },
    { n: SEQ, v: last.seq },
  ]
}

/** The last command that a state names, undefined if it names none. */
export function lastCommandOf(records: readonly SenmlRecord[]): CommandOrder | undefined {
  const sid = records.find((r) => r.n === SID)?.vd
  const seq = records.find((r) => r.n === SEQ)?.v
  return sid === undefined || seq === undefined ? undefined : { sid, seq }
}
