import { suite as noble } from '../../protocol/crypto/noble.ts'
import { suite as node } from '../../protocol/crypto/node.ts'

/** Both crypto suites, for describe.each. */
export const SUITES = [node, noble].map((suite) => ({ name: suite.name, suite }))

/** The code of the IotchainError that `run` throws; anything else thrown goes through. */
export function codeOf(run: () => unknown): string | undefined {
  try {
    run()
  } catch (error) {
    if (error instanceof Error && error.name === 'IotchainError') return (error as Error & { code: string }).code
    throw error
  }
  return undefined
}

export function range(from: number, to: number): Uint8Array {
  return Uint8Array.from({ length: to - from + 1 }, (_, i) => (from + i) & 255)
}
