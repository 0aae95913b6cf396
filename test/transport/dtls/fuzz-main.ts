/**
 * node dist/test/transport/dtls/fuzz-main.js [--associations N] [--seed S]
 *
 * Fuzzes the binding alone: mutated handshakes of every kind, calls out of turn, arguments of the wrong kind. Fails if
 * a peer counts as authenticated that is not, or (with the sanitizers) on the first octet out of bounds.
 */
import { randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'
import { spkiSha256 } from '../../../runtime/pki/certificate.ts'
import { createCrl } from '../../../runtime/pki/revocation.ts'
import { type Binding, binding, type NativeContextOptions } from '../../../transport/dtls/binding.ts'
import { createWorld } from './authority.ts'
import { type PairOptions, runPair } from './fuzz-pair.ts'
import { seeded } from './relay.ts'

const { values } = parseArgs({
  options: { associations: { type: 'string', default: '3000' }, seed: { type: 'string', default: '1' } },
})
const total = Number(values.associations)
const random = seeded(Number(values.seed))
const dtls = binding()
const octets = (text: string): Uint8Array => Buffer.from(text)

const world = await createWorld()
const rogue = await createWorld()
const crl = await createCrl(world.issuing, { revoked: [{ serial: '4a', atMs: Date.now() }], number: 1 })
const psk = randomBytes(32)
const suites = octets('ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-PSK-CHACHA20-POLY1305')
const ca = octets(world.ca)
const server = dtls.createContext({
  server: 1,
  cert: octets(world.server.cert),
  key: octets(world.server.key),
  ca,
  crl: octets(crl),
  ciphers: suites,
  clientAuth: 1,
  lookup: 1,
  ticketKeys: randomBytes(160),
  sessionIdContext: octets('fuzz'),
})
const clientOf = (more: Partial<NativeContextOptions>) =>
  dtls.createContext({ server: 0, ca, ciphers: suites, ...more })
const device = { cert: octets(world.device.cert), key: octets(world.device.key) }
const clients = {
  anonymous: clientOf({}),
  device: clientOf(device),
  rogue: clientOf({ cert: octets(rogue.device.cert), key: octets(rogue.device.key) }),
  psk: clientOf({ ciphers: octets('ECDHE-PSK-CHACHA20-POLY1305'), pskIdentity: octets('enrol:00'), psk }),
  wrongPsk: clientOf({
    ciphers: octets('ECDHE-PSK-CHACHA20-POLY1305'),
    pskIdentity: octets('enrol:00'),
    psk: randomBytes(32),
  }),
}
const kinds = Object.keys(clients) as (keyof typeof clients)[]
const pin = spkiSha256(world.server.cert)
const lookup = (identity: string): Uint8Array | undefined => (identity === 'enrol:00' ? psk : undefined)
const deviceDer = Buffer.from(world.device.cert.split('-----')[2] as string, 'base64')

abuseArguments(dtls)
let session: Buffer | undefined
const counts = { open: 0, agree: 0, authenticated: 0, delivered: 0 }
const started = performance.now()
for (let i = 0; i < total; i++) {
  const kind = kinds[Math.floor(random() * kinds.length)] as keyof typeof clients
  const calm = random() < 0.25
  const resume = kind === 'device' && random() < 0.4
  const options: PairOptions = {
    dtls,
    random,
    client: clients[kind],
    server,
    pin: random() < 0.2 ? pin : undefined,
    session: resume ? mangled(session) : undefined,
    lookup: random() < 0.05 ? throwing : lookup,
    mutation: calm ? 0 : 0.12,
    mischief: calm ? 0 : 0.1,
  }
  const result = runPair(options)
  if (kind === 'device' && result.session !== undefined) session = result.session
  if (result.serverOpen) counts.open++
  if (result.agree) counts.agree++
  counts.delivered += result.delivered
  const shown = result.serverFacts?.certificate
  if (result.serverOpen && shown !== undefined) {
    counts.authenticated++
    // A ticket of the device may be resumed by whoever holds it; here that is the device alone.
    if (kind !== 'device' || !shown.equals(deviceDer)) fail(`${kind} counts as authenticated`)
  }
  if (result.serverOpen && kind === 'rogue') fail('the rogue certificate opened an association')
  if (result.serverOpen && kind === 'wrongPsk') fail('a wrong key opened an association')
  if (calm && !resume && (kind === 'anonymous' || kind === 'device') && !result.agree)
    fail(`a calm ${kind} handshake failed`)
  // Finalizers run in turns of the event loop only.
  if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve))
  if ((i + 1) % 1000 === 0) report(i + 1)
}
if (total % 1000 !== 0) report(total)
if (counts.open < total / 10 || counts.authenticated === 0 || counts.delivered === 0)
  fail('too few handshakes got through')
console.log(`${total} associations, ${counts.open} opened, ${counts.authenticated} authenticated rightly, 0 wrongly`)

function throwing(): never {
  throw new Error('a look-up that throws')
}

function mangled(from: Buffer | undefined): Buffer | undefined {
  if (from === undefined || random() < 0.6) return from
  const copy = Buffer.from(from)
  copy[Math.floor(random() * copy.length)] = Math.floor(random() * 256)
  return copy
}

function report(done: number): void {
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  const rss = (process.memoryUsage().rss / 1e6).toFixed(0)
  console.log(`${done} of ${total} in ${seconds} s: ${counts.open} open, ${counts.agree} agree, RSS ${rss} MB`)
}

function fail(reason: string): never {
  console.error(`failed (seed ${values.seed}): ${reason}`)
  process.exit(1)
}

/** Whatever reaches a function that wants a handle, it throws a TypeError and touches nothing. */
function abuseArguments(module: Binding): void {
  const things: unknown[] = [undefined, null, 0, 'x', {}, [], new Uint8Array(3), () => undefined, server, module]
  const functions = Object.entries(module).filter(([, value]) => typeof value === 'function') as [
    string,
    (...args: unknown[]) => unknown,
  ][]
  let thrown = 0
  for (const [name, call] of functions) {
    for (const first of things) {
      for (const second of things) {
        // A context takes ticket keys and a new cookie secret, and an association is made from it.
        if (first === server && ['createAssociation', 'rotateCookieSecret', 'setTicketKeys'].includes(name)) continue
        if (name === 'createContext') continue
        try {
          call(first, second, second)
        } catch (error) {
          if (error instanceof TypeError) thrown++
        }
      }
      try {
        call()
      } catch {
        thrown++
      }
    }
  }
  if (thrown < 1000) fail(`wrong arguments were taken (${thrown})`)
  for (const wrong of [undefined, null, 1, 'x', { server: 1, ciphers: 'text' }, { server: 1, ca: new Uint8Array(9) }]) {
    try {
      module.createContext(wrong as never)
    } catch {}
  }
}
