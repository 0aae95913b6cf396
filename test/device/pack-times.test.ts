import { describe, expect, test } from 'vitest'
import type { GroupSession } from '../../device/group-session.ts'
import { Packs } from '../../device/packs.ts'
import { encodeSenml } from '../../protocol/objects/senml.ts'
import { silentLogger } from '../../runtime/log.ts'
import { openMemoryStore } from '../../store/memory.ts'

/** When a pack may be sealed, and what time it says (protocol.md "Packs"). */
const EXP = 1_800_000_900
const group = {
  times: () => ({ session: 4, nbf: EXP - 900, exp: EXP }),
  supersededAt: () => undefined,
} as unknown as GroupSession

/** A reading is sealed in the session, and the device stops at `stop`. @returns the times that packs were sealed with */
async function sealedAt(stop: number): Promise<number[]> {
  let now = EXP - 100
  const times: number[] = []
  const packs = await Packs.load({
    store: openMemoryStore(),
    log: silentLogger,
    capacity: 8,
    nowSeconds: () => now,
    seal: (_, path, __, plaintext, at) => {
      times.push(at.iat)
      expect(at.session).toBe(4)
      return { path, seq: 2, sid: Uint8Array.of(1), session: 4, iat: at.iat, signed: plaintext, encrypt0: plaintext }
    },
    onPack: () => undefined,
  })
  const plaintext = encodeSenml([{ n: 'temp', v: 1 }])
  const reading = { path: '/s/temp', seq: 1, sid: Uint8Array.of(1), session: 4, iat: now }
  packs.note({ ...reading, signed: plaintext, encrypt0: plaintext }, group, plaintext)
  now = stop
  packs.stop()
  return times
}

describe('a pack', () => {
  test('within its session says when it was sealed', async () => {
    expect(await sealedAt(EXP - 10)).toEqual([EXP - 10])
  })

  test('after its session says the end of it, for 30 seconds; then its readings stay single objects', async () => {
    expect(await sealedAt(EXP + 1)).toEqual([EXP])
    expect(await sealedAt(EXP + 30)).toEqual([EXP])
    expect(await sealedAt(EXP + 31)).toEqual([])
  })
})
