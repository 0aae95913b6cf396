import { spawn } from 'node:child_process'
import { copyFileSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Sequence } from '../../device/sequence.ts'
import { bundleProgram } from '../child-program.ts'
import { memoryFolder } from './fixtures.ts'

const GROUP = '0011223344556677'
const SID = Uint8Array.of(1, 2)
const START = 1_760_000_000_000
/** A longer run: IOTCHAIN_KILLS=200 npx vitest run test/device/sequence.test.ts */
const KILLS = Number(process.env['IOTCHAIN_KILLS'] ?? 20)

function take(sequence: Sequence, nowMs: number): number | undefined {
  const step = sequence.next(nowMs)
  return 'seq' in step ? step.seq : undefined
}

describe('sequence numbers', () => {
  test('nothing is sealed in the second of the start; then numbers begin at the clock’s floor', () => {
    const sequence = Sequence.open(join(memoryFolder(), 'sequence'), 'm')
    expect(take(sequence, START)).toBeUndefined()
    expect(take(sequence, START + 999)).toBeUndefined()
    expect(take(sequence, START + 1000)).toBe((1_760_000_001 - 1_704_067_200) * 256)
    expect(take(sequence, START + 1000)).toBe((1_760_000_001 - 1_704_067_200) * 256 + 1)
  })

  test('256 in one second, the next waits for the clock', () => {
    const sequence = Sequence.open(join(memoryFolder(), 'sequence'), 'm')
    take(sequence, START)
    for (let i = 0; i < 256; i++) expect(take(sequence, START + 1000)).toBeDefined()
    expect(take(sequence, START + 1999)).toBeUndefined()
    expect(take(sequence, START + 2000)).toBe((1_760_000_002 - 1_704_067_200) * 256)
  })

  test('a number is reserved on disk before it is given out', () => {
    const path = join(memoryFolder(), 'sequence')
    const sequence = Sequence.open(path, 'm')
    take(sequence, START)
    const seq = take(sequence, START + 1000) as number
    expect(JSON.parse(readFileSync(path, 'utf8').split('\n')[0] as string).limit).toBe(seq + 64)
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  test('when the disk takes nothing, no number is given out', () => {
    const folder = memoryFolder()
    const sequence = Sequence.open(join(folder, 'gone', 'sequence'), 'm')
    take(sequence, START)
    expect(() => take(sequence, START + 1000)).toThrow(expect.objectContaining({ code: 'runtime/cannot-write' }))
    expect(() => take(sequence, START + 1000)).toThrow(expect.objectContaining({ code: 'runtime/cannot-write' }))
  })

  test('Sender IDs and sessions survive; sessions never go back', () => {
    const path = join(memoryFolder(), 'sequence')
    const sequence = Sequence.open(path, 'm')
    expect(() => sequence.enterSession(GROUP, 3)).toThrow(expect.objectContaining({ code: 'device/no-sender-id' }))
    sequence.setSid(GROUP, SID)
    sequence.enterSession(GROUP, 7)
    const again = Sequence.open(path, 'm')
    expect(again.loss).toBeUndefined()
    expect(again.group(GROUP)).toEqual({ sid: SID, session: 7 })
    expect(() => again.enterSession(GROUP, 6)).toThrow(expect.objectContaining({ code: 'device/old-session' }))
  })

  test('missing, truncated, changed or foreign state voids the Sender IDs', () => {
    const path = join(memoryFolder(), 'sequence')
    const sequence = Sequence.open(path, 'm')
    sequence.setSid(GROUP, SID)
    const good = readFileSync(path)
    for (let length = 0; length < good.length; length++) {
      truncateSync(path, length)
      expect(Sequence.open(path, 'm').loss).toBe('damaged')
      writeFileSync(path, good)
    }
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(good)
        changed[at] = (changed[at] as number) ^ flip
        writeFileSync(path, changed)
        expect(Sequence.open(path, 'm').loss).toBe('damaged')
      }),
      { numRuns: 100, seed: 1 },
    )
    rmSync(path)
    const fresh = Sequence.open(path, 'm')
    expect(fresh.loss).toBe('missing')
    expect(fresh.group(GROUP)).toBeUndefined()
    writeFileSync(path, good)
    expect(() => Sequence.open(path, 'another')).toThrow(expect.objectContaining({ code: 'device/cloned' }))
  })

  /** A run of the device: some seconds in which it seals as much as it is asked to. */
  const run = fc.record({
    restore: fc.option(fc.nat(5)),
    gapMs: fc.nat(3000),
    bursts: fc.array(fc.record({ afterMs: fc.nat(2500), count: fc.nat(400) }), { maxLength: 5 }),
  })

  test('no (sid, seq) twice, whatever old copy of the state is restored and however soon', () => {
    fc.assert(
      fc.property(fc.array(run, { minLength: 1, maxLength: 8 }), (runs) => {
        const folder = memoryFolder()
        const path = join(folder, 'sequence')
        Sequence.open(path, 'm').setSid(GROUP, SID)
        const copies: string[] = []
        const used = new Set<number>()
        let nowMs = START
        for (const { restore, gapMs, bursts } of runs) {
          const copy = join(folder, `copy${copies.length}`)
          copyFileSync(path, copy)
          copies.push(copy)
          if (restore !== null) copyFileSync(copies[restore % copies.length] as string, path)
          nowMs += gapMs
          const sequence = Sequence.open(path, 'm')
          sequence.next(nowMs)
          for (const { afterMs, count } of bursts) {
            nowMs += afterMs
            for (let i = 0; i < count; i++) {
              const seq = take(sequence, nowMs)
              if (seq === undefined) break
              if (used.has(seq)) throw new Error(`sequence number ${seq} was used twice`)
              used.add(seq)
            }
          }
        }
      }),
      { numRuns: 25, seed: 1 },
    )
  })

  test(
    `SIGKILL at any moment, ${KILLS} times: no (sid, seq) twice`,
    async () => {
      const program = await bundleProgram('test/device/sequence-child.ts')
      const folder = memoryFolder()
      const path = join(folder, 'sequence')
      const old = join(folder, 'old')
      Sequence.open(path, 'machine').setSid(GROUP, SID)
      copyFileSync(path, old)
      const used = new Set<string>()
      let clockMs = START
      let total = 0
      for (let kill = 0; kill < KILLS; kill++) {
        const child = spawn(process.execPath, [program, path, String(clockMs)], {
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        const startedMs = performance.now()
        let output = ''
        await new Promise<void>((resolve) => {
          const enough = 200 + ((kill * 7919) % 3000)
          child.stdout.on('data', (data: Buffer) => {
            output += data.toString()
            if (output.length > enough) child.kill('SIGKILL')
          })
          child.on('close', () => resolve())
        })
        for (const line of output.split('\n').slice(0, -1)) {
          if (used.has(line)) throw new Error(`${line} again after kill ${kill}`)
          used.add(line)
          total++
        }
        clockMs += (performance.now() - startedMs) * 50
        // Every third time an old image is restored, within the same second.
        if (kill % 3 === 2) copyFileSync(old, path)
      }
      expect(total).toBeGreaterThan(10 * KILLS)
    },
    KILLS * 4500,
  )
})
