/** What is kept of a request through the relay until its token stands, so that one that was cut off is not paid for twice. */
import type { Address } from '../protocol/messages/address.ts'
import type { RelayRequest } from '../protocol/messages/relay.ts'

/** What the client has signed; the relay knows it again whatever puzzle it comes with. */
export type SignedRequest = Omit<RelayRequest, 'challenge' | 'solution'>

export interface RelayRecord {
  readonly client: Address
  readonly contract: Address
  readonly offer: number
  /** The address was made for this request. */
  readonly fresh: boolean
  /** undefined: nothing has been signed yet */
  readonly signed?: { readonly request: SignedRequest; readonly nonce: number } | undefined
  /** of the relay's transaction, as far as it is known */
  readonly transaction?: string | undefined
}

export interface RelayKeeper {
  load(): Promise<RelayRecord | undefined>
  /** Durable when it resolves. */
  save(change: Pick<RelayRecord, 'signed' | 'transaction'>): Promise<void>
  clear(): Promise<void>
}
