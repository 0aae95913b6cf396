/** `iotchain command`: moves an actuator, and does not believe it before the actuator's signed state says so. */
import type { Command } from 'commander'
import { suite } from '#crypto'
import { confirmsCommand, sendCommand } from '../../client/command.ts'
import type { ObjectPlace } from '../../client/fetch.ts'
import { Membership } from '../../client/group.ts'
import type { Reading } from '../../client/open.ts'
import type { MembershipRecord } from '../../client/state.ts'
import { toHex } from '../../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../../protocol/errors.ts'
import type { CommandOrder } from '../../protocol/objects/command.ts'
import { systemClock } from '../../runtime/clock.ts'
import { action } from '../terminal/command.ts'
import { readingText } from '../terminal/reading.ts'
import { type ClientSession, withClient } from './client-session.ts'
import { wholeNumber } from './init.ts'
import { joinGroup, sleep } from './joining.ts'
import { addReadOptions, type ReadOptions, readPlace } from './read.ts'
import { placeOf } from './resource.ts'

interface CommandOptions extends ReadOptions {
  readonly bit?: string
  readonly confirm?: boolean
}

const startMs = Date.now()
const CONFIRM_TRIES = 5

export function registerCommand(program: Command): void {
  addReadOptions(program.command('command <resource> <value>'))
    .description('set an actuator: coap://HOST/a/relay on; the value is on, off or a number')
    .option('--bit <n>', 'claims bit of the command group (default: the only one that was joined for commands)')
    .option('--no-confirm', 'do not read the state afterwards')
    .action(
      action<CommandOptions, [string, string]>((ctx, options, resource, text) =>
        withClient(ctx, options, async (session) => {
          const value = parseValue(text)
          const place = await placeOf(session, resource, options)
          const { membership, record } = await commander(session, place, options.bit)
          const { state } = session
          const { senderId, commandSeed } = record
          if (senderId === undefined || commandSeed === undefined) {
            throw new IotchainError('client/no-command-right', 'the key server gave no Sender ID for commands', {
              hint: 'the group may not be one for commands: check --bit with the owner',
            })
          }
          ctx.out.progress('sending the command')
          const sender = { membership, senderId, commandSeed, state, clock: systemClock, startMs }
          const order = await sendCommand(sender, place, value)
          const told = { device: place.device, value, sid: toHex(order.sid), seq: order.seq }
          if (options.confirm === false) {
            ctx.out.result({ ...told, confirmed: false }, 'taken by whoever answered; not confirmed')
            return
          }
          const reading = await confirm(session, place, order)
          ctx.out.result(
            { ...told, confirmed: true, records: reading.records.map((r) => ({ name: r.name, value: r.value })) },
            `confirmed by the device: ${readingText(reading).split('\n')[0]}`,
          )
        }),
      ),
    )
}

/** The membership to command with: joined now, with a signing key of its own, if it is not there yet. */
async function commander(
  session: ClientSession,
  place: ObjectPlace,
  bitText: string | undefined,
): Promise<{ membership: Membership; record: MembershipRecord }> {
  const client = await session.client()
  const known = (await session.state.memberships(await session.addressFor(place.device))).filter(
    (m) => m.device === place.device && m.commandSeed !== undefined,
  )
  const wished = bitText === undefined ? undefined : wholeNumber(bitText, '--bit')
  const bit = wished ?? (known.length === 1 ? known[0]?.bit : undefined)
  if (bit === undefined) {
    throw new IotchainError('client/which-command-group', `it is not known which group commands ${place.device}`, {
      hint: 'give the claims bit of the command group with --bit',
    })
  }
  const held = known.find((m) => m.bit === bit)
  const group = client.group(place.device, bit)
  if (held !== undefined && group instanceof Membership) return { membership: group, record: held }
  const commandSeed = suite.ed25519.generate()
  const membership = await joinGroup(session, { device: place.device, bit, commandSeed })
  const record = await session.state.membership(membership.client, membership.gid)
  return { membership, record: record as MembershipRecord }
}

async function confirm(session: ClientSession, place: ObjectPlace, order: CommandOrder): Promise<Reading> {
  for (let i = 0; i < CONFIRM_TRIES; i++) {
    if (i > 0) await sleep(400 * i, session.ctx.signal)
    session.ctx.out.progress('reading the state')
    try {
      const reading = await readPlace(session, place, 'signed')
      if (confirmsCommand(reading, order)) return reading
    } catch (error) {
      // The state of before may be what is served for a moment still.
      if (!isIotchainError(error) || error.code !== 'client/replay') throw error
    }
  }
  throw new IotchainError('client/not-confirmed', 'the device does not show that it took the command', {
    hint: 'somebody may hold it back; read the state again before you trust it',
  })
}

function parseValue(text: string): boolean | number {
  if (/^(on|true)$/i.test(text)) return true
  if (/^(off|false)$/i.test(text)) return false
  const number = /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isFinite(number)) {
    throw new IotchainError('client/bad-number', `"${text}" is no value for an actuator`, {
      hint: 'write on, off or a number',
    })
  }
  return number
}
