/** Another Sender ID for a member that lost its sealing state, and the credential that says so (RFC 9594 §4.8.2). */
import type { Clock } from '../protocol/clock.ts'
import { addressHex } from '../protocol/messages/address.ts'
import type { Credentials } from './credentials.ts'
import type { Group } from './group.ts'
import { refusal } from './refusals.ts'
import type { ServedDevice } from './roster.ts'
import { Key, putRecord } from './storage.ts'

export class SenderIds {
  readonly #o: { readonly clock: Clock; readonly credentials: Credentials }

  constructor(options: { readonly clock: Clock; readonly credentials: Credentials }) {
    this.#o = options
  }

  /** Another Sender ID for a member that lost its state (RFC 9594 §4.8.2). */
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
    let credential: ReturnType<Credentials['prepare']>
    const sid = await group.change(
      (m) => {
        const issued = { sid: m.issueSid(), from: Math.floor(this.#o.clock.nowMs() / 1000) }
        const senderIds = { ...record.senderIds, [group.name]: [...(record.senderIds[group.name] ?? []), issued] }
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
    let credential: ReturnType<Credentials['prepare']>
    const until = group.manager.membership(memberId)?.expiresAt
    const sid = await group.change(
      (m) => {
        const issued = { sid: m.issueSid(), from: Math.floor(this.#o.clock.nowMs() / 1000) }
        const senderIds = { ...record.senderIds, [group.name]: [...(record.senderIds?.[group.name] ?? []), issued] }
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
}
