/** Another Sender ID for a member that lost its sealing state, and the credential that says so (RFC 9594 §4.8.2). */
import type { Clock } from '../protocol/clock.ts'
import { addressHex } from '../protocol/messages/address.ts'
import type { Credentials } from './credentials.ts'
import type { Group } from './group.ts'
import { refusal } from './refusals.ts'
import type { ServedDevice } from './roster.ts'
import { checkRation, withSenderId } from './sender-id-records.ts'
import { Key, putRecord } from './storage.ts'

export interface SenderIdsOptions {
  readonly clock: Clock
  readonly credentials: Credentials
  /** How long objects that were sealed under a Sender ID can be verified. */
  readonly retentionSeconds: number
}

export class SenderIds {
  readonly #o: SenderIdsOptions

  constructor(options: SenderIdsOptions) {
    this.#o = options
  }

  /**
   * Another Sender ID for a member that lost its state (RFC 9594 §4.8.2).
   * @throws `group/quota` when it has had too many
   */
  renew(group: Group, served: ServedDevice, memberId: Uint8Array): Promise<Uint8Array> {
    return served.gate.run(() =>
      memberId[0] === 0x02 ? this.#renewDeviceSid(group, served) : this.#renewClientSid(group, served, memberId),
    )
  }

  async #renewDeviceSid(group: Group, served: ServedDevice): Promise<Uint8Array> {
    let { record } = served
    const { coseKey } = record
    if (coseKey === undefined)
      throw refusal('keyserver/not-member', 'the device has not joined', { hint: 'join again' })
    checkRation(record.senderIds, group.name, this.#now(), this.#o.retentionSeconds)
    let credential: ReturnType<Credentials['prepare']>
    const sid = await group.change(
      (m) => {
        const issued = { sid: m.issueSid(), from: this.#now() }
        const senderIds = withSenderId(record.senderIds, group.name, issued, this.#o.retentionSeconds)
        record = { ...record, senderIds }
        credential = this.#o.credentials.prepare({
          device: served.address,
          subject: served.address,
          coseKey,
          senderIds,
        })
        return issued.sid
      },
      () => [
        putRecord(Key.device(served.address), record),
        ...(credential === undefined ? [] : [credential.operation]),
      ],
    )
    served.record = record
    credential?.adopt()
    return sid
  }

  async #renewClientSid(group: Group, served: ServedDevice, memberId: Uint8Array): Promise<Uint8Array> {
    const client = served.client(addressHex(memberId.subarray(1)))
    let { record } = client
    const { commandKey } = record
    if (commandKey === undefined) throw refusal('keyserver/not-yours', 'a client that only reads has no Sender ID')
    checkRation(record.senderIds ?? {}, group.name, this.#now(), this.#o.retentionSeconds)
    let credential: ReturnType<Credentials['prepare']>
    const until = group.manager.membership(memberId)?.expiresAt
    const sid = await group.change(
      (m) => {
        const issued = { sid: m.issueSid(), from: this.#now() }
        const senderIds = withSenderId(record.senderIds ?? {}, group.name, issued, this.#o.retentionSeconds)
        record = { ...record, senderIds }
        credential = this.#o.credentials.prepare({
          device: served.address,
          subject: client.address,
          role: 'w',
          coseKey: commandKey,
          senderIds,
          until,
        })
        return issued.sid
      },
      () => [
        putRecord(Key.client(served.address, client.address), record),
        ...(credential === undefined ? [] : [credential.operation]),
      ],
    )
    client.record = record
    credential?.adopt()
    return sid
  }

  #now(): number {
    return Math.floor(this.#o.clock.nowMs() / 1000)
  }
}
