import { beforeEach, describe, expect, test } from 'vitest'
import { suite } from '#crypto'
import { Membership } from '../../client/group.ts'
import { checkMacObject, type IntegrityKeyRecord, integrityKeyOf, parseIntegrityKey } from '../../client/mack.ts'
import { fromHex } from '../../protocol/bytes.ts'
import { openObject } from '../../protocol/objects/open.ts'
import { parseHeader } from '../../protocol/objects/parse.ts'
import { addressOfNumber, TestClock, TestDevice, type TestGroup, TestKeyServer } from './sealed-world.ts'

const CLIENT = addressOfNumber(1)
const PATH = ['s', 'temp']
const code = (what: string) => expect.objectContaining({ code: what })

/** A home gateway: it has the integrity key of one session and one resource, and nothing else. */
describe('a gateway with an integrity key', () => {
  let group: TestGroup
  let membership: Membership
  let record: IntegrityKeyRecord
  beforeEach(() => {
    const clock = new TestClock()
    group = new TestKeyServer(clock).group(new TestDevice(7))
    membership = Membership.fromJoin(
      { gid: group.gid, device: group.device.address, bit: 0, client: CLIENT, clock },
      group.join(CLIENT),
    )
    // As it travels: a line of JSON.
    record = parseIntegrityKey(JSON.stringify(integrityKeyOf(membership, PATH, parseHeader(group.seal().signed))))
  })

  test('says whether a mac-object is good', () => {
    const { mac, seq } = group.seal()
    expect(checkMacObject(mac, [record])).toMatchObject({ session: 1, seq })
    mac[mac.length - 20]! ^= 1
    expect(() => checkMacObject(mac, [record])).toThrow(code('object/bad-mac'))
  })

  test('cannot open it', () => {
    const { mac } = group.seal()
    const key = fromHex(record.integrityKey)
    const device = group.device.bytes
    for (const K of [key.slice(0, 16), key.slice(16)]) {
      expect(() => openObject(suite, mac, { K, device, path: PATH })).toThrow(code('object/bad-ciphertext'))
    }
  })

  test('knows nothing of other sessions, resources and incarnations', () => {
    expect(() => checkMacObject(group.seal({ path: ['s', 'x'] }).mac, [record])).toThrow(code('object/bad-mac'))
    expect(() => checkMacObject(group.seal({ sid: Uint8Array.of(9) }).mac, [record])).toThrow(code('client/no-mack'))
    group.advance()
    expect(() => checkMacObject(group.seal().mac, [record])).toThrow(code('client/no-mack'))
  })

  test('takes mac-objects only, and records that are whole', () => {
    expect(() => checkMacObject(group.seal().signed, [record])).toThrow(code('object/malformed'))
    expect(() => parseIntegrityKey('no json')).toThrow(code('client/bad-mack'))
    for (const change of [{ integrityKey: '00' }, { sid: '' }, { path: 'x' }, { algorithm: 2 }, { session: '1' }]) {
      expect(() => parseIntegrityKey(JSON.stringify({ ...record, ...change }))).toThrow(code('client/bad-mack'))
    }
  })

  test('a member without the session’s key gives none', () => {
    group.leave(CLIENT)
    group.advance()
    membership.receive(group.newest())
    const { header } = { header: parseHeader(group.seal().signed) }
    expect(() => integrityKeyOf(membership, PATH, header)).toThrow(code('object/no-access'))
  })
})
