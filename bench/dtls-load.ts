/** Full mutual handshakes against any DTLS server, a window of them at once. */
import { connect } from '../transport/dtls/connect.ts'
import type { ConnectOptions } from '../transport/dtls/types.ts'

export interface HandshakeRun {
  readonly completed: number
  readonly lost: number
  /** From the first flight to the end of the handshake, ms, unordered. */
  readonly milliseconds: readonly number[]
}

/** `count` handshakes with 127.0.0.1:`port`, each closed at once, `window` at a time. */
export async function handshakes(
  port: number,
  options: ConnectOptions,
  count: number,
  window: number,
): Promise<HandshakeRun> {
  const milliseconds: number[] = []
  let begun = 0
  let lost = 0
  const worker = async (): Promise<void> => {
    while (begun < count) {
      begun++
      const from = performance.now()
      const association = connect('127.0.0.1', port, options)
      try {
        await association.opened
        milliseconds.push(performance.now() - from)
      } catch {
        lost++
      }
      association.close()
    }
  }
  await Promise.all(Array.from({ length: window }, worker))
  return { completed: milliseconds.length, lost, milliseconds }
}
