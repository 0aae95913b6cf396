/** How a scene is played: what it found is kept, what it waits for is said. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Result } from '../interop/results.ts'

export const results: Result[] = []
const verbose = process.argv.includes('--verbose')

/** What a scene found, for people. @throws Error with what is wrong */
export async function scene(title: string, play: () => Promise<string>): Promise<void> {
  const began = performance.now()
  const [status, detail] = await play().then(
    (found) => ['ok', found] as const,
    (error: unknown) => ['failed', error instanceof Error ? error.message : String(error)] as const,
  )
  results.push({ table: 'Multicast', cell: title, peer: 'LAN', status, detail })
  if (status === 'failed' || verbose) {
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    process.stderr.write(`${status} | ${title} | ${detail} (${seconds} s)\n`)
  }
}

export function must(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise)
}

export async function until<T>(what: string, seconds: number, look: () => Promise<T | undefined>): Promise<T> {
  let last = 'not yet'
  for (const end = performance.now() + seconds * 1000; performance.now() < end; await delay(250)) {
    try {
      const found = await look()
      if (found !== undefined) return found
    } catch (error) {
      last = error instanceof Error ? error.message : String(error)
    }
  }
  throw new Error(`${what}: not in ${seconds} s (${last})`)
}
