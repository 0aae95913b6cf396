/** CBOR, messages, SenML, EIP-712, enrolment codes: §2.2, §4.7, §4.10, §5.5, §6 to §8. */
import { suite } from '#crypto'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { decodeCbor, encodeCbor } from '../../protocol/cbor.ts'
import { addressOf, recoverAddress, signDigest } from '../../protocol/crypto/secp256k1.ts'
import { gidOf } from '../../protocol/groups/gid.ts'
import { enrolmentDigest } from '../../protocol/messages/enrolment.ts'
import {
  decodeEnrolmentCode,
  encodeEnrolmentCode,
  enrolmentIdentity,
  enrolmentPsk,
} from '../../protocol/messages/enrolment-code.ts'
import { keyRequestDigest } from '../../protocol/messages/key-request.ts'
import { registrationDigest } from '../../protocol/messages/registration.ts'
import { decodeCommand, encodeCommand } from '../../protocol/objects/command.ts'
import { decodePack, encodePack } from '../../protocol/objects/pack.ts'
import { decodeSenml, encodeSenml, resolveSenml, type SenmlRecord } from '../../protocol/objects/senml.ts'
import type { Random } from '../adversary/random.ts'
import { MESSAGES } from './message-samples.ts'
import { bent, damaged, text, value } from './mutation.ts'
import { tried } from './peer.ts'
import type { Stand } from './tally.ts'

const NOW = 1_700_000_000

export async function cborCells({ second, tally, random, rounds }: Stand): Promise<void> {
  const items = Array.from({ length: 10 * rounds }, (_, n) => {
    const good = encodeCbor(value(random))
    return { octets: toHex(n % 4 === 0 ? good : damaged(random, good)), strict: random.chance(0.7) }
  })
  const deep = (levels: number): string => `${'81'.repeat(levels)}00`
  for (const octets of [deep(16), deep(17), '63efbbbf', 'fb7e37e43c8800759c', 'f98000', 'f90001', 'fa00000001', '']) {
    for (const strict of [true, false]) items.push({ octets, strict })
  }
  const answers = await second.ask<string>('cbor', items)
  for (const [n, item] of items.entries()) {
    const ours = tried(() => toHex(encodeCbor(decodeCbor(fromHex(item.octets), { canonical: item.strict }))))
    tally.same('CBOR', ours, answers[n], item)
  }
}

export async function messageCells({ second, tally, random, rounds }: Stand): Promise<void> {
  const items: { kind: string; octets: string }[] = []
  for (const [kind, { sample }] of Object.entries(MESSAGES)) {
    for (let n = 0; n < rounds / 2; n++) {
      const good = sample(random)
      items.push({ kind, octets: toHex(good) })
      for (let k = 0; k < 3; k++) {
        items.push({ kind, octets: toHex(encodeCbor(bent(random, decodeCbor(good)))) })
      }
      items.push({ kind, octets: toHex(damaged(random, good)) })
    }
  }
  const answers = await second.ask<string>('message', items)
  for (const [n, { kind, octets }] of items.entries()) {
    const ours = tried(() => toHex((MESSAGES[kind] as (typeof MESSAGES)[string]).again(fromHex(octets))))
    tally.same('messages', ours, answers[n], { kind, octets })
  }
}

function record(random: Random): SenmlRecord {
  const out: SenmlRecord = {}
  if (random.chance(0.2)) out.bn = text(random)
  if (random.chance(0.2)) out.bt = random.pick([NOW, 0, 0.5, -10])
  if (random.chance(0.2)) out.bu = '%'
  if (random.chance(0.2)) out.bv = random.pick([1, 0.25, -3])
  if (random.chance(0.6)) out.n = text(random)
  if (random.chance(0.3)) out.u = 'Cel'
  if (random.chance(0.6)) out.t = random.pick([0, -5, NOW + 1, 12.5])
  const kind = random.between(0, 4)
  if (kind === 0) out.v = random.pick([0, 21.15, -7, 1e9])
  else if (kind === 1) out.vs = text(random)
  else if (kind === 2) out.vb = random.chance(0.5)
  else if (kind === 3) out.vd = random.bytes(3)
  return out
}

