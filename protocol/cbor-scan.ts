/**
 * The structural check that runs before a CBOR value is built: bounds, depth, and (for everything signed or
 * keyed) the deterministic form of RFC 8949 §4.2.1, so that octets and value are one to one.
 */
import { compareBytes } from './bytes.ts'
import { IotchainError } from './errors.ts'

/** Nesting that any message here may have: arrays, maps and tags. */
export const CBOR_MAX_DEPTH = 16
/** The largest item that is decoded at all, octets. */
export const CBOR_MAX_SIZE = 65_536
/** COSE_Encrypt0, COSE_Mac0, COSE_Sign1 and CWT (RFC 9052 §2, RFC 8392 §6). */
export const CBOR_TAGS: ReadonlySet<number> = new Set([16, 17, 18, 61])

const strictText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

interface Head {
  major: number
  minor: number
  /** The argument; exact up to 2^53, which no length or tag here exceeds. */
  argument: number
  /** Index of the first octet behind the head. */
  next: number
}

function malformed(message: string): IotchainError {
  return new IotchainError('cbor/malformed', message)
}

function notCanonical(message: string): IotchainError {
  return new IotchainError('cbor/not-canonical', message)
}

/**
 * Checks one data item that fills `bytes`.
 * @throws `cbor/too-large`, `cbor/too-deep`, `cbor/malformed`, `cbor/not-canonical`, `cbor/unsupported`
 */
export function scanCbor(bytes: Uint8Array, canonical: boolean): void {
  if (bytes.length > CBOR_MAX_SIZE) throw new IotchainError('cbor/too-large', 'a CBOR item over 65 536 octets')
  const end = scanItem(bytes, 0, canonical, 0)
  if (end !== bytes.length) throw malformed('octets after the CBOR item')
}

function scanItem(bytes: Uint8Array, at: number, canonical: boolean, depth: number): number {
  if (depth > CBOR_MAX_DEPTH) throw new IotchainError('cbor/too-deep', 'CBOR nested deeper than 16')
  const head = readHead(bytes, at, canonical)
  switch (head.major) {
    case 0:
    case 1:
      return head.next
    case 2:
      return endOfString(bytes, head)
    case 3:
      return scanText(bytes, head)
    case 4: {
      let next = head.next
      if (head.argument > bytes.length - next) throw malformed('CBOR array longer than its octets')
      for (let i = 0; i < head.argument; i++) next = scanItem(bytes, next, canonical, depth + 1)
      return next
    }
    case 5:
      return scanMap(bytes, head, canonical, depth)
    case 6:
      if (!CBOR_TAGS.has(head.argument)) throw new IotchainError('cbor/unsupported', 'a CBOR tag that is not used here')
      return scanItem(bytes, head.next, canonical, depth + 1)
    default:
      return scanSimple(bytes, head, canonical)
  }
}

function readHead(bytes: Uint8Array, at: number, canonical: boolean): Head {
  const first = bytes[at]
  if (first === undefined) throw malformed('CBOR ends too early')
  const major = first >> 5
  const minor = first & 31
  if (minor < 24) return { major, minor, argument: minor, next: at + 1 }
  if (minor > 27) {
    if (minor === 31) throw new IotchainError('cbor/unsupported', 'indefinite-length CBOR')
    throw malformed('reserved CBOR length')
  }
  const width = 1 << (minor - 24)
  const next = at + 1 + width
  if (next > bytes.length) throw malformed('CBOR ends too early')
  let argument = 0
  for (let i = at + 1; i < next; i++) argument = argument * 256 + (bytes[i] as number)
  // every CBOR decoder worth the name reads long forms; ours reads them only where nothing is signed or keyed
  if (canonical && major !== 7) {
    const least = minor === 24 ? 24 : minor === 25 ? 0x100 : minor === 26 ? 0x10000 : 0x100000000
    if (argument < least) throw notCanonical('a CBOR integer or length not in its shortest form')
  }
  return { major, minor, argument, next }
}

function endOfString(bytes: Uint8Array, head: Head): number {
  if (head.argument > bytes.length - head.next) throw malformed('CBOR string longer than its octets')
  return head.next + head.argument
}

