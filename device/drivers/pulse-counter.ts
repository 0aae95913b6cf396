/** A count that never goes back: it is on the disk before anybody is told of it. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { IotchainError } from '../../protocol/errors.ts'
import { readFileIfExists, writeFileAtomic } from '../../runtime/atomic-file.ts'

export class PulseCounter {
  readonly #file: string
  #count = 0
  #saved = 0

  /** @param path of the resource; it names the file */
  constructor(directory: string, path: string) {
    this.#file = join(directory, `${path.replaceAll('/', '_').slice(1)}.count`)
  }

  get count(): number {
    return this.#count
  }

  /** @throws `sensor/counter-damaged`: a meter must not begin again at 0 by itself */
  load(): void {
    const text = readFileIfExists(this.#file)?.toString().trim()
    if (text === undefined) return
    const count = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (!Number.isSafeInteger(count)) {
      throw new IotchainError('sensor/counter-damaged', `${this.#file} holds no count`, {
        hint: 'write the meter’s count into it, or delete it to begin at 0',
      })
    }
    // Pulses of this run that came before a reading failed to load are kept.
    this.#count = Math.max(this.#count, count)
    this.#saved = count
  }

  add(): void {
    this.#count++
  }

  /** Durable when it returns. @throws `runtime/…`: then the count must not be reported */
  save(): void {
    if (this.#count === this.#saved) return
    mkdirSync(join(this.#file, '..'), { recursive: true, mode: 0o700 })
    writeFileAtomic(this.#file, `${this.#count}\n`)
    this.#saved = this.#count
  }
}