/** What they make of our packs and commands is ours again, to the octet. */
async function remade({ second, tally, random, rounds }: Stand): Promise<void> {
  const items = Array.from({ length: rounds }, (_, n) => {
    const records = Array.from({ length: random.between(1, 4) }, () => record(random))
    const pack = encodePack({ fromSeq: n, toSeq: n + 3, from: NOW, to: NOW + 3, records })
    const command = encodeCommand(random.pick([true, false, 0, -3, 21.5, 1.1]))
    return n % 2 === 0 ? { kind: 'pack', octets: toHex(pack) } : { kind: 'command', octets: toHex(command) }
  })
  for (const [n, answer] of (await second.ask<string>('remake', items)).entries()) {
    tally.same('packs and commands made by both', items[n]?.octets, answer, items[n])
  }
}

/** As the second implementation tells it. */
function resolved(records: readonly SenmlRecord[]): unknown {
  return resolveSenml(records, NOW).map(({ name, time, unit, value: v }) => [
    name,
    time ?? null,
    unit ?? null,
    v instanceof Uint8Array ? `h'${toHex(v)}'` : (v ?? null),
  ])
}

export async function contentCells(stand: Stand): Promise<void> {
  const { second, tally, random, rounds } = stand
  await remade(stand)
  const variants = (good: Uint8Array): string[] => [
    toHex(good),
    toHex(encodeCbor(bent(random, decodeCbor(good)))),
    toHex(damaged(random, good)),
  ]
  const records = (): SenmlRecord[] => Array.from({ length: random.between(0, 4) }, () => record(random))
  const senml = Array.from({ length: rounds }, () => variants(encodeSenml(records()))).flat()
  senml.push('81a100fb4035000000000000', '81a102fb4035000000000000', '81a1635f785f00', '81a162785f00', '81a11863f5')
  for (const [n, answer] of (await second.ask('senml', senml)).entries()) {
    tally.same(
      'SenML',
      tried(() => resolved(decodeSenml(fromHex(senml[n] as string)))),
      answer,
      senml[n],
    )
  }
  const packs = Array.from({ length: rounds }, () => {
    const fromSeq = random.between(0, 2 ** 39)
    return variants(encodePack({ fromSeq, toSeq: fromSeq + 3, from: NOW, to: NOW + 3, records: records() }))
  }).flat()
  for (const [n, answer] of (await second.ask('pack', packs)).entries()) {
    const ours = tried(() => {
      const pack = decodePack(fromHex(packs[n] as string))
      return [[pack.fromSeq, pack.toSeq, pack.from, pack.to], resolved(pack.records)]
    })
    tally.same('packs', ours, answer, packs[n])
  }
  const commands = Array.from({ length: rounds }, () =>
    variants(random.chance(0.5) ? encodeCommand(random.pick([true, false, 0, 21.5])) : encodeSenml([record(random)])),
  ).flat()
  for (const [n, answer] of (await second.ask('command', commands)).entries()) {
    tally.same(
      'commands',
      tried(() => decodeCommand(fromHex(commands[n] as string))),
      answer,
      commands[n],
    )
  }
}

