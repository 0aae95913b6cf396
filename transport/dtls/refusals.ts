/** Refused handshakes: OpenSSL's words, and what to do about them (docs/dtls.md "When it fails"). */
import { IotchainError } from '../../protocol/errors.ts'

const HINTS: readonly (readonly [RegExp, string])[] = [
  [/pinned/, 'another server answers there, or it has a new key: check its address, and what the registry says of it'],
  [/expired/, 'have the certificate renewed, or set the clock'],
  [/not yet valid/, 'set the clock'],
  [/revoked/, 'the certificate was taken back: ask for another'],
  [/issuer|self.signed|unknown ca|first certificate/i, 'trust the CA that issued it; the peer has to send its chain'],
  [/purpose|unsupported certificate/, 'a key server needs a certificate for serverAuth, a device one for clientAuth'],
  [/mismatch|does not name/, 'use a name that stands in the certificate, or pin the key'],
  [/bad signature|decrypt error/, 'a certificate was shown without its key: it may be stolen'],
  [/psk identity/i, 'the code is not known, or its time is over'],
  [/protocol/, 'the peer has to speak DTLS 1.2'],
  [/cipher|handshake failure/, 'the two have no cipher suite in common: no RSA certificates, no plain PSK'],
]

/** `dtls/refused`, with a hint where the reason is one that a person can do something about. */
export function refused(message: string): IotchainError {
  return new IotchainError('dtls/refused', message, { hint: HINTS.find(([reason]) => reason.test(message))?.[1] })
}
