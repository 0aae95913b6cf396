/** The scenes of the demo, in order. Each tells what it does, fails if the promise is not kept, and notes what it measured. */
import type { ChainReader } from '../chain/reader.ts'
import { requestToken } from '../chain/request.ts'
import { JsonRpc } from '../chain/rpc.ts'
import { TransactionSender } from '../chain/sender.ts'
import { fetchObject } from '../client/fetch.ts'
import type { Reading } from '../client/open.ts'
import { revoke } from '../owner/actions.ts'
import { toHex } from '../protocol/bytes.ts'
import { IotchainError, isIotchainError } from '../protocol/errors.ts'
import type { Narrator } from './narrator.ts'
import { type Reader, sessionOf } from './reader.ts'
import { CONFIRMATIONS, PATH, SESSION_SECONDS, type Stage } from './stage.ts'

const SESSION_MS = SESSION_SECONDS * 1000

/** A asks for a token: puzzle, transaction, confirmations (IoTChain §II-C). */
export async function admission(narrator: Narrator, stage: Stage, view: ChainReader, a: Reader): Promise<void> {
  await narrator.step(
    'token',
    'Client A requests a token: the offer asks for a puzzle',
    () =>
      requestToken({
        reader: view,
        sender: new TransactionSender({
          rpc: new JsonRpc({ url: stage.chain.url }),
          chainId: stage.chain.chainId,
          account: a.account,
          pollMs: 200,
        }),
        contract: stage.contract,
        offer: 0,
        confirmations: CONFIRMATIONS,
        onProgress: (p) => {
          if (p.phase === 'puzzle') narrator.progress(`puzzle: ${p.tried} of about ${p.expected} hashes`)
          if (p.phase === 'sent') narrator.line(`puzzle solved, transaction ${p.hash.slice(0, 18)}… sent`)
          if (p.phase === 'confirming') narrator.line(`block ${p.block}: ${p.depth} of ${p.of} confirmations`)
        },
      }),
    ({ token }) => `token serial ${token.serial}, good until ${new Date(token.expiresAt * 1000).toISOString()}`,
  )
}

/** The device has joined once its first sealed object can be had. */
export async function deviceJoins(narrator: Narrator, stage: Stage, a: Reader): Promise<void> {
  await narrator.step(
    'device',
    'The device joins at the key server (mutual X.509) and seals its first reading',
    () => eventually(30_000, async () => fetchObject(await a.atDevice())),
    (bytes) =>
      `${stage.deviceUri}/${PATH.join('/')} answers ${bytes?.length} octets, sealed under session ${sessionOf(bytes as Uint8Array)}`,
  )
}

/** A proves its address and receives S_i; then a signed broadcast B_j (IoTChain §II-D, II-E). */
export async function joinAndHear(narrator: Narrator, a: Reader): Promise<void> {
  const begun = performance.now()
  await narrator.step(
    'join',
    'Client A joins over DTLS: a challenge signed by its Ethereum key, bound to the channel',
    () => eventually(15_000, () => a.join()),
    (m) => `personal key received; a member of group ${toHex(m.gid)}`,
  )
  narrator.measure('DTLS handshake, challenge and join', `${(performance.now() - begun).toFixed(0)} ms`)
  await narrator.step(
    'broadcast',
    'The key server publishes a signed session broadcast, in the open',
    async () => {
      await a.listen()
      // The one that was out when A joined does not hold A; its key came with the join.
      for (;;) {
        const next = await a.nextBroadcast(3 * SESSION_MS)
        if (next.opened) return next
        narrator.line(`B_${next.session}: from before A's join, nothing in it for A`)
      }
    },
    (b) =>
      `B_${b.session}: ${b.octets} octets, with A's personal key it gives the keys of sessions ${b.from} to ${b.session}`,
  )
}

