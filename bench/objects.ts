/**
 * `npm run bench -- objects`: bars P1 (against libcrypto from C), P2 (against the noble suite) and P7 (packs, sizes).
 * All by CPU seconds, contenders alternated, paired ratios with a bootstrap 95 % interval.
 */
import { suite as noble } from '../protocol/crypto/noble.ts'
import { suite as node } from '../protocol/crypto/node.ts'
import { packPath } from '../protocol/objects/aad.ts'
import { encodePack, PACK_CONTENT_FORMAT, PACK_READINGS } from '../protocol/objects/pack.ts'
import { createSealer } from '../protocol/objects/seal.ts'
import { encodeSenml, type SenmlRecord } from '../protocol/objects/senml.ts'
import { formatInterval, type Interval, pairedRatio, verdict } from './coap-statistics.ts'
import {
  cpu,
  FIRST_SEQ,
  libcryptoContender,
  productContender,
  READING,
  scopeOf,
  type Timed,
} from './objects-contenders.ts'

export interface ObjectsBenchOptions {
  readonly rounds?: number | undefined
  readonly log?: ((line: string) => void) | undefined
}

export interface ObjectsBenchResult {
  readonly passed: boolean
  readonly ratios: Readonly<Record<string, Interval>>
  readonly octets: Readonly<Record<string, number>>
  /** CPU microseconds for one operation, round by round. */
  readonly samples: Readonly<Record<string, readonly number[]>>
}

const BARS = { sealC: 0.7, openC: 0.78, noble: 10, pack: 25 }
const OCTETS = { signed: 180, mac: 118, perReading: 20 }

export async function benchObjects(options: ObjectsBenchOptions = {}): Promise<ObjectsBenchResult> {
  const { rounds = 11, log = (line: string) => void process.stdout.write(`${line}\n`) } = options
  const samples: Record<string, number[]> = {}
  const ratios: Record<string, Interval> = {}
  let passed = true

  /** How many times faster `ours` is than `theirs`, each operation counted by CPU time. */
  const compare = (name: string, ours: [Timed, number], theirs: [Timed, number], bar: number): void => {
    const mine: number[] = []
    const rival: number[] = []
    const take = ([timed, iterations]: [Timed, number]): number => (timed(iterations) / iterations) * 1e6
    take(ours)
    take(theirs)
    for (let round = 0; round < rounds; round++) {
      const [a, b, c, d] = [take(ours), take(theirs), take(theirs), take(ours)]
      mine.push((a + d) / 2)
      rival.push((b + c) / 2)
    }
    const ratio = pairedRatio(rival, mine)
    samples[`${name}: ours`] = mine
    samples[`${name}: theirs`] = rival
    ratios[name] = ratio
    const holds = verdict(ratio, bar)
    passed &&= holds
    const middle = [...mine].sort((x, y) => x - y)[rounds >> 1] as number
    log(`${name}: ${formatInterval(ratio)}  bar ≥ ${bar}  ${holds ? 'holds' : 'MISSED'}  (${middle.toFixed(1)} µs)`)
  }

  const ours = productContender(node)
  const libcrypto = libcryptoContender(node)
  if (typeof libcrypto === 'string') log(`P1   libcrypto from C: skipped: ${libcrypto}`)
  else {
    compare('P1   seal ÷ libcrypto from C', [ours.seal, 3000], [libcrypto.seal, 3000], BARS.sealC)
    compare('P1   open ÷ libcrypto from C', [ours.open, 1500], [libcrypto.open, 1500], BARS.openC)
    libcrypto.dispose()
  }
  const rival = productContender(noble)
  compare('P2   seal ÷ noble suite', [ours.seal, 2000], [rival.seal, 100], BARS.noble)
  compare('P2   open ÷ noble suite', [ours.open, 1000], [rival.open, 60], BARS.noble)

  const packs = packWork()
  compare('P7   reading in a pack ÷ alone', [packs.packed, 200 * PACK_READINGS], [packs.single, 3000], BARS.pack)
  const octets = sizes()
  for (const [name, value, bar] of [
    ['29-octet reading, signed', octets.signed, OCTETS.signed],
    ['29-octet reading, as mac-object', octets.mac, OCTETS.mac],
    ['reading in a signed pack of 64', octets.perReading, OCTETS.perReading],
  ] as const) {
    passed &&= value <= bar
    log(
      `P7   ${name}: ${value.toFixed(value % 1 === 0 ? 0 : 1)} octets  bar ≤ ${bar}  ${value <= bar ? 'holds' : 'MISSED'}`,
    )
  }
  return { passed, ratios, octets, samples }
}

function readings(first: number): SenmlRecord[] {
  return Array.from({ length: PACK_READINGS }, (_, n) =>
    n === 0
      ? { bn: 'temperature', bu: 'Cel', bt: 1_800_000_000 + first, v: 21.46 }
      : { t: 14 * n, v: 21.46 + ((first + n) % 50) / 100 },
  )
}

/** The same readings from values to signed octets: in packs, and one by one. Iterations count readings. */
function packWork(): { packed: Timed; single: Timed } {
  const pack = createSealer(node, scopeOf(node, packPath(['s', 'temp'])))
  const alone = createSealer(node, scopeOf(node))
  return {
    packed: (iterations) =>
      cpu(() => {
        for (let n = 0; n < iterations; n += PACK_READINGS) sealPack(pack, n)
      }),
    single: (iterations) =>
      cpu(() => {
        for (let n = 0; n < iterations; n++) {
          const plaintext = encodeSenml([{ n: 'temperature', u: 'Cel', t: n % 20, v: 21.46 + (n % 50) / 100 }])
          alone.seal({ seq: FIRST_SEQ + n, iat: 1_800_000_000, contentFormat: 112, plaintext })
        }
      }),
  }
}

function sealPack(sealer: ReturnType<typeof createSealer>, first: number): Uint8Array {
  const last = first + PACK_READINGS - 1
  const from = 1_800_000_000 + first
  const plaintext = encodePack({
    fromSeq: FIRST_SEQ + first,
    toSeq: FIRST_SEQ + last,
    from,
    to: from + 14 * 63,
    records: readings(first),
  })
  const seq = FIRST_SEQ + last + 1
  return sealer.seal({ seq, iat: from + 900, contentFormat: PACK_CONTENT_FORMAT, plaintext }).signed
}

function sizes(): { signed: number; mac: number; perReading: number } {
  const sealer = createSealer(node, scopeOf(node))
  const plaintext = READING.length === 29 ? READING : new Uint8Array(29)
  const { signed, encrypt0 } = sealer.seal({ seq: 2 ** 32, iat: 1_800_000_000, contentFormat: 112, plaintext })
  const pack = sealPack(createSealer(node, scopeOf(node, packPath(['s', 'temp']))), 0)
  return { signed: signed.length, mac: sealer.mac(encrypt0).length, perReading: pack.length / PACK_READINGS }
}
