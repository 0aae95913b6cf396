/** Replays a file of vectors against one crypto suite: every entry is one case. */
import { compareBytes, equalBytes, fromHex, toHex, utf8 } from '../protocol/bytes.ts'
import { nonceOf } from '../protocol/cose/encrypt0.ts'
import { kidOf } from '../protocol/cose/key.ts'
import type { CryptoSuite } from '../protocol/crypto/suite.ts'
import { isIotchainError } from '../protocol/errors.ts'
import { openBroadcast } from '../protocol/groups/broadcast.ts'
import { coverOf, packSubset } from '../protocol/groups/cover.ts'
import { rootEpochSecrets } from '../protocol/groups/epoch-secrets.ts'
import { newManagerState } from '../protocol/groups/manager-state.ts'
import type { PersonalKey } from '../protocol/groups/scheme.ts'
import { sdsh } from '../protocol/groups/sdsh.ts'
import { dyadic, groupKey, TimeTree } from '../protocol/groups/time-tree.ts'
import { labelOf, labelsOf } from '../protocol/groups/tree.ts'
import { externalAad } from '../protocol/objects/aad.ts'
import { partialIv } from '../protocol/objects/header.ts'
import { deriveObjectKeys } from '../protocol/objects/keys.ts'
import { openObject } from '../protocol/objects/open.ts'
import { createSealer } from '../protocol/objects/seal.ts'
import { verifyMacObject, verifySignedWith } from '../protocol/objects/verify.ts'
import type { VectorFile, VectorObject, VectorScenario } from './vector-file.ts'

export interface ReplayResult {
  passed: number
  /** One line for each failing case. */
  readonly failures: string[]
}

type Case = (name: string, run: () => void) => void

/** The vectors' clock: session j begins at this plus 900 · j; `until` u means out from session u + 1 on. */
const TIME_ZERO = 1_700_000_000
const UNLIMITED = { leavesPerMemberAndEpoch: 1e9, rejoinsPerHour: 1e9, retainEpochs: 1024 }

export function replay(file: VectorFile, suite: CryptoSuite): ReplayResult {
  const result: ReplayResult = { passed: 0, failures: [] }
  const check: Case = (name, run) => {
    try {
      run()
      result.passed++
    } catch (error) {
      const reason = error instanceof Error ? error.message.split('\n')[0] : String(error)
      result.failures.push(`${suite.name}: ${name}: ${reason}`)
    }
  }
  replayDerivations(file, suite, check)
  const scenarios = file.scenarios.map((s) => ({ vector: s, personals: replayScenario(s, suite, check) }))
  const target =
    scenarios.find(({ vector }) => file.negative.must_not_open.some((n) => n.sign1.includes(vector.gid))) ??
    scenarios.find(({ vector }) => vector.seed === file.negative.scenario)
  replayNegatives(file, suite, target, check)
  for (const [n, vector] of file.objects.cases.entries()) {
    check(`objects ${n}`, () => replayObject(file, vector, suite))
  }
  return result
}

function same(what: string, got: Uint8Array | string | number | undefined, expected: string | number): void {
  const value = got instanceof Uint8Array ? toHex(got) : got
  if (value !== expected) throw new Error(`${what} is ${shorten(value)}, expected ${shorten(expected)}`)
}

function shorten(value: string | number | undefined): string {
  const text = String(value)
  return text.length > 80 ? `${text.slice(0, 80)}… (${text.length / 2} octets)` : text
}

