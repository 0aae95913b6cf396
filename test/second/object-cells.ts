/** Sealed objects and credentials, both ways and damaged, and the tables of §4.4 and §4.6. */
import { suite } from '#crypto'
import { fromHex, toHex } from '../../protocol/bytes.ts'
import { type CborMap, type CborValue, decodeCbor, encodeCbor, Tagged } from '../../protocol/cbor.ts'
import { sign1 } from '../../protocol/cose/sign1.ts'
import type { SigningKey } from '../../protocol/crypto/suite.ts'
import { addressHex } from '../../protocol/messages/address.ts'
import type { ResourcePath } from '../../protocol/objects/aad.ts'
import {
  type Credential,
  type CredentialClaims,
  issueCredential,
  verifyCredential,
} from '../../protocol/objects/credential.ts'
import { etagOf } from '../../protocol/objects/etag.ts'
import { judgeObject } from '../../protocol/objects/judge.ts'
import { deriveIntegrityKey } from '../../protocol/objects/keys.ts'
import { openObject } from '../../protocol/objects/open.ts'
import { compareOrder } from '../../protocol/objects/order.ts'
import { type ParsedObject, parseObject } from '../../protocol/objects/parse.ts'
import { createSealer, type SealerOptions, type SealInput } from '../../protocol/objects/seal.ts'
import { verifyMacObject, verifySigned, verifySignedWith } from '../../protocol/objects/verify.ts'
import type { Random } from '../adversary/random.ts'
import { bent, damaged, text, whole } from './mutation.ts'
import { tried } from './peer.ts'
import type { Stand } from './tally.ts'

const NOW = 1_700_000_000
const CREDENTIAL_AAD = new TextEncoder().encode('iotchain-cred-1')

interface Sample {
  readonly seed: Uint8Array
  readonly scope: SealerOptions & { readonly signingKey: SigningKey }
  readonly input: SealInput
}

function sample(random: Random): Sample {
  const seed = random.bytes(32)
  return {
    seed,
    scope: {
      K: random.bytes(16),
      gid: random.bytes(8),
      session: random.between(1, 2 ** random.between(1, 32) - 1),
      device: random.bytes(20),
      sid: random.bytes(random.between(1, 7)),
      path: Array.from({ length: random.between(0, 3) }, () => text(random)),
      algorithm: random.pick([24, 10, 1] as const),
      signingKey: suite.ed25519.signing(seed),
    },
    input: {
      seq: random.pick([0, 255, 256, 2 ** 40 - 1, random.between(0, 2 ** random.between(1, 40) - 1)]),
      iat: random.pick([NOW, whole(random)]),
      contentFormat: random.pick([0, 60, 112, 65_535]),
      plaintext: random.bytes(random.pick([0, 1, 29, 300])),
    },
  }
}

function told(octets: Uint8Array): unknown[] {
  const o: ParsedObject = parseObject(octets)
  const { algorithm, contentFormat, sid, seq, gid, session, iat } = o.header
  const form = o.kind === 'mac' ? 17 : 18
  const marks = [octets, o.encrypt0].map((each) => toHex(etagOf(suite, each)))
  return [form, algorithm, contentFormat, toHex(sid), seq, toHex(gid), session, iat, ...marks]
}

export async function sealCells({ second, tally, random, rounds }: Stand): Promise<void> {
  const samples = Array.from({ length: rounds }, () => sample(random))
  const theirs = await second.ask<{ signed: string; mac: string }>(
    'seal',
    samples.map(({ seed, scope, input }) => ({
      gid: toHex(scope.gid),
      session: scope.session,
      K: toHex(scope.K),
      device: toHex(scope.device),
      sid: toHex(scope.sid),
      path: scope.path,
      alg: scope.algorithm,
      seed: toHex(seed),
      seq: input.seq,
      iat: input.iat,
      format: input.contentFormat,
      plaintext: toHex(input.plaintext),
    })),
  )
  const parses: string[] = []
  const opens: { octets: string; K: string; device: string; path: ResourcePath; public: string }[] = []
  for (const [n, { scope, input }] of samples.entries()) {
    const sealer = createSealer(suite, scope)
    const { signed, encrypt0 } = sealer.seal(input)
    const mac = sealer.mac(encrypt0)
    tally.same('objects sealed by both', { signed: toHex(signed), mac: toHex(mac) }, theirs[n], n)
    for (const octets of [signed, mac]) {
      const changes = [octets, damaged(random, octets), bentObject(random, octets)]
      parses.push(...changes.map(toHex), toHex(encrypt0))
      const other = random.between(0, 3)
      for (const each of changes) {
        opens.push({
          octets: toHex(each),
          K: toHex(other === 0 ? random.bytes(16) : scope.K),
          device: toHex(other === 1 ? random.bytes(20) : scope.device),
          path: other === 2 ? ['other'] : scope.path,
          public: toHex(scope.signingKey.publicKey),
        })
      }
    }
  }
  for (const [n, answer] of (await second.ask('parse', parses)).entries()) {
    tally.same(
      'objects taken apart',
      tried(() => told(fromHex(parses[n] as string))),
      answer,
      parses[n],
    )
  }
  for (const [n, answer] of (await second.ask('open', opens)).entries()) {
    tally.same(
      'objects opened',
      tried(() => opened(opens[n] as (typeof opens)[number])),
      answer,
      opens[n],
    )
  }
}