function scanText(bytes: Uint8Array, head: Head): number {
  const end = endOfString(bytes, head)
  for (let i = head.next; i < end; i++) {
    if ((bytes[i] as number) < 0x80) continue
    let text: string
    try {
      text = strictText.decode(bytes.subarray(head.next, end))
    } catch (cause) {
      throw new IotchainError('cbor/malformed', 'CBOR text that is not UTF-8', { cause })
    }
    // the decoder behind drops a leading byte order mark, which would make two texts of one
    if (text.startsWith('\uFEFF')) throw new IotchainError('cbor/unsupported', 'CBOR text with a byte order mark')
    break
  }
  return end
}

function scanMap(bytes: Uint8Array, head: Head, canonical: boolean, depth: number): number {
  if (head.argument > (bytes.length - head.next) / 2) throw malformed('CBOR map longer than its octets')
  let next = head.next
  let previous: Uint8Array | undefined
  const seen = canonical ? undefined : new Set<string>()
  for (let i = 0; i < head.argument; i++) {
    const major = (bytes[next] ?? 0) >> 5
    if (major > 3) throw new IotchainError('cbor/unsupported', 'a CBOR map key that is neither integer nor string')
    const end = scanItem(bytes, next, canonical, depth + 1)
    const key = bytes.subarray(next, end)
    if (canonical) {
      const order = previous === undefined ? -1 : compareBytes(previous, key)
      if (order === 0) throw malformed('a CBOR map key twice')
      if (order > 0) throw notCanonical('CBOR map keys out of order')
      previous = key
    } else {
      // a longer form of the same integer is the same key
      const name = major < 2 ? integerName(bytes, next) : `${major}:${key.subarray(headLength(key)).join()}`
      if (seen?.has(name)) throw malformed('a CBOR map key twice')
      seen?.add(name)
    }
    next = scanItem(bytes, end, canonical, depth + 1)
  }
  return next
}

function headLength(item: Uint8Array): number {
  const minor = (item[0] as number) & 31
  return minor < 24 ? 1 : 1 + (1 << (minor - 24))
}

function integerName(bytes: Uint8Array, at: number): string {
  const first = bytes[at] as number
  const minor = first & 31
  if (minor < 24) return `${first >> 5}:${minor}`
  let value = 0n
  for (let i = 0; i < 1 << (minor - 24); i++) value = value * 256n + BigInt(bytes[at + 1 + i] as number)
  return `${first >> 5}:${value}`
}

function scanSimple(bytes: Uint8Array, head: Head, canonical: boolean): number {
  if (head.minor >= 20 && head.minor <= 22) return head.next
  if (head.minor < 25) throw new IotchainError('cbor/unsupported', 'a CBOR simple value that is not used here')
  const view = new DataView(bytes.buffer, bytes.byteOffset + head.next - (1 << (head.minor - 24)))
  const value =
    head.minor === 25 ? float16(view.getUint16(0)) : head.minor === 26 ? view.getFloat32(0) : view.getFloat64(0)
  if (!Number.isFinite(value)) throw new IotchainError('cbor/unsupported', 'NaN or infinity in CBOR')
  if (canonical) {
    if (Number.isInteger(value)) throw notCanonical('a whole number as CBOR float')
    const shorter = head.minor === 27 ? Math.fround(value) === value : head.minor === 26 && isFloat16(value)
    if (shorter) throw notCanonical('a CBOR float not in its shortest form')
  }
  return head.next
}

/** IEEE 754 half precision, by value (RFC 8949 appendix D). */
export function float16(half: number): number {
  const exponent = (half >> 10) & 31
  const mantissa = half & 1023
  const sign = half & 0x8000 ? -1 : 1
  if (exponent === 0) return sign * mantissa * 2 ** -24
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (1024 + mantissa) * 2 ** (exponent - 25)
}

/** Whether a finite number has a half-precision form. */
export function isFloat16(value: number): boolean {
  const magnitude = Math.abs(value)
  if (magnitude > 65_504) return false
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)))
  return Number.isInteger((magnitude / 2 ** exponent) * 1024)
}