function replayDerivations(file: VectorFile, suite: CryptoSuite, check: Case): void {
  const { derive } = file
  const secret = fromHex(derive.EM)
  const epochSecrets = rootEpochSecrets(suite, fromHex(derive.root), fromHex(derive.gid))
  const tree = new TimeTree(suite, secret)
  check('derive EM', () => same('EM', epochSecrets.get(derive.epoch), derive.EM))
  check('derive label_all', () => same('label', labelOf(suite, secret, { i: 1, j: 0 }), derive.label_all))
  for (const { i, j, label } of derive.labels) {
    check(`derive label (${i},${j})`, () => same('label', labelOf(suite, secret, { i, j }), label))
  }
  for (const { j, K } of derive.session_keys) {
    check(`derive session key ${j}`, () => same('K', groupKey(suite, tree.leaf(j)), K))
  }
  for (const { level, prefix, node } of derive.time_nodes) {
    check(`derive time node (${level},${prefix})`, () => same('node', tree.node({ level, prefix }), node))
  }
  for (const { lo, hi, nodes } of file.dyadic) {
    check(`dyadic ${lo}..${hi}`, () => {
      const got = dyadic(lo, hi).map((n) => [n.level, n.prefix])
      same('the list of nodes', JSON.stringify(got), JSON.stringify(nodes))
    })
  }
  for (const [n, { depth, live, subsets, packed }] of file.cover.entries()) {
    check(`cover ${n}`, () => {
      const got = coverOf(
        depth,
        [...live].sort((a, b) => a - b),
      )
      same('the cover', JSON.stringify(got.map(({ i, j }) => [i, j])), JSON.stringify(subsets))
      same('the packed cover', JSON.stringify(got.map((s) => toHex(packSubset(s)))), JSON.stringify(packed))
    })
  }
  for (const { depth, leaf, labels, labels_sha256 } of file.personal) {
    check(`personal depth ${depth} leaf ${leaf}`, () => {
      const got = labelsOf(suite, secret, depth, leaf)
      if (labels !== undefined) same('labels', got, labels)
      if (labels_sha256 !== undefined) same('hash of labels', suite.sha256(got), labels_sha256)
      if (labels === undefined && labels_sha256 === undefined) throw new Error('the entry expects nothing')
    })
  }
}

/** Personal keys of a scenario by epoch and id: several, if the id left and joined again within the epoch. */
type Personals = Map<number, Map<string, PersonalKey[]>>

function replayScenario(vector: VectorScenario, suite: CryptoSuite, check: Case): Personals {
  const name = `scenario ${vector.seed}`
  const scheme = sdsh(suite)
  const gid = fromHex(vector.gid)
  const signingKey = suite.ed25519.signing(fromHex(vector.kdc_ed25519_seed))
  const kdc = suite.ed25519.verifying(signingKey.publicKey)
  const manager = scheme.manager({
    state: newManagerState(gid, { ...UNLIMITED, window: vector.window, dMin: vector.min_depth, minSessionSeconds: 1 }),
    secrets: rootEpochSecrets(suite, fromHex(vector.root), gid),
    signingKey,
  })
  const personals: Personals = new Map()
  const remember = (id: string): void => {
    const key = manager.personal(utf8(id))
    const epoch = personals.get(key.epoch) ?? new Map<string, PersonalKey[]>()
    const others = (epoch.get(id) ?? []).filter((k) => k.leaf !== key.leaf)
    personals.set(key.epoch, epoch.set(id, [...others, key]))
  }
  const keys = new Map<number, Uint8Array>()
  let made = 0
  let broken: string | undefined
  const perform = (run: () => void): void => {
    if (broken !== undefined) return
    try {
      run()
    } catch (error) {
      broken = `the replay stopped before: ${error instanceof Error ? error.message : error}`
    }
  }
  for (const [n, op] of vector.ops.entries()) {
    if (op[0] === 'epoch') {
      const following = vector.ops.slice(n).find((o) => o[0] === 'broadcast')
      perform(() => {
        manager.allocateEpoch({ nbf: following?.[0] === 'broadcast' ? following[1] : TIME_ZERO })
        manager.activateEpoch()
        const { epoch } = manager
        for (const m of manager.members()) {
          if (m.leaves.some((l) => l.epoch === epoch)) remember(new TextDecoder().decode(m.id))
        }
      })
    } else if (op[0] === 'join') {
      const [, id, start, until] = op
      perform(() => {
        const mode = start === manager.session ? 'current' : 'next'
        const expiresAt = until === null ? undefined : TIME_ZERO + 900 * until + 1
        const joined = manager.join(utf8(id), { mode, expiresAt })
        same(`first session of ${id}`, joined.start, start)
        remember(id)
      })
    } else if (op[0] === 'leave') {
      perform(() => manager.leave(utf8(op[1])))
    } else {
      const expected = vector.broadcasts[made]
      made++
      let bytes: Uint8Array | undefined
      perform(() => {
        bytes = manager.next({ nbf: op[1], exp: op[2] })
        manager.changes()
        manager.committed()
      })
      if (expected === undefined) {
        broken ??= 'more broadcasts are made than the file has'
        continue
      }
      check(`${name} broadcast ${expected.session}`, () => {
        if (broken !== undefined || bytes === undefined) throw new Error(broken ?? 'no broadcast was made')
        same('session', manager.session, expected.session)
        same('epoch', manager.epoch, expected.epoch)
        const broadcast = openBroadcast(suite, bytes, { kdc })
        same('depth', broadcast.depth, expected.depth)
        if (!toHex(bytes).includes(expected.payload)) throw new Error('the payload differs')
        same('COSE_Sign1', bytes, expected.sign1)
        keys.set(expected.session, fromHex(expected.K))
        openByMembers(suite, vector, expected, fromHex(expected.sign1), personals, keys)
      })
    }
  }
  for (const expected of vector.broadcasts.slice(made)) {
    check(`${name} broadcast ${expected.session}`, () => {
      throw new Error('no operation makes it')
    })
  }
  for (const expected of vector.personal_keys) {
    check(`${name} personal key of ${expected.id} in epoch ${expected.epoch}`, () => {
      const held = personals.get(expected.epoch)?.get(expected.id)
      const got = held?.find((k) => k.leaf === expected.leaf) ?? held?.at(-1)
      if (got === undefined) throw new Error(broken ?? 'there is none')
      same('depth', got.depth, expected.depth)
      same('leaf', got.leaf, expected.leaf)
      same('start', got.start, expected.start)
      same('labels', got.labels, expected.labels)
    })
  }
  return personals
}

