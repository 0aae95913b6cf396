/** `iotchain read` and `iotchain history`: one reading, or those of a stretch of time. */
import type { Command } from 'commander'
import { fetchHistory, fetchObject, type ObjectPlace } from '../../client/fetch.ts'
import type { Reading } from '../../client/open.ts'
import { IotchainError, isIotchainError } from '../../protocol/errors.ts'
import { parseHeader } from '../../protocol/objects/parse.ts'
import { formatPath, parsePath } from '../../transport/coap/uri.ts'
import { action } from '../terminal/command.ts'
import { readingJson, readingText } from '../terminal/reading.ts'
import { type ClientOptions, type ClientSession, withClient } from './client-session.ts'
import { withMembership } from './joining.ts'
import { parseMoment } from './moment.ts'
import { type PlaceOptions, placeOf } from './resource.ts'

export interface ReadOptions extends ClientOptions, PlaceOptions {
  readonly mac?: boolean
}

interface HistoryOptions extends ReadOptions {
  readonly from?: string
  readonly to?: string
}

/** Options of every command that reads. */
export function addReadOptions(command: Command): Command {
  return command
    .option('--proxy <uri>', 'read from this proxy; the resource is then a path')
    .option('--device <address>', 'the device, when its address is not part of the resource')
    .option('--key <address>', 'which of the keys to use')
    .option('--key-server <uri>', 'coaps:// address of the key server (default: from the registry)')
    .option('--key-server-spki <hex>', 'SHA-256 of its public key (default: from the registry)')
    .option('--broadcast <file>', 'take this session broadcast, however it came here')
    .option('--allow-stale', 'show a reading older than the group allows, and say so')
    .option('--no-chain', 'do not ask the chain whose key has signed')
}

export function registerRead(program: Command): void {
  addReadOptions(program.command('read <resource>'))
    .description('read one sealed reading, verify and open it: coap://HOST/s/temp, coap://PROXY/d/0x…/s/temp')
    .option('--mac', 'from the device under the integrity key, instead of signed')
    .action(
      action<ReadOptions, [string]>((ctx, options, resource) =>
        withClient(ctx, options, async (session) => {
          const place = await placeOf(session, resource, options)
          const reading = await readPlace(session, place, options.mac === true ? 'mac' : 'signed')
          ctx.out.result(readingJson(reading), readingText(reading))
        }),
      ),
    )
  addReadOptions(program.command('history <resource>'))
    .description('readings of the past: packs and single objects that the proxy or the device keeps')
    .option('--from <time>', 'since when: 2026-01-31T12:00Z, unix seconds, or 24h for 24 hours ago', '24h')
    .option('--to <time>', 'until when', 'now')
    .action(
      action<HistoryOptions, [string]>((ctx, options, resource) =>
        withClient(ctx, options, async (session) => {
          const place = await placeOf(session, resource, options)
          const now = Date.now() / 1000
          const from = parseMoment(options.from ?? '24h', now)
          const to = parseMoment(options.to ?? 'now', now)
          await printHistory(session, place, from, to)
        }),
      ),
    )
}

/** Fetches first: the object itself names the group that has to be joined. */
export async function readPlace(session: ClientSession, place: ObjectPlace, form: 'signed' | 'mac'): Promise<Reading> {
  const client = await session.client()
  client.useAsSource(place)
  const bytes = await fetchObject(place, { form, signal: session.ctx.signal })
  if (bytes === undefined) throw new IotchainError('client/refused', 'the answer has no content')
  const { gid } = parseHeader(bytes)
  return withMembership(session, place.device, gid, () =>
    client.open(bytes, { device: place.device, path: place.path, form }),
  )
}

/** One line per object; those that cannot be opened are counted, with the reason. */
async function printHistory(session: ClientSession, place: ObjectPlace, from: number, to: number): Promise<void> {
  const client = await session.client()
  client.useAsSource(place)
  const { out, signal } = session.ctx
  const links = await fetchHistory(place, from, to, { signal })
  const closed = new Map<string, number>()
  for (const { href } of links) {
    const { path } = parsePath(href)
    const name = path.at(-2)
    const seq = Number(path.at(-1)?.split('.').at(-1))
    const kind = name === '@pack' ? 'pack' : 'past'
    const response = await place.connection.get(path, { signal })
    if (!response.ok) continue
    const bytes = response.payload
    try {
      const reading = await withMembership(session, place.device, parseHeader(bytes).gid, () =>
        client.openPast(bytes, { device: place.device, path: place.path, form: 'signed', kind, seq }),
      )
      const records = { ...readingJson(reading), kind, href: formatPath(path) }
      out.result(records, readingText(reading))
    } catch (error) {
      if (!isIotchainError(error)) throw error
      closed.set(error.code, (closed.get(error.code) ?? 0) + 1)
    }
  }
  for (const [code, count] of closed) out.warn(`${count} of ${links.length} could not be opened: ${code}`)
  if (links.length === 0) out.note('nothing is kept of this time')
}