export async function ethereumCells({ second, tally, random, rounds }: Stand): Promise<void> {
  const chain = random.between(1, 2 ** 31)
  const registry = random.bytes(20)
  const hex = (octets: Uint8Array): string => `0x${toHex(octets)}`
  const items: { type: string; chain: number | null; registry: string; values: (string | number)[] }[] = []
  const ours: Uint8Array[] = []
  for (let n = 0; n < rounds / 4; n++) {
    const [device, owner, client] = [random.bytes(20), random.bytes(20), random.bytes(20)]
    const [signingKey, keyServer, channel, nonce] = Array.from({ length: 4 }, () => random.bytes(32)) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ]
    const claims = random.bytes(4)
    const [issuedAt, expiresAt] = [NOW + n, NOW + n + random.between(1, 600)]
    const request = { client, device, claims, keyServer, channel, nonce, signKey: signingKey, issuedAt, expiresAt }
    ours.push(keyRequestDigest({ chainId: chain, registry }, request))
    items.push({ type: 'KeyRequest', chain, registry: toHex(registry), values: Object.values(request).map(plain) })
    const registration = { device, owner, signingKey, keyServer, nonce: n, deadline: expiresAt }
    ours.push(registrationDigest({ chainId: chain, registry }, registration))
    items.push({
      type: 'Registration',
      chain,
      registry: toHex(registry),
      values: Object.values(registration).map(plain),
    })
    const enrolment = { device, csrHash: keyServer, signingKey, channel }
    ours.push(enrolmentDigest(enrolment))
    items.push({ type: 'Enrolment', chain: null, registry: '', values: Object.values(enrolment).map(plain) })
  }
  function plain(v: Uint8Array | number): string | number {
    return typeof v === 'number' ? v : hex(v)
  }
  const digests = await second.ask<string>('digest', items)
  for (const [n, digest] of digests.entries()) tally.same('EIP-712', toHex(ours[n] as Uint8Array), digest, items[n])

  const signed = ours.slice(0, 20).map((digest) => {
    const secret = random.bytes(32)
    const signature = signDigest(secret, digest)
    const broken = random.chance(0.3)
    if (broken) signature[random.between(0, 63)] = random.between(0, 255)
    return { secret: toHex(secret), digest: toHex(digest), signature: toHex(signature) }
  })
  interface Answer {
    readonly address: string
    readonly signature: string
    readonly recovered: string
  }
  for (const [n, answer] of (await second.ask<Answer>('ecdsa', signed)).entries()) {
    const { secret, digest, signature } = signed[n] as (typeof signed)[number]
    const { address, recovered, signature: theirs } = answer as Answer
    tally.same('addresses', addressOf(fromHex(secret)).slice(2), address, secret)
    const mine = tried(() => recoverAddress(fromHex(digest), fromHex(signature)).slice(2))
    tally.same('secp256k1, recovered by them', typeof mine === 'string' ? mine : '', recovered, signature)
    const back = tried(() => recoverAddress(fromHex(digest), fromHex(theirs)))
    tally.same('secp256k1, signed by them', back, addressOf(fromHex(secret)), theirs)
  }

  const gids = Array.from({ length: rounds / 4 }, () => ({
    chain: random.between(1, 2 ** 40),
    registry: toHex(random.bytes(20)),
    device: toHex(random.bytes(20)),
    bit: random.between(0, 31),
  }))
  for (const [n, answer] of (await second.ask<string>('gid', gids)).entries()) {
    const { chain: chainId, registry: at, device, bit } = gids[n] as (typeof gids)[number]
    const ours_ = gidOf(suite, { chainId, registry: fromHex(at), device: fromHex(device), bit })
    tally.same('gid', toHex(ours_), answer, gids[n])
  }

  const codes = Array.from({ length: rounds / 4 }, () => {
    const code = encodeEnrolmentCode(random.bytes(16))
    return random.chance(0.5)
      ? code.toLowerCase()
      : code.replace(random.pick([...'ABCDEFG ']), random.pick([...'A1-z']))
  })
  for (const [n, answer] of (await second.ask('code', codes)).entries()) {
    const mine = tried(() => {
      const code = decodeEnrolmentCode(codes[n] as string)
      return [toHex(code), enrolmentIdentity(code), toHex(enrolmentPsk(code))]
    })
    tally.same('enrolment codes', mine, answer, codes[n])
  }
}