function opened(item: { octets: string; K: string; device: string; path: ResourcePath; public: string }): unknown {
  const octets = fromHex(item.octets)
  const [K, device, verifyKey] = [fromHex(item.K), fromHex(item.device), suite.ed25519.verifying(fromHex(item.public))]
  const { path } = item
  const header = told(octets)
  const parsed = parseObject(octets)
  if (parsed.kind === 'mac') {
    const key = deriveIntegrityKey(suite, K, { ...parsed.header, device, path })
    verifyMacObject(octets, { device, path, integrityKey: suite.hmac(key) })
  } else {
    const verdict = tried(() => verifySignedWith(suite, octets, { device, path, verifyKey }))
    // here the key was known beforehand: its kid is no matter
    if ('error' in verdict) return { error: 'object/bad-signature' }
  }
  return { header, plaintext: toHex(openObject(suite, octets, { K, device, path }).plaintext) }
}

/** Something else in the outer layer, its header, the inner layer or its header. */
function bentObject(random: Random, octets: Uint8Array): Uint8Array {
  const { tag, value } = decodeCbor(octets) as Tagged
  const parts = [...(value as CborValue[])]
  const kind = random.between(0, 3)
  if (kind === 0) return encodeCbor(new Tagged(tag, bent(random, parts)))
  if (kind === 1) {
    parts[0] = encodeCbor(bent(random, decodeCbor(parts[0] as Uint8Array)))
    return encodeCbor(new Tagged(tag, parts))
  }
  const inner = decodeCbor(parts[2] as Uint8Array) as Tagged
  const within = [...(inner.value as CborValue[])]
  if (kind === 2) within[0] = encodeCbor(bent(random, decodeCbor(within[0] as Uint8Array)))
  parts[2] = encodeCbor(new Tagged(inner.tag, kind === 3 ? bent(random, within) : within))
  return encodeCbor(new Tagged(tag, parts))
}

function claims(random: Random, key: SigningKey, more: Partial<CredentialClaims> = {}): CredentialClaims {
  const iat = NOW + random.between(-200_000, 200_000)
  const groups = new Map(
    Array.from({ length: random.between(1, 3) }, () => [
      toHex(random.bytes(8)),
      Array.from({ length: random.between(1, 3) }, () => ({ sid: random.bytes(random.between(1, 7)), from: iat })),
    ]),
  )
  return {
    issuer: 'urn:iotchain:keyserver:x',
    subject: addressHex(random.bytes(20)),
    role: random.chance(0.3) ? 'w' : undefined,
    iat,
    exp: iat + random.between(1, 172_800),
    publicKey: key.publicKey,
    groups,
    ...more,
  }
}

function listed(c: CredentialClaims): [string, [string, number][]][] {
  return [...c.groups].map(([gid, grants]) => [gid, grants.map((g): [string, number] => [toHex(g.sid), g.from])])
}