/** GET from the device under the symmetric integrity key, and signed. */
export async function readDirectly(narrator: Narrator, a: Reader): Promise<void> {
  await narrator.step(
    'direct',
    'A fetches a reading from the device, checked by the integrity key (COSE_Mac0)',
    async () => a.library.read(await a.atDevice(), { form: 'mac' }),
    (r) => `${tell(r)} (${r.bytes.length} octets)`,
  )
  const place = await a.atDevice()
  const times: number[] = []
  let signed: Uint8Array | undefined
  for (let i = 0; i < 20; i++) {
    const from = performance.now()
    signed = await fetchObject(place)
    times.push(performance.now() - from)
  }
  const mac = await fetchObject(place, { form: 'mac' })
  narrator.measure('GET of a sealed reading from the device, median of 20', `${median(times).toFixed(2)} ms`)
  narrator.measure('a reading as signed object / as Mac0', `${signed?.length} / ${mac?.length} octets`)
}

/** GET and observe through a proxy that cannot read: only the signature counts. */
export async function readThroughProxy(narrator: Narrator, a: Reader): Promise<void> {
  await narrator.step(
    'proxy',
    'A reads and observes through the proxy, which has verified and cannot read; the signature vouches',
    async () => {
      const place = await a.atProxy()
      const first = await a.library.read(place)
      narrator.line(`GET: ${tell(first)}, signed by the key that the registry names`)
      const seen: Reading[] = []
      await new Promise<void>((done, failed) => {
        const limit = setTimeout(
          () => failed(new IotchainError('demo/timeout', 'no notifications from the proxy')),
          15_000,
        )
        const watch = a.library.watch(place, {
          onReading: (reading) => {
            seen.push(reading)
            narrator.line(`notification: ${tell(reading)}`)
            if (seen.length < 3) return
            clearTimeout(limit)
            watch.close()
            done()
          },
          onRefused: (error) => {
            clearTimeout(limit)
            failed(error)
          },
        })
      })
      return seen
    },
    (seen) => `${seen.length} notifications verified and opened`,
  )
}

/** Broadcasts are lost at the client; a later one heals every session of the gap. */
export async function healing(narrator: Narrator, a: Reader): Promise<void> {
  await narrator.step(
    'healing',
    'A loses the next two broadcasts, then one arrives: self-healing',
    async () => {
      const place = await a.atProxy()
      const kept: Uint8Array[] = []
      a.losing = true
      for (let i = 0; i < 2; i++) {
        const lost = await a.nextBroadcast(3 * SESSION_MS)
        narrator.line(`B_${lost.session} is lost`)
        await sleep(SESSION_MS / 2)
        const object = await objectOfSession(lost.session, () => fetchObject(place))
        const refusal = await refusalOf(() => a.library.open(object, asked(place)))
        if (refusal !== 'object/no-access') throw unkept(`an object of a lost session was answered by ${refusal}`)
        narrator.line(`an object of session ${sessionOf(object)} does not open: ${refusal}`)
        kept.push(object)
      }
      a.losing = false
      const healed = await a.nextBroadcast(3 * SESSION_MS)
      const opened = await Promise.all(kept.map((bytes) => a.library.open(bytes, { ...asked(place), kind: 'past' })))
      return { healed, opened }
    },
    ({ healed, opened }) =>
      `B_${healed.session} arrives and gives sessions ${healed.from} to ${healed.session}: ` +
      `the objects of sessions ${opened.map((r) => r.header.session).join(' and ')} open now`,
  )
}

