/** The second implementation as a process: commands with lists of items in, lists of answers out. */
import { join } from 'node:path'
import { IotchainError, isIotchainError } from '../../protocol/errors.ts'
import { pythonWith } from '../peers/coap-peers.ts'
import { packageRoot } from '../peers/install.ts'
import { PeerProcess } from '../peers/process.ts'

const CRYPTOGRAPHY = 'cryptography==48.0.0'
const ANSWER_MS = 300_000

/** An answer that is no success. */
export interface Refused {
  readonly error: string
}

export class Second {
  readonly #process: PeerProcess

  private constructor(python: string) {
    this.#process = new PeerProcess([python, '-B', join(packageRoot(), 'test', 'second', 'peer.py')])
  }

  /** @throws PeerMissing where there is no Python with `cryptography` */
  static async start(): Promise<Second> {
    return new Second(await pythonWith('second', [CRYPTOGRAPHY]))
  }

  /** One command as it stands. */
  async command<T>(command: object): Promise<T> {
    this.#process.write(`${JSON.stringify(command)}\n`)
    const line = await this.#process.line(ANSWER_MS)
    if (line === undefined) {
      throw new IotchainError(
        'demo/daemon-failed',
        `the second implementation ended: ${this.#process.stderr.slice(-800)}`,
      )
    }
    return JSON.parse(line) as T
  }

  async ask<T>(op: string, items: readonly unknown[]): Promise<(T | Refused)[]> {
    return await this.command<(T | Refused)[]>({ op, items })
  }

  stop(): Promise<void> {
    return this.#process.stop()
  }
}

/** What `work` gives, or the code that it throws, in the form of the second implementation's answers. */
export function tried<T>(work: () => T): T | Refused {
  try {
    return work()
  } catch (error) {
    if (isIotchainError(error)) return { error: error.code }
    throw error
  }
}