/** Each id that ever had a personal key of the epoch receives the broadcast: it opens from where it says, and not before. */
function openByMembers(
  suite: CryptoSuite,
  vector: VectorScenario,
  expected: VectorScenario['broadcasts'][number],
  bytes: Uint8Array,
  personals: Personals,
  keys: ReadonlyMap<number, Uint8Array>,
): void {
  const gid = fromHex(vector.gid)
  const seed = suite.ed25519.signing(fromHex(vector.kdc_ed25519_seed))
  const kdc = suite.ed25519.verifying(seed.publicKey)
  const holders = personals.get(expected.epoch) ?? new Map<string, PersonalKey[]>()
  for (const id of Object.keys(expected.opens_from)) {
    if (!holders.has(id)) throw new Error(`${id} should open it and has no personal key`)
  }
  for (const [id, held] of holders) {
    const from = expected.opens_from[id]
    const member = sdsh(suite).member({ gid, kdc })
    for (const personal of held) member.addPersonal(personal)
    const received = member.receive(bytes)
    if (from === undefined) {
      if (received !== 'not-for-me') throw new Error(`${id} opens it and should not`)
      continue
    }
    if (typeof received === 'string') throw new Error(`${id} does not open it: ${received}`)
    same(`the first session that ${id} opens`, received.from, from)
    for (let j = from; j <= expected.session; j++) {
      const K = keys.get(j)
      if (K !== undefined) same(`K_${j} of ${id}`, member.key(j), toHex(K))
    }
    if (member.key(from - 1) !== undefined) throw new Error(`${id} opens session ${from - 1} too`)
    if (member.key(expected.session + 1) !== undefined) throw new Error(`${id} opens the session after`)
  }
}

