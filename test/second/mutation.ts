/** Random CBOR, and random damage: of octets, and of values before they are signed again. */
import { type CborEncodable, type CborKey, Tagged } from '../../protocol/cbor.ts'
import type { Random } from '../adversary/random.ts'

const NUMBERS = [0, 1, 23, 24, 255, 256, 65_535, 65_536, 0xffffffff, 2 ** 32, 2 ** 40, Number.MAX_SAFE_INTEGER]
const FLOATS = [0.5, -0.25, 1.1, 65_504.5, 2 ** -24, 2 ** -149, 1e-300, 273.15]

export function whole(random: Random): number {
  return random.chance(0.5) ? random.pick(NUMBERS) : random.between(0, 2 ** random.between(1, 40))
}

/** Any value that CBOR has a place for here. */
export function value(random: Random, depth = 0): CborEncodable {
  const kind = random.between(0, depth > 4 ? 6 : 9)
  if (kind === 0) return whole(random)
  if (kind === 1) return -Math.max(1, whole(random))
  if (kind === 2) return random.bytes(random.between(0, 40))
  if (kind === 3) return text(random)
  if (kind === 4) return random.pick([true, false, null])
  if (kind === 5) return random.pick(FLOATS)
  if (kind === 6) return random.chance(0.5) ? 2n ** 64n - 1n : -(2n ** 64n)
  if (kind === 7) return Array.from({ length: random.between(0, 5) }, () => value(random, depth + 1))
  if (kind === 8) return new Tagged(random.pick([16, 17, 18, 61]), value(random, depth + 1))
  const map = new Map<CborKey, CborEncodable>()
  for (let n = random.between(0, 5); n > 0; n--) {
    // octets are told apart by their length: a Map would take the same ones twice
    const key = mapKey(random)
    map.set(key instanceof Uint8Array ? random.bytes(n) : key, value(random, depth + 1))
  }
  return map
}

function mapKey(random: Random): CborKey {
  const kind = random.between(0, 2)
  return kind === 0 ? random.between(-300, 300) : kind === 1 ? text(random) : random.bytes(random.between(0, 3))
}

export function text(random: Random): string {
  return Array.from({ length: random.between(0, 8) }, () => random.pick([...'abz/@_0é€𝄞 '])).join('')
}

/** A few octets changed, put in, taken out, or the end cut off. */
export function damaged(random: Random, octets: Uint8Array): Uint8Array {
  const out = [...octets]
  for (let n = random.between(1, 2); n > 0; n--) {
    const at = random.between(0, Math.max(0, out.length - 1))
    const kind = random.between(0, 5)
    if (kind === 0) out[at] = random.between(0, 255)
    else if (kind === 1) out[at] = (out[at] ?? 0) ^ (1 << random.between(0, 7))
    else if (kind === 2) out.splice(at, 0, random.pick([0, 0x18, 0x5f, 0x80, 0xa0, 0xf6, 0xf9, 0xff]))
    else if (kind === 3) out.splice(at, 1)
    else if (kind === 4) out[at] = random.pick([0x18, 0x1b, 0x40, 0x58, 0x9f, 0xc0, 0xd8, 0xf7, 0xfa, 0xfb])
    else out.splice(at)
  }
  return Uint8Array.from(out)
}

/** The value with something else in one place, so that it is still CBOR and mostly not what it should be. */
export function bent(random: Random, whole_: unknown): CborEncodable {
  if (Array.isArray(whole_) && whole_.length > 0 && random.chance(0.8)) {
    const out = [...(whole_ as CborEncodable[])]
    const at = random.between(0, out.length - 1)
    const kind = random.between(0, 9)
    if (kind === 0) out.splice(at, 1)
    else if (kind === 1) out.splice(at, 0, out[at] as CborEncodable)
    else if (kind === 2 && out.length > 1) out.reverse()
    else out[at] = bent(random, out[at])
    return out
  }
  if (whole_ instanceof Map && whole_.size > 0 && random.chance(0.8)) {
    const out = new Map(whole_ as Map<CborKey, CborEncodable>)
    const key = random.pick([...out.keys()])
    const kind = random.between(0, 9)
    if (kind === 0) out.delete(key)
    else if (kind === 1) out.set(random.pick([random.between(-300, 300), text(random)]), value(random, 4))
    else out.set(key, bent(random, out.get(key)))
    return out
  }
  if (whole_ instanceof Uint8Array && random.chance(0.8)) {
    const kind = random.between(0, 3)
    if (kind === 0) return whole_.slice(0, -1)
    if (kind === 1) return Uint8Array.from([...whole_, 0])
    if (kind === 2) return new Uint8Array(0)
    return damaged(random, whole_)
  }
  if (typeof whole_ === 'number' && random.chance(0.8)) {
    return random.pick([0, -1, whole_ + 1, whole_ - 1, whole(random), 0.5])
  }
  if (typeof whole_ === 'string' && random.chance(0.8))
    return random.pick(['', `${whole_}x`, [...whole_].slice(1).join(''), text(random)])
  return value(random, 3)
}
