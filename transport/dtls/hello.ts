/** The little that must be known of a datagram before OpenSSL sees it. (RFC 6347 §4.1, §4.2.2) */

const HANDSHAKE = 22
const CLIENT_HELLO = 1
/** Record header 13, handshake header 12, client_version 2. */
const RANDOM_AT = 27
const RANDOM_OCTETS = 32

/** ClientHello.random where the datagram begins with an unprotected ClientHello, else undefined. */
export function helloRandom(datagram: Buffer): Buffer | undefined {
  if (datagram.length < RANDOM_AT + RANDOM_OCTETS) return undefined
  if (datagram[0] !== HANDSHAKE || datagram[1] !== 0xfe || epochOf(datagram) !== 0) return undefined
  return datagram[13] === CLIENT_HELLO ? datagram.subarray(RANDOM_AT, RANDOM_AT + RANDOM_OCTETS) : undefined
}

/** Epoch of the first record; 0 before the keys are in use. */
export function epochOf(datagram: Buffer): number {
  return datagram.readUInt16BE(3)
}

/** Whether it could be a DTLS record at all: type 20 … 23, major version 254, a whole header. */
export function looksLikeDtls(datagram: Buffer): boolean {
  const type = datagram[0] ?? 0
  return datagram.length > 13 && type >= 20 && type <= 23 && datagram[1] === 0xfe
}
