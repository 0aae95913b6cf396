import { expect, test } from 'vitest'
import { refused } from '../../../transport/dtls/refusals.ts'

test.each([
  ['the server was refused: certificate verify failed: the key is not the pinned one', /address.*registry/],
  ['the client was refused: certificate verify failed: certificate has expired', /renewed/],
  ['the server was refused: certificate verify failed: certificate is not yet valid', /clock/],
  ['the server was refused: certificate verify failed: unable to get local issuer certificate', /trust the CA/],
  ['the server refused the handshake: unknown ca', /trust the CA/],
  ['the server refused the handshake: certificate revoked', /taken back/],
  ['the client was refused: certificate verify failed: unsuitable certificate purpose', /serverAuth.*clientAuth/],
  ['the server was refused: certificate verify failed: IP address mismatch', /name that stands/],
  ['the server was refused: its certificate does not name localhost', /name that stands/],
  ['the client was refused: bad signature', /stolen/],
  ['the client was refused: no shared cipher', /cipher suite/],
  ['the client was refused: unsupported protocol', /DTLS 1\.2/],
])('%s: says what to do', (message, hint) => {
  expect(refused(message)).toMatchObject({ code: 'dtls/refused', message, hint: expect.stringMatching(hint) })
})
