/** `iotchain mack`: integrity keys for a gateway that checks and cannot read, and the check itself. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { fetchObject } from '../../client/fetch.ts'
import { checkMacObject, integrityKeyOf, parseIntegrityKey } from '../../client/mack.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { dial } from '../../transport/dial.ts'
import { action } from '../terminal/command.ts'
import { timeText } from '../terminal/reading.ts'
import { withClient } from './client-session.ts'
import { bitOf, sleep } from './joining.ts'
import { addReadOptions, type ReadOptions, readPlace } from './read.ts'
import { parseResource, placeOf } from './resource.ts'

interface KeyOptions extends ReadOptions {
  readonly follow?: boolean
}

interface CheckOptions {
  readonly keys: string
  readonly device?: string
}

export function registerMack(program: Command): void {
  const mack = program.command('mack').description('integrity keys for a gateway that shall check and not read')
  addReadOptions(mack.command('key <resource>'))
    .description('print the integrity key of the running session (secret: its holder can forge mac-objects)')
    .option('--follow', 'stay, and print a line for each new session')
    .action(
      action<KeyOptions, [string]>((ctx, options, resource) =>
        withClient(ctx, { ...options, allowStale: true }, async (session) => {
          const place = await placeOf(session, resource, options)
          const client = await session.client()
          let told = ''
          do {
            const { header } = await readPlace(session, place, 'signed')
            const bit = bitOf(client, place.device, header.gid) as number
            const group = client.group(place.device, bit)
            const record = group && integrityKeyOf(group, place.path, header)
            const line = JSON.stringify(record)
            if (line !== told) ctx.out.result(record, line)
            told = line
            if (options.follow === true) await sleep(5000, ctx.signal)
          } while (options.follow === true && !ctx.signal.aborted)
        }),
      ),
    )
  mack
    .command('check <resource>')
    .description('fetch a mac-object from the device and check it with integrity keys; nothing is opened')
    .requiredOption('--keys <file>', 'file with lines of `iotchain mack key`')
    .action(
      action<CheckOptions, [string]>(async (ctx, options, resource) => {
        const keys = (await textOf(options.keys))
          .split('\n')
          .filter((line) => line.trim() !== '')
          .map(parseIntegrityKey)
        const { origin, path, via } = parseResource(resource, {})
        if (via === 'proxy') throw new IotchainError('client/wrong-form', 'mac-objects come from the device itself')
        const own = keys.filter((k) => JSON.stringify(k.path) === JSON.stringify(path))
        const device = own[0]?.device
        if (device === undefined) {
          throw new IotchainError('client/no-mack', 'none of the integrity keys is for this resource')
        }
        const connection = await dial(origin)
        try {
          const bytes = await fetchObject({ connection, via, device, path }, { form: 'mac', signal: ctx.signal })
          const header = checkMacObject(bytes as Uint8Array, own)
          ctx.out.result(
            { good: true, session: header.session, seq: header.seq, sealedAt: header.iat },
            `good: session ${header.session}, sealed ${timeText(header.iat)}`,
          )
        } finally {
          await connection.close()
        }
      }),
    )
}

async function textOf(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw new IotchainError('client/no-file', `${file} cannot be read`, { hint: 'check the path', cause })
  })
}
