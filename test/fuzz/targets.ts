/** Every parser of octets that strangers send. */
import { concat, equalBytes, fromUtf8, toHex, utf8 } from '../../protocol/bytes.ts'
import { decodeCbor, encodeCbor, Tagged } from '../../protocol/cbor.ts'
import { decodeEncrypt0 } from '../../protocol/cose/encrypt0.ts'
import { coseKeyEd25519, publicKeyOf } from '../../protocol/cose/key.ts'
import { decodeMac0 } from '../../protocol/cose/mac0.ts'
import { decodeSign1 } from '../../protocol/cose/sign1.ts'
import { suite } from '../../protocol/crypto/node.ts'
import { claimBroadcast, decodeBroadcast } from '../../protocol/groups/broadcast.ts'
import { randomEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import { toGid } from '../../protocol/groups/gid.ts'
import { newManagerState } from '../../protocol/groups/manager-state.ts'
import { decodePersonalKey, encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { addressHex } from '../../protocol/messages/address.ts'
import { decodeCommand, encodeCommand } from '../../protocol/objects/command.ts'
import { issueCredential, verifyCredential } from '../../protocol/objects/credential.ts'
import { encodeHeader } from '../../protocol/objects/header.ts'
import { openObject } from '../../protocol/objects/open.ts'
import { decodePack, encodePack } from '../../protocol/objects/pack.ts'
import { parseEncrypt0, parseHeader, parseObject } from '../../protocol/objects/parse.ts'
import { createSealer } from '../../protocol/objects/seal.ts'
import { decodeSenml, encodeSenml } from '../../protocol/objects/senml.ts'
import { verifySigned } from '../../protocol/objects/verify.ts'
import { decodeLinks } from '../../transport/coap/link-format.ts'
import { decodeMessage, Message } from '../../transport/coap/message.ts'
import { decodeProblem, encodeProblem } from '../../transport/coap/problem-details.ts'
import type { FuzzTarget } from './engine.ts'
import { MESSAGE_TARGETS } from './message-targets.ts'

const START = 1_800_000_000
const gid = toGid(utf8('group-01'))
const device = new Uint8Array(20).fill(5)
const path = ['s', 'temp']
const kdcKey = suite.ed25519.signing(suite.sha256(utf8('key server')))
const kdc = suite.ed25519.verifying(kdcKey.publicKey)
const deviceKey = suite.ed25519.signing(suite.sha256(utf8('device')))

/** A group with some past: broadcasts of two epochs with several cohorts, and a member. */
const group = (() => {
  let n = 0
  const manager = sdsh(suite).manager({
    state: newManagerState(gid, { dMin: 3, minSessionSeconds: 1 }),
    secrets: randomEpochSecrets((length) => suite.hkdfExpand(suite.sha256(gid), utf8(`${n++}`), length)),
    signingKey: kdcKey,
  })
  manager.allocateEpoch({ nbf: START })
  manager.activateEpoch()
  const id = utf8('member')
  const personals = [manager.join(id, { mode: 'next' }).personal]
  const broadcasts: Uint8Array[] = []
  for (let j = 1; j <= 6; j++) {
    manager.join(utf8(`other ${j}`), { mode: 'next' })
    if (j > 2) manager.leave(utf8(`other ${j - 2}`))
    if (j === 4) {
      manager.allocateEpoch({ nbf: START + j * 900 })
      manager.activateEpoch()
      personals.push(manager.personal(id))
    }
    broadcasts.push(manager.next({ nbf: START + j * 900, exp: START + (j + 1) * 900 }))
    manager.changes()
    manager.committed()
  }
  return { broadcasts, personals }
})()
const payloads = group.broadcasts.map((b) => claimBroadcast(b, {}).message.payload)

const K = new Uint8Array(16).fill(9)
const objects = ([24, 10, 1] as const).flatMap((algorithm, n) => {
  const sealer = createSealer(suite, {
    K,
    gid,
    session: 5,
    device,
    sid: Uint8Array.of(1, n),
    path,
    algorithm,
    signingKey: deviceKey,
  })
  const plaintext = encodeSenml([{ bn: 'temp', u: 'Cel', v: 21.5 }])
  const { signed, encrypt0 } = sealer.seal({ seq: 77 + 1000 * n, iat: START, contentFormat: 112, plaintext })
  return [signed, sealer.mac(encrypt0), encrypt0]
})
const credentialBytes = issueCredential(
  suite,
  {
    issuer: 'key server',
    subject: addressHex(device),
    iat: START,
    exp: START + 1000,
    publicKey: deviceKey.publicKey,
    groups: new Map([[toHex(gid), [{ sid: Uint8Array.of(1, 0), from: START }]]]),
  },
  kdcKey,
)
const credential = verifyCredential(suite, credentialBytes, { key: kdc })
const coapGet = Uint8Array.of(0x44, 1, 0, 7, 1, 2, 3, 4, 0xb1, 0x73, 4, 0x74, 0x65, 0x6d, 0x70, 0x60, 0x52, 0x01, 0x10)

/** Only the octets that `encode` gives back may decode. */
function onlyOnce<T>(decode: (bytes: Uint8Array) => T, encode: (value: T) => Uint8Array): (bytes: Uint8Array) => void {
  return (bytes) => {
    if (!equalBytes(encode(decode(bytes)), bytes)) throw new Error('other octets of the same value')
  }
}

const PROTOCOL_TARGETS: readonly FuzzTarget[] = [
  {
    name: 'cbor',
    seeds: () => [encodeCbor([1, -500, 1.5, 'text', null, true, new Map([[1, gid]]), new Tagged(18, [])]), ...payloads],
    run: onlyOnce((b) => decodeCbor(b), encodeCbor),
  },
  {
    name: 'cbor-lenient',
    seeds: () => [encodeCbor([1.1, new Map([['a', 2 ** 40]])]), Uint8Array.of(0xa2, 0x20, 1, 0x18, 1, 2)],
    run: (b) => {
      const value = decodeCbor(b, { canonical: false })
      decodeCbor(encodeCbor(value))
    },
  },
  { name: 'sign1', seeds: () => group.broadcasts.slice(0, 2), run: decodeSign1 },
  { name: 'mac0', seeds: () => objects.filter((o) => o[0] === 0xd1), run: decodeMac0 },
  { name: 'encrypt0', seeds: () => objects.filter((o) => o[0] === 0xd0), run: decodeEncrypt0 },
  { name: 'cose-key', seeds: () => [coseKeyEd25519(deviceKey.publicKey)], run: publicKeyOf },
  { name: 'broadcast', seeds: () => payloads, run: decodeBroadcast },
  {
    name: 'broadcast-message',
    seeds: () => group.broadcasts,
    run: (b) => {
      const member = sdsh(suite).member({ gid, kdc })
      for (const p of group.personals) member.addPersonal(p)
      const before = JSON.stringify(member.state())
      const received = member.receive(b)
      const isGenuine = group.broadcasts.some((good) => equalBytes(good, b))
      if (typeof received === 'object' && !isGenuine) throw new Error('a forged broadcast was received')
      if (typeof received === 'string' && JSON.stringify(member.state()) !== before)
        throw new Error('the state changed')
    },
  },
  {
    name: 'personal-key',
    seeds: () => group.personals.map(encodePersonalKey),
    run: onlyOnce(decodePersonalKey, encodePersonalKey),
  },
  {
    name: 'object',
    seeds: () => objects.filter((o) => o[0] !== 0xd0),
    run: (b) => {
      const { header, protectedBytes } = parseObject(b)
      if (!equalBytes(encodeHeader(header), protectedBytes)) throw new Error('other octets of the same header')
      decodeCbor(b)
    },
  },
  { name: 'object-encrypt0', seeds: () => objects.filter((o) => o[0] === 0xd0), run: parseEncrypt0 },
  { name: 'object-header', seeds: () => objects, run: (b) => parseHeader(b) },
  {
    name: 'object-open',
    seeds: () => objects,
    run: (b) => {
      openObject(suite, b, { K, device, path })
    },
  },
  {
    name: 'object-verify',
    seeds: () => objects.filter((o) => o[0] === 0xd2).slice(0, 1),
    run: (b) => {
      verifySigned(b, { device, path, credentials: [credential], otherPaths: [['s', 'hall']] })
      if (!objects.some((o) => equalBytes(o, b))) throw new Error('a forged object verified')
    },
  },
  {
    name: 'credential',
    seeds: () => [credentialBytes],
    run: (b) => {
      verifyCredential(suite, b, { key: kdc })
      if (!equalBytes(b, credentialBytes)) throw new Error('a forged credential verified')
    },
  },
  {
    name: 'senml',
    seeds: () => [encodeSenml([{ bn: 'a', bt: 5.5, v: 1 }, { vs: 'x' }, { vb: true }, { vd: gid }])],
    run: decodeSenml,
  },
  {
    name: 'pack',
    seeds: () => [
      encodePack({
        fromSeq: 1,
        toSeq: 2,
        from: 3,
        to: 4,
        records: [
          { bn: 'temp', v: 1 },
          { t: 60, v: 2 },
        ],
      }),
    ],
    run: decodePack,
  },
  { name: 'command', seeds: () => [encodeCommand(true), encodeCommand(12.5)], run: decodeCommand },
]

const COAP_TARGETS: readonly FuzzTarget[] = [
  {
    name: 'coap',
    seeds: () => [coapGet, concat(coapGet, Uint8Array.of(0xff), credentialBytes), Uint8Array.of(0x40, 0, 1, 2)],
    run: (b) => {
      const message = decodeMessage(b)
      if (message instanceof Message) message.options()
    },
  },
  {
    name: 'coap-links',
    seeds: () => [utf8('</s/temp>;rt="core.ps.data";ct=18;obs,</a/lamp>;title="a \\"lamp\\""')],
    run: (b) => decodeLinks(fromUtf8(b)),
  },
  {
    name: 'coap-problem',
    seeds: () => [encodeProblem({ title: 'object/rollback', detail: 'an older object', responseCode: 137 })],
    run: decodeProblem,
  },
]

export const TARGETS: readonly FuzzTarget[] = [...PROTOCOL_TARGETS, ...MESSAGE_TARGETS, ...COAP_TARGETS]