export async function credentialCells({ second, tally, random, rounds }: Stand): Promise<void> {
  const seed = random.bytes(32)
  const issuer = suite.ed25519.signing(seed)
  const verifying = suite.ed25519.verifying(issuer.publicKey)
  const all = Array.from({ length: rounds / 2 }, () => claims(random, suite.ed25519.signing(random.bytes(32))))
  const issued = all.map((c) => issueCredential(suite, c, issuer))
  const theirs = await second.ask<string>(
    'issue',
    all.map((c) => ({
      seed: toHex(seed),
      issuer: c.issuer,
      kind: c.role === 'w' ? 'client' : 'device',
      address: c.subject.slice(2),
      iat: c.iat,
      exp: c.exp,
      key: toHex(c.publicKey),
      groups: listed(c),
    })),
  )
  for (const [n, octets] of issued.entries()) tally.same('credentials issued by both', toHex(octets), theirs[n], n)

  const questions = issued.flatMap((octets, n) =>
    [
      octets,
      damaged(random, octets),
      bentCredential(random, octets, issuer),
      bentCredential(random, octets, issuer),
    ].map((each) => ({
      octets: toHex(each),
      pinned: toHex(issuer.publicKey),
      now: random.chance(0.5)
        ? null
        : random.pick([(all[n] as CredentialClaims).exp, (all[n] as CredentialClaims).iat - 61, NOW]),
    })),
  )
  for (const [n, answer] of (await second.ask('credential', questions)).entries()) {
    const { octets, now } = questions[n] as (typeof questions)[number]
    const ours = tried(() => {
      const c = verifyCredential(suite, fromHex(octets), { key: verifying, now: now ?? undefined })
      const kind = c.role === 'w' ? 'client' : 'device'
      const groups = listed(c).sort(([a], [b]) => (a < b ? -1 : 1))
      return [c.issuer, kind, toHex(c.address), c.iat, c.exp, toHex(c.publicKey), toHex(c.kid), groups]
    })
    tally.same('credentials read', ours, answer, questions[n])
  }
}

function bentCredential(random: Random, octets: Uint8Array, issuer: SigningKey): Uint8Array {
  const outer = decodeCbor(octets) as Tagged
  const [header, , payload] = (outer.value as Tagged).value as [Uint8Array, unknown, Uint8Array]
  const kind = random.between(0, 5)
  if (kind === 0) return encodeCbor(new Tagged(random.pick([61, 18]), bent(random, outer.value)))
  const changed = kind === 1 ? encodeCbor(bent(random, decodeCbor(header))) : header
  const claimed = kind === 1 ? payload : encodeCbor(bentClaims(random, decodeCbor(payload) as CborMap))
  return Uint8Array.from([0xd8, 61, ...sign1(changed, claimed, CREDENTIAL_AAD, issuer)])
}

function bentClaims(random: Random, map: CborMap): ReturnType<typeof bent> {
  if (random.chance(0.7)) return bent(random, map)
  // a COSE_Key with more in it than is needed
  const key = new Map((map.get(8) as CborMap).get(1) as CborMap)
  key.set(random.pick([2, 3, -4, 4, 5]), random.pick([-8, -19, -7, Uint8Array.of(1)]))
  return new Map(map).set(8, new Map([[1, key]]))
}

/** The findings of §4.4 over small worlds in which keys, Sender IDs, devices and times are mixed up. */
export async function verifyCells({ second, tally, random, rounds }: Stand): Promise<void> {
  const issuer = suite.ed25519.signing(random.bytes(32))
  const verifyKey = suite.ed25519.verifying(issuer.publicKey)
  for (let n = 0; n < rounds / 4; n++) {
    const keys = Array.from({ length: 3 }, () => suite.ed25519.signing(random.bytes(32)))
    const devices = Array.from({ length: 2 }, () => random.bytes(20))
    const sids = [Uint8Array.of(1), Uint8Array.of(2)]
    const gids = [random.bytes(8), random.bytes(8)]
    const asSender = random.chance(0.2)
    const credentials = Array.from({ length: random.between(0, 4) }, () => {
      const iat = NOW + random.pick([-400, -100, 0])
      const grants = sids.filter(() => random.chance(0.6)).map((sid) => ({ sid, from: iat }))
      return issueCredential(
        suite,
        {
          ...claims(random, random.pick(keys)),
          subject: addressHex(random.pick(devices)),
          role: asSender ? 'w' : undefined,
          iat,
          exp: iat + random.pick([50, 100, 1000]),
          groups: new Map([
            [toHex(random.pick(gids)), grants.length > 0 ? grants : [{ sid: Uint8Array.of(9), from: iat }]],
          ]),
        },
        issuer,
      )
    })
    const held: Credential[] = credentials.map((c) => verifyCredential(suite, c, { key: verifyKey }))
    const paths = [
      ['s', 'a'],
      ['s', 'b'],
    ]
    const sender = asSender ? (devices[1] as Uint8Array) : undefined
    const questions = Array.from({ length: 12 }, () => {
      const scope = {
        K: random.bytes(16),
        gid: random.pick(gids),
        session: 7,
        device: random.pick(devices),
        sid: random.pick(sids),
        path: random.pick(paths),
        algorithm: 24 as const,
        signingKey: random.pick(keys),
      }
      const iat = NOW + random.pick([-461, -460, -400, -100, -50, 0, 50, 60, 1000])
      const { signed } = createSealer(suite, scope).seal({
        seq: 1,
        iat,
        contentFormat: 0,
        plaintext: new Uint8Array(1),
      })
      return {
        octets: toHex(random.chance(0.1) ? damaged(random, signed) : signed),
        device: toHex(random.chance(0.8) ? scope.device : random.pick(devices)),
        path: random.chance(0.7) ? scope.path : random.pick(paths),
        others: random.chance(0.5) ? paths : [],
      }
    })
    const [answers] = (await second.ask<unknown[]>('verify', [
      {
        pinned: toHex(issuer.publicKey),
        credentials: credentials.map(toHex),
        sender: sender === undefined ? null : toHex(sender),
        questions,
      },
    ])) as [unknown[]]
    for (const [k, { octets, device, path, others }] of questions.entries()) {
      const options = { device: fromHex(device), path, credentials: held, otherPaths: others, sender }
      const ours = tried(() => {
        verifySigned(fromHex(octets), options)
        return 'ok'
      })
      tally.same('findings about signers', ours, answers[k], questions[k])
    }
  }
}

