/**
 * So that a request that was cut off goes on instead of paying twice: what a program keeps of the transactions of a
 * request, from before they leave until their outcome is known.
 */
import { isIotchainError } from '../protocol/errors.ts'
import type { TransactionSender } from './sender.ts'
import type { Intent, OpenTransaction, Receipt, SendOptions } from './transaction.ts'

export interface Journal {
  /** The transaction of this step that was signed, and whose outcome is not known. */
  open(step: string): Promise<OpenTransaction | undefined>
  /** Durable when it resolves. */
  signed(step: string, transaction: OpenTransaction): Promise<void>
  closed(step: string): Promise<void>
}

/** For programs that send each request once, whatever happens: tests, benchmarks. */
export const NO_JOURNAL: Journal = {
  open: async () => undefined,
  signed: async () => undefined,
  closed: async () => undefined,
}

export interface JournalledOptions extends SendOptions {
  readonly journal: Journal
  readonly step: string
  readonly raiseFee?: boolean | undefined
}

/** Sends, and keeps what leaves. Stays open when it returns: what comes of it may have to be kept first. */
export async function sendKept(sender: TransactionSender, intent: Intent, o: JournalledOptions): Promise<Receipt> {
  return ending(o, () => sender.send(intent, { ...o, beforeSending: (t) => o.journal.signed(o.step, t) }))
}

/**
 * Goes on with what was kept.
 *
 * @param intentOf the intent that the kept octets carry out
 * @returns undefined if there is nothing, or if it can come to nothing any more: refused in its block, or overtaken
 */
export async function resumeKept(
  sender: TransactionSender,
  intentOf: (open: OpenTransaction) => Intent,
  o: JournalledOptions,
): Promise<Receipt | undefined> {
  const open = await o.journal.open(o.step)
  if (open === undefined) return undefined
  const options = {
    ...o,
    raiseFee: o.raiseFee ?? false,
    beforeSending: (t: OpenTransaction) => o.journal.signed(o.step, t),
  }
  try {
    const receipt = await ending(o, () => sender.resume(intentOf(open), open, options))
    if (receipt === undefined) await o.journal.closed(o.step)
    return receipt
  } catch (error) {
    if (isOver(error)) return undefined
    throw error
  }
}

/** Closes the step when its transaction has failed for good. */
async function ending<T>(o: JournalledOptions, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (isOver(error)) await o.journal.closed(o.step)
    throw error
  }
}

const isOver = (error: unknown): boolean =>
  isIotchainError(error) && (error.code === 'chain/reverted' || error.code === 'chain/replaced')
