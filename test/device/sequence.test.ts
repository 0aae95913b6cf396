import { spawn } from 'node:child_process'
import { copyFileSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Sequence } from '../../device/sequence.ts'
import { SEQ_EPOCH, SEQ_PER_SECOND } from '../../protocol/objects/seq.ts'
import { bundleProgram } from '../child-program.ts'
import { memoryFolder } from './fixtures.ts'

const GROUP = '0011223344556677'
const SID = Uint8Array.of(1, 2)
const START = 1_760_000_000_000
/** A longer run: IOTCHAIN_KILLS=200 npx vitest run test/device/sequence.test.ts */
const KILLS = Number(process.env['IOTCHAIN_KILLS'] ?? 10)

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
    `SIGKILL at any moment, ${KILLS} times, and what then happens to the state: no (sid, seq) twice`,
    async () => {
      const program = await bundleProgram('test/device/sequence-child.ts')
      const folder = memoryFolder()
      const path = join(folder, 'sequence')
      const old = join(folder, 'old')
      Sequence.open(path, 'machine').setSid(GROUP, Uint8Array.of(1))
      copyFileSync(path, old)
      let incarnation = 1
      /** What a device does that lost its state: another Sender ID before anything is sealed. */
      const reincarnate = (loss: 'missing' | 'damaged'): void => {
        const sequence = Sequence.open(path, 'machine')
        expect(sequence.loss).toBe(loss)
        expect(sequence.group(GROUP)).toBeUndefined()
        incarnation++
        sequence.setSid(GROUP, Uint8Array.of(incarnation >> 8, incarnation & 255))
        copyFileSync(path, old)
      }
      const used = new Set<string>()
      const seen = { bursts: 0, restored: 0, truncated: 0, missing: 0, foreign: 0 }
      let clockMs = START
      let total = 0
      for (let kill = 0; kill < KILLS; kill++) {
        // Every other life seals more than 1 024 objects, four seconds of the clock, before it is killed.
        const burst = kill % 2 === 1
        const enough = burst ? 1024 + ((kill * 31) % 200) : 10 + ((kill * 7919) % 300)
        const lines = await killed(program, [path, String(clockMs)], enough)
        for (const line of lines) {
          if (used.has(line)) throw new Error(`${line} again after kill ${kill}`)
          used.add(line)
        }
        total += lines.length
        if (burst) seen.bursts++
        // The next start is within the second of the last number: the clock stood there, or later.
        const last = Number(lines.at(-1)?.split(' ')[1])
        clockMs = (Math.floor(last / SEQ_PER_SECOND) + SEQ_EPOCH) * 1000 + ((kill * 37) % 1000)
        switch (kill % 5) {
          case 0: // goes on with what is there
            break
          case 1:
          case 3: // an old image comes back
            copyFileSync(old, path)
            seen.restored++
            break
          case 2:
            truncateSync(path, (kill * 13) % statSync(path).size)
            reincarnate('damaged')
            seen.truncated++
            break
          default:
            rmSync(path)
            reincarnate('missing')
            seen.missing++
        }
        if (kill % 7 === 6) {
          // The card is copied: the other machine refuses, and changes nothing.
          const before = readFileSync(path, 'utf8')
          expect(() => Sequence.open(path, 'another machine')).toThrow(
            expect.objectContaining({ code: 'device/cloned' }),
          )
          expect(readFileSync(path, 'utf8')).toBe(before)
          seen.foreign++
        }
      }
      expect(total).toBeGreaterThan(500 * KILLS)
      for (const count of Object.values(seen)) expect(count).toBeGreaterThanOrEqual(Math.floor(KILLS / 7))
    },
    KILLS * 4500,
  )
})

/** The child's clock runs so many times as fast as ours. */
const CLOCK_SPEED = 50

/** Lets a child print so many numbers, kills it, and says what it had printed whole. */
async function killed(program: string, args: readonly string[], enough: number): Promise<string[]> {
  const child = spawn(process.execPath, [program, ...args, String(CLOCK_SPEED)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  let lines = 0
  await new Promise<void>((resolve) => {
    child.stdout.on('data', (data: Buffer) => {
      output += data.toString()
      lines += data.filter((octet) => octet === 0x0a).length
      if (lines >= enough) child.kill('SIGKILL')
    })
    child.on('close', () => resolve())
  })
  return output.split('\n').slice(0, -1)
}
