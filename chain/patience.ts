/** Waiting that ends: by itself, with the time that it was given, or by a signal. */

/**
 * What comes of the work; undefined when the time is over. The work itself goes on, unheard.
 * @throws what the work throws, the signal's reason
 */
export function within<T>(ms: number, work: Promise<T>, signal: AbortSignal | undefined): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted()
    const onAbort = (): void => settle(() => reject(signal?.reason))
    const timer = setTimeout(() => settle(() => resolve(undefined)), Math.min(ms, 2 ** 31 - 1))
    const settle = (how: () => void): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      how()
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    work.then(
      (value) => settle(() => resolve(value)),
      (error: unknown) => settle(() => reject(error)),
    )
  })
}

/** @throws the signal's reason */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await within(ms, new Promise<never>(() => undefined), signal)
}