/** B fetches the same octets as A and cannot open them; nor is it let in. */
export async function outsider(narrator: Narrator, a: Reader, b: Reader): Promise<void> {
  await narrator.step(
    'outsider',
    'Client B holds no token: it fetches the same octets and cannot open them',
    async () => {
      const place = await b.atProxy()
      const bytes = (await fetchObject(place)) as Uint8Array
      const reading = await a.library.open(bytes, { ...asked(place), kind: 'past' })
      await b.lookOn()
      const refusal = await refusalOf(() => b.library.open(bytes, asked(place)))
      if (refusal !== 'object/no-access') throw unkept(`client B got ${refusal} instead of no access`)
      narrator.line(`the same ${bytes.length} octets: A reads ${tell(reading)}; B: ${refusal}, signature good`)
      const join = await refusalOf(() => b.join())
      if (join !== 'client/no-token') throw unkept(`client B's join was answered by ${join}`)
      return join
    },
    (refusal) => `B asks the key server for a personal key: ${refusal}`,
  )
}

/** The owner revokes; the next broadcast leaves A out. */
export async function revocation(narrator: Narrator, stage: Stage, a: Reader): Promise<void> {
  await narrator.step(
    'revocation',
    'The owner revokes A',
    async () => {
      const place = await a.atProxy()
      await revoke(stage.owner, stage.contract, [a.account.address], stage.device)
      const revoked = performance.now()
      narrator.line('revoked on chain')
      let next = await a.nextBroadcast(3 * SESSION_MS)
      // A broadcast that was on its way when the block came may still hold A.
      if (next.opened) next = await a.nextBroadcast(3 * SESSION_MS)
      if (next.opened) throw unkept('A still opens the second broadcast after its revocation')
      narrator.measure(
        'revocation on chain → broadcast without A',
        `${((performance.now() - revoked) / 1000).toFixed(1)} s`,
      )
      const object = await objectOfSession(next.session, () => fetchObject(place))
      const refusal = await refusalOf(() => a.library.open(object, asked(place)))
      if (refusal !== 'object/no-access') throw unkept(`the revoked client got ${refusal} instead of no access`)
      return { session: next.session, refusal }
    },
    ({ session, refusal }) => `B_${session} holds nothing for A, and an object of session ${session}: ${refusal}`,
  )
  const octets = a.broadcasts.map((b) => b.octets)
  narrator.measure('signed broadcasts, smallest / largest', `${Math.min(...octets)} / ${Math.max(...octets)} octets`)
  narrator.measure('the whole demo', `${narrator.seconds().toFixed(1)} s`)
}

function asked(place: { device: `0x${string}`; path: readonly string[] }) {
  return { device: place.device, path: place.path, form: 'signed' as const }
}

/** The first two records of a reading, as a person writes them. */
function tell(reading: Reading): string {
  const values = reading.records
    .slice(0, 2)
    .map(
      (r) =>
        `${r.name.split(/[:/]/).at(-1)} ${typeof r.value === 'number' ? Math.round(r.value * 100) / 100 : String(r.value)}${r.unit === undefined ? '' : ` ${r.unit}`}`,
    )
  return `${values.join(', ')} (session ${reading.header.session}, seq ${reading.header.seq})`
}

/** Fetches until an object of at least this session is served: the device has to hear the broadcast, too. */
async function objectOfSession(session: number, get: () => Promise<Uint8Array | undefined>): Promise<Uint8Array> {
  const until = Date.now() + 2 * SESSION_MS
  for (;;) {
    const object = await get()
    if (object !== undefined && sessionOf(object) >= session) return object
    if (Date.now() > until) throw new IotchainError('demo/timeout', `no object of session ${session} came`)
    await sleep(200)
  }
}

/** The code of the error that `work` must end with. */
async function refusalOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work()
  } catch (error) {
    if (isIotchainError(error)) return error.code
    throw error
  }
  return 'no refusal'
}

/** Repeats what is refused for the time being: confirmations that are missing, a device that has no session yet. */
async function eventually<T>(withinMs: number, work: () => Promise<T>): Promise<T> {
  const until = Date.now() + withinMs
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isIotchainError(error) || Date.now() > until) throw error
      await sleep(250)
    }
  }
}

function unkept(what: string): IotchainError {
  return new IotchainError('demo/promise-broken', what)
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((x, y) => x - y)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms))
}
