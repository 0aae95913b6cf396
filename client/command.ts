/**
 * Commands to actuators (protocol.md "Commands"): sealed under the running session of the command group, for one device
 * and one path, under a number that is used once; confirmed by the signed state that the actuator shows afterwards.
 */
import { suite } from '#crypto'
import { equalBytes } from '../protocol/bytes.ts'
import type { Clock } from '../protocol/clock.ts'
import { IotchainError } from '../protocol/errors.ts'
import { addressBytes } from '../protocol/messages/address.ts'
import { COMMAND_CONTENT_FORMAT, type CommandOrder, encodeCommand, lastCommandOf } from '../protocol/objects/command.ts'
import { createSealer } from '../protocol/objects/seal.ts'
import { decodeSenml } from '../protocol/objects/senml.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import { responseError } from './errors.ts'
import { describe, type ObjectPlace } from './fetch.ts'
import type { Membership } from './group.ts'
import type { Reading } from './open.ts'
import type { ClientState } from './state.ts'

export interface CommandSender {
  readonly membership: Membership
  /** Given by the key server at the join. */
  readonly senderId: Uint8Array
  /** 32-octet Ed25519 seed of the key that the join named. */
  readonly commandSeed: Uint8Array
  readonly state: ClientState
  readonly clock: Clock
  /** Wall clock when this program started. */
  readonly startMs: number
}

/** The sealed octets of one command and its number. @throws `client/no-session` while the running session's key is not held */
export async function sealCommand(
  sender: CommandSender,
  path: readonly string[],
  value: boolean | number,
): Promise<{ readonly bytes: Uint8Array; readonly order: CommandOrder }> {
  const { membership, senderId, commandSeed, clock } = sender
  const session = membership.current()
  const K = session && membership.key(session.session)
  if (session === undefined || K === undefined) {
    throw new IotchainError('client/no-session', 'the key of the running session is not held', {
      hint: 'the key server may be away, or the right to command may have ended',
    })
  }
  const seq = await nextSequence(sender)
  const sealer = createSealer(suite, {
    K,
    gid: membership.gid,
    session: session.session,
    device: addressBytes(membership.device),
    sid: senderId,
    path: [...path],
    algorithm: membership.policies?.aead ?? 24,
    signingKey: suite.ed25519.signing(commandSeed),
  })
  const iat = Math.floor(clock.nowMs() / 1000)
  const { signed } = sealer.seal({ seq, iat, contentFormat: COMMAND_CONTENT_FORMAT, plaintext: encodeCommand(value) })
  return { bytes: signed, order: { sid: senderId, seq } }
}

/**
 * Sends a command to the device itself. The 2.04 that comes back proves nothing: confirm it by the state.
 * @throws `client/unauthorized`, `client/forbidden`, `client/conflict`, `client/no-session`, `coap/timeout` …
 */
export async function sendCommand(
  sender: CommandSender,
  place: ObjectPlace,
  value: boolean | number,
): Promise<CommandOrder> {
  if (place.via !== 'device') {
    throw new IotchainError('client/wrong-form', 'commands go to the device itself, not to a proxy')
  }
  await sender.membership.fetchBroadcast()
  const { bytes, order } = await sealCommand(sender, place.path, value)
  const response = await place.connection.put(place.path, bytes, { contentFormat: ContentFormat.coseSign1 })
  if (!response.ok) throw responseError(response, `the command to ${describe(place)}`)
  return order
}

/** True if this state, verified and opened, was shown after the command was taken. */
export function confirmsCommand(reading: Reading, order: CommandOrder): boolean {
  const last = lastCommandOf(decodeSenml(reading.plaintext))
  return last !== undefined && equalBytes(last.sid, order.sid) && last.seq >= order.seq
}

async function nextSequence(sender: CommandSender): Promise<number> {
  const { state, membership, senderId, clock, startMs } = sender
  for (;;) {
    const taken = await state.takeSequence(membership.gid, senderId, startMs, clock.nowMs())
    if ('seq' in taken) return taken.seq
    await new Promise((resolve) => setTimeout(resolve, taken.waitMs))
  }
}
