/**
 * `iotchain-device forget /s/temp`: has everything of a resource deleted, here and at the proxy, by a signed tombstone
 * (protocol.md "Tombstones"). The command leaves an order in the state folder; the running daemon, which alone may
 * seal, carries it out at its next start or reload.
 */
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { GONE_SEGMENT } from '../protocol/objects/aad.ts'
import { encodeSenml } from '../protocol/objects/senml.ts'
import { writeFileAtomic } from '../runtime/atomic-file.ts'
import type { Logger } from '../runtime/log.ts'
import { ContentFormat } from '../transport/coap/content-format.ts'
import type { GroupSession } from './group-session.ts'
import type { Packs } from './packs.ts'
import type { SealedObject } from './sealed-object.ts'
import type { SealedStore } from './sealed-store.ts'

const FOLDER = 'forget'

/** Leaves the order. @param state the device's state folder @throws `runtime/cannot-write` */
export function orderForget(state: string, path: string): void {
  const folder = join(state, FOLDER)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  writeFileAtomic(join(folder, encodeURIComponent(path)), '', { mode: 0o644 })
}

/** Paths that are to be forgotten. */
export function forgetOrders(state: string): string[] {
  try {
    return readdirSync(join(state, FOLDER))
      .filter((name) => !name.startsWith('.'))
      .map(decodeURIComponent)
  } catch {
    return []
  }
}

export interface ForgetOptions {
  readonly state: string
  readonly log: Logger
  readonly objects: SealedStore
  readonly packs: Packs
  /** The group of a resource; undefined for one that the configuration does not have any more. */
  readonly groupOf: (path: string) => GroupSession | undefined
  /** Seals a tombstone now, or undefined while that cannot be done. */
  readonly seal: (
    group: GroupSession,
    path: string,
    contentFormat: number,
    plaintext: Uint8Array,
  ) => SealedObject | undefined
  /** The tombstone is queued for the proxy. */
  readonly onSealed: () => void
}

/** Carries out what can be done now. @returns true when an order is left for later */
export async function forgetOrdered(options: ForgetOptions): Promise<boolean> {
  let left = false
  for (const path of forgetOrders(options.state)) {
    const group = options.groupOf(path)
    const tombstone = group && options.seal(group, `${path}/${GONE_SEGMENT}`, ContentFormat.senmlCbor, encodeSenml([]))
    if (group !== undefined && tombstone === undefined) {
      left = true
      continue
    }
    await options.packs.forget(path)
    await options.objects.forget(path)
    if (tombstone !== undefined) {
      await options.objects.add(tombstone, { latest: false })
      await options.objects.commit()
      options.onSealed()
    }
    rmSync(join(options.state, FOLDER, encodeURIComponent(path)), { force: true })
    options.log.info({ path, tombstone: tombstone !== undefined }, 'forgotten')
  }
  return left
}
