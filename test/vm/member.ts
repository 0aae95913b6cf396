/** A client on the host that holds a token and reads what the guest serves. */
import { requestToken } from '../../chain/request.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import type { Reading } from '../../client/open.ts'
import { Reader } from '../../demo/reader.ts'
import { CONFIRMATIONS, readerOf, type Stage } from '../../demo/stage.ts'
import { eventually } from './report.ts'

/** How long a reading may take from a guest whose processor is emulated, on a host that has other work. */
const READING_MS = 300_000

/** @param offer of the stage's contract: the one of its device */
export async function member(stage: Stage, offer = 0): Promise<Reader> {
  const view = readerOf(stage)
  const reader = new Reader('client A', stage.chain.clientKeys[0], stage, view)
  const sender = new TransactionSender({
    rpc: new JsonRpc({ url: stage.chain.url }),
    chainId: stage.chain.chainId,
    account: reader.account,
  })
  await requestToken({ reader: view, sender, contract: stage.contract, offer, confirmations: CONFIRMATIONS })
  return reader
}

/** Reads /s/`name` at the device until the reading is as wanted. */
export function readingOf(
  reader: Reader,
  name: string,
  wanted: (reading: Reading) => boolean = () => true,
): Promise<Reading> {
  return eventually(READING_MS, async () => {
    const reading = await reader.library.read({ ...(await reader.atDevice()), path: ['s', name] })
    if (wanted(reading)) return reading
    throw new Error(`/s/${name} is ${JSON.stringify(reading.records.map((r) => [r.name, r.value]))}`)
  })
}

/** The first value of /s/`name`. */
export async function numberOf(reader: Reader, name: string): Promise<number> {
  return Number((await readingOf(reader, name)).records[0]?.value)
}
