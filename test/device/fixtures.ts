/** What the device's tests share: folders, clocks that are set by hand, and a sysfs made of plain files. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { DriverEnvironment } from '../../device/drivers/driver.ts'
import type { Clock } from '../../protocol/clock.ts'
import { silentLogger } from '../../runtime/log.ts'

export function temporaryFolder(): string {
  const path = mkdtempSync(join(tmpdir(), 'iotchain-device-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/**
 * A folder in memory where the host has one: thousands of syncs cost nothing there. A killed process loses no more
 * than on a disk, because the kernel keeps what was written.
 */
export function memoryFolder(): string {
  const root = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const path = mkdtempSync(join(root, 'iotchain-device-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export class HandClock implements Clock {
  wallMs: number
  monoMs = 1000
  constructor(wallMs = 1_760_000_000_000) {
    this.wallMs = wallMs
  }
  nowMs(): number {
    return this.wallMs
  }
  monotonicMs(): number {
    return this.monoMs
  }
  advance(ms: number): void {
    this.wallMs += ms
    this.monoMs += ms
  }
}

/** Writes files below a new root: `{ 'bus/w1/devices/28-…/temperature': '21500' }`. */
export function sysfs(files: Record<string, string>): {
  root: string
  write(path: string, text: string): void
  remove(path: string): void
} {
  const root = temporaryFolder()
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), `${text}\n`)
  }
  for (const [path, text] of Object.entries(files)) write(path, text)
  return { root, write, remove: (path) => rmSync(join(root, path), { recursive: true, force: true }) }
}

export function environment(options: Partial<DriverEnvironment> = {}): DriverEnvironment {
  const clock = new HandClock()
  return {
    sysfsRoot: '/nonexistent',
    stateDirectory: temporaryFolder(),
    log: silentLogger,
    monotonicMs: () => clock.monotonicMs(),
    gpio: { chip: 'auto', allowInternal: false },
    ...options,
  }
}