function replayNegatives(
  file: VectorFile,
  suite: CryptoSuite,
  target: { vector: VectorScenario; personals: Personals } | undefined,
  check: Case,
): void {
  const refused = (codes: readonly string[], run: () => void): void => {
    try {
      run()
    } catch (error) {
      if (isIotchainError(error) && codes.includes(error.code)) return
      throw error
    }
    throw new Error('it is accepted')
  }
  const scenario = (): { vector: VectorScenario; personals: Personals } => {
    if (target === undefined) throw new Error('the file has no such scenario')
    return target
  }
  const kdcOf = (vector: VectorScenario) =>
    suite.ed25519.verifying(suite.ed25519.signing(fromHex(vector.kdc_ed25519_seed)).publicKey)
  for (const { name, sign1 } of file.negative.must_not_parse) {
    check(`must not parse: ${name}`, () => {
      const kdc = kdcOf(scenario().vector)
      refused(['group/malformed', 'group/too-large'], () => openBroadcast(suite, fromHex(sign1), { kdc }))
    })
  }
  for (const { name, sign1 } of file.negative.must_not_verify) {
    check(`must not verify: ${name}`, () => {
      const kdc = kdcOf(scenario().vector)
      refused(['group/bad-signature', 'group/unknown-key'], () => openBroadcast(suite, fromHex(sign1), { kdc }))
    })
  }
  for (const { name, sign1 } of file.negative.must_not_open) {
    check(`must not open: ${name}`, () => {
      const { vector, personals } = scenario()
      const bytes = fromHex(sign1)
      const kdc = kdcOf(vector)
      const { epoch, session } = openBroadcast(suite, bytes, { kdc })
      let tried = 0
      for (const held of personals.get(epoch)?.values() ?? []) {
        const member = sdsh(suite).member({ gid: fromHex(vector.gid), kdc })
        for (const personal of held) member.addPersonal(personal)
        const before = JSON.stringify(member.state())
        let outcome: unknown
        try {
          outcome = member.receive(bytes)
        } catch (error) {
          if (!isIotchainError(error) || error.code !== 'group/kcv-mismatch') throw error
          tried++
        }
        if (typeof outcome === 'object') throw new Error('a member opens it')
        if (member.key(session) !== undefined || JSON.stringify(member.state()) !== before) {
          throw new Error('a member keeps something of it')
        }
      }
      if (tried === 0) throw new Error('no member was covered')
    })
  }
}

function replayObject(file: VectorFile, vector: VectorObject, suite: CryptoSuite): void {
  const signingKey = suite.ed25519.signing(fromHex(file.objects.device_ed25519_seed))
  same('kid', kidOf(suite, signingKey.publicKey), file.objects.kid)
  const K = fromHex(vector.K)
  const device = fromHex(vector.device)
  const { path, session, seq, iat } = vector
  const scope = { gid: fromHex(vector.gid), session, device, sid: fromHex(vector.sid), path, algorithm: vector.alg }
  const keys = deriveObjectKeys(suite, K, scope)
  same('content key', keys.contentKey, vector.cek)
  same('base IV', keys.baseIv, vector.base_iv)
  same('integrity key', keys.integrityKey, vector.mac_key)
  same('nonce', nonceOf(keys.baseIv, partialIv(seq)), vector.nonce)
  same('external_aad', externalAad(device, path), vector.external_aad)
  const sealer = createSealer(suite, { ...scope, K, signingKey })
  const plaintext = fromHex(vector.plaintext)
  const { encrypt0, signed } = sealer.seal({ seq, iat, contentFormat: vector.content_format, plaintext })
  same('COSE_Encrypt0', encrypt0, vector.encrypt0)
  same('COSE_Sign1', signed, vector.sign1)
  same('COSE_Mac0', sealer.mac(encrypt0), vector.mac0)

  const verifyKey = suite.ed25519.verifying(signingKey.publicKey)
  const header = verifySignedWith(suite, fromHex(vector.sign1), { device, path, verifyKey })
  same('session in the header', header.session, session)
  same('seq in the header', header.seq, seq)
  same('iat in the header', header.iat, iat)
  same('content-format in the header', header.contentFormat, vector.content_format)
  if (compareBytes(header.sid, scope.sid) !== 0 || !equalBytes(header.gid, scope.gid)) throw new Error('header differs')
  verifyMacObject(fromHex(vector.mac0), { device, path, integrityKey: suite.hmac(keys.integrityKey) })
  for (const form of [vector.encrypt0, vector.sign1, vector.mac0]) {
    same('plaintext', openObject(suite, fromHex(form), { K, device, path }).plaintext, vector.plaintext)
  }
}
