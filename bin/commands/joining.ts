/** Becoming a member when a command needs it: finds the group that an object names, waits for confirmations. */
import type { IotClient } from '../../client/client.ts'
import type { Membership } from '../../client/group.ts'
import { equalBytes } from '../../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../../protocol/errors.ts'
import type { Address } from '../../protocol/messages/address.ts'
import type { ClientSession } from './client-session.ts'

export interface JoinWish {
  readonly device: Address
  readonly bit: number
  readonly commandSeed?: Uint8Array
  /** How long to wait for confirmations; default 30 min. */
  readonly patienceMs?: number
}

const PATIENCE_MS = 30 * 60_000
const MAX_PAUSE_SECONDS = 10

/** The claims bit whose group this is, or undefined: it is none of the device's. */
export function bitOf(client: IotClient, device: Address, gid: Uint8Array): number | undefined {
  for (let bit = 0; bit < 32; bit++) if (equalBytes(client.gid(device, bit), gid)) return bit
  return undefined
}

/** Joins, and tells how many confirmations are missing while that is what holds it up. */
export async function joinGroup(session: ClientSession, wish: JoinWish): Promise<Membership> {
  const { ctx } = session
  const signer = session.signerOf(await session.addressFor(wish.device))
  const client = await session.client()
  const keyServer = await session.keyServerOf(wish.device)
  const deadline = performance.now() + (wish.patienceMs ?? PATIENCE_MS)
  for (;;) {
    try {
      ctx.out.progress(`joining group ${wish.bit} of ${wish.device} at ${keyServer.uri}`)
      return await client.join({ signer, keyServer, signal: ctx.signal, ...wish })
    } catch (error) {
      const waits =
        isIotchainError(error) && (error.code === 'client/confirmations' || error.code === 'client/unavailable')
      if (!waits || performance.now() > deadline) throw error
      const pause = Math.min(MAX_PAUSE_SECONDS, Math.max(1, error.retryAfterSeconds ?? 1))
      ctx.out.progress(`${error.message}; asking again in ${pause} s`)
      await sleep(pause * 1000, ctx.signal)
    }
  }
}

/**
 * Runs `open`; if what it lacks is a membership, joins the group and runs it again.
 * @param gid the group that the object names
 */
export async function withMembership<T>(
  session: ClientSession,
  device: Address,
  gid: Uint8Array,
  open: () => Promise<T>,
): Promise<T> {
  const client = await session.client()
  const bit = bitOf(client, device, gid)
  if (bit === undefined) {
    throw new IotchainError('client/foreign-group', `the object names a group that is none of ${device}`, {
      hint: 'check chainId and registry in config.yaml; if they are right, do not trust who passed the object on',
    })
  }
  if (!client.group(device, bit)?.member) {
    await joinGroup(session, { device, bit })
    return open()
  }
  try {
    return await open()
  } catch (error) {
    // A membership that ended and was renewed since is a new one: asking the key server again shows it.
    if (!isIotchainError(error) || error.code !== 'object/no-access') throw error
    await joinGroup(session, { device, bit })
    return open()
  }
}

export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(finish, ms)
    signal.addEventListener('abort', stop, { once: true })
    function finish(): void {
      signal.removeEventListener('abort', stop)
      resolve()
    }
    function stop(): void {
      clearTimeout(timer)
      reject(new IotchainError('client/interrupted', 'interrupted'))
    }
  })
}