export async function judgementCells({ second, tally, random, rounds }: Stand): Promise<void> {
  const sidOf = (): Uint8Array => random.pick([[1], [2], [3], [1, 0], [2, 0]].map((s) => Uint8Array.from(s)))
  const lists = Array.from({ length: rounds / 2 }, () => ({
    sids: [...new Set(Array.from({ length: random.between(0, 3) }, () => toHex(sidOf())))],
    places: Array.from({ length: 6 }, () => [toHex(sidOf()), random.between(0, 3)] as const),
  }))
  for (const [n, answer] of (await second.ask('order', lists)).entries()) {
    const { sids, places } = lists[n] as (typeof lists)[number]
    const grants = sids.map((sid) => ({ sid: fromHex(sid), from: 0 }))
    const at = places.map(([sid, seq]) => ({ sid: fromHex(sid), seq }))
    const ours = at.map((a) => at.map((b) => Math.sign(compareOrder(grants, a, b)) + 0))
    tally.same('order', ours, answer, lists[n])
  }

  const near = (): number =>
    NOW + random.pick([-400, -301, -300, -66, -65, -61, -60, -31, -30, -5, 0, 5, 30, 31, 60, 61])
  const items = Array.from({ length: 4 * rounds }, () => ({
    form: random.pick([17, 18]),
    mark: toHex(Uint8Array.of(random.between(1, 2))),
    sids: ['01', '02'],
    sid: toHex(sidOf()),
    seq: random.between(1, 2),
    iat: near(),
    now: NOW,
    newest: random.chance(0.5) ? { sid: toHex(sidOf()), seq: random.between(1, 2), mark: '01' } : null,
    times: random.pick([null, null, [NOW - 30, NOW + 30], [NOW - 400, NOW - random.between(3, 8)]]),
    maxAge: 300,
    grace: 5,
    later: random.chance(0.5) ? near() : null,
    looked: random.chance(0.8) ? near() : null,
  }))
  for (const [n, answer] of (await second.ask('judge', items)).entries()) {
    const item = items[n] as (typeof items)[number]
    const [nbf, exp] = item.times ?? [0, 0]
    const ours = tried(() => {
      const { stale, oldSession } = judgeObject({
        kind: item.form === 17 ? 'mac' : 'signed',
        header: { sid: fromHex(item.sid), seq: item.seq, iat: item.iat } as never,
        etag: fromHex(item.mark),
        sids: item.sids.map((sid) => ({ sid: fromHex(sid), from: 0 })),
        now: item.now,
        maxAgeSeconds: item.maxAge,
        graceSeconds: item.grace,
        accepted:
          item.newest === null
            ? undefined
            : { sid: fromHex(item.newest.sid), seq: item.newest.seq, etag: fromHex(item.newest.mark) },
        times: item.times === null ? undefined : { session: 7, nbf: nbf as number, exp: exp as number },
        supersededAt: item.later ?? undefined,
        broadcastSeenAt: item.looked ?? undefined,
      })
      return [...(stale ? ['stale'] : []), ...(oldSession ? ['old session'] : [])]
    })
    tally.same('judgements', ours, answer, item)
  }
}
