import { copyOf, equalBytes } from '../bytes.ts'
import type { CryptoSuite } from '../crypto/suite.ts'

/** CoAP ETag of stored octets: the first 8 octets of their SHA-256 (protocol.md §4.6). */
export function etagOf(suite: CryptoSuite, bytes: Uint8Array): Uint8Array {
  return copyOf(suite.sha256(bytes), 0, 8)
}

export function isEtagOf(suite: CryptoSuite, etag: Uint8Array, bytes: Uint8Array): boolean {
  return equalBytes(etag, etagOf(suite, bytes))
}
