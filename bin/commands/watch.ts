/** `iotchain watch`: follows a resource until Ctrl-C; sessions, lost broadcasts and restarts of servers pass by themselves. */
import type { Command } from 'commander'
import type { Watch } from '../../client/watch.ts'
import { type IotchainError, isIotchainError } from '../../protocol/errors.ts'
import { action } from '../terminal/command.ts'
import { readingJson, readingText } from '../terminal/reading.ts'
import { withClient } from './client-session.ts'
import { bitOf, joinGroup, sleep } from './joining.ts'
import { addReadOptions, type ReadOptions, readPlace } from './read.ts'
import { placeOf, placeText } from './resource.ts'

interface WatchOptions extends ReadOptions {
  readonly count?: string
}

export function registerWatch(program: Command): void {
  addReadOptions(program.command('watch <resource>'))
    .description('follow a resource: each new reading, verified and opened, until Ctrl-C')
    .option('--mac', 'from the device under the integrity key, instead of signed')
    .option('--count <n>', 'end after so many readings')
    .action(
      action<WatchOptions, [string]>((ctx, options, resource) =>
        withClient(ctx, options, async (session) => {
          const place = await placeOf(session, resource, options)
          const form = options.mac === true ? 'mac' : 'signed'
          const limit = options.count === undefined ? Number.POSITIVE_INFINITY : Number(options.count)
          const client = await session.client()
          // The first reading tells which group to join, and that it can be opened at all.
          const first = await readPlace(session, place, form)
          ctx.out.result(readingJson(first), readingText(first))
          let told = 1
          if (told >= limit) return
          ctx.out.note(`watching ${placeText(place)}; Ctrl-C ends`)
          let watch: Watch | undefined
          let rejoining = false
          const rejoin = async (): Promise<void> => {
            // of several groups of this device the one that the resource is sealed for
            const bit = bitOf(client, place.device, first.header.gid)
            if (bit === undefined || rejoining) return
            rejoining = true
            try {
              await joinGroup(session, { device: place.device, bit, patienceMs: 0 })
            } catch (error) {
              ctx.out.warn(isIotchainError(error) ? error.message : String(error))
            }
            await sleep(10_000, ctx.signal).catch(() => undefined)
            rejoining = false
          }
          await new Promise<void>((resolve, reject) => {
            ctx.signal.addEventListener('abort', () => watch?.close(), { once: true })
            watch = client.watch(
              place,
              {
                onReading: (reading) => {
                  ctx.out.result(readingJson(reading), readingText(reading))
                  if (++told >= limit) watch?.close()
                },
                onRefused: (error) => {
                  const { code, message } = error as IotchainError
                  ctx.out.warn(`${message} (${code})`)
                  if (code === 'object/no-access') void rejoin()
                },
                onInterrupted: (error) => ctx.out.note(`${error.message}; trying again`),
                onEnd: (error) => (error === undefined ? resolve() : reject(error)),
              },
              { form, persistent: true },
            )
            watch.ready.catch(() => undefined)
          })
        }),
      ),
    )
}
