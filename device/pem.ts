/** Certificates between DER, as they travel, and PEM, as they lie in files. */

export function pemOf(der: Uint8Array): string {
  const base64 = Buffer.from(der).toString('base64')
  return `-----BEGIN CERTIFICATE-----\n${(base64.match(/.{1,64}/g) as string[]).join('\n')}\n-----END CERTIFICATE-----\n`
}

/** The octets of a certificate request in a PEM file. */
export function derOfRequest(pem: string): Uint8Array {
  const body = /-----BEGIN [A-Z ]*CERTIFICATE REQUEST-----([\s\S]+?)-----END/.exec(pem)?.[1] ?? ''
  return new Uint8Array(Buffer.from(body, 'base64'))
}

/**
 * What a device sends in its handshakes: its certificate, then the CAs below the root; and the root apart.
 * @param caChain DER, issuing CA first, root last
 */
export function chainFiles(certificate: Uint8Array, caChain: readonly Uint8Array[]): { chain: string; root: string } {
  const below = caChain.slice(0, -1)
  return { chain: [certificate, ...below].map(pemOf).join(''), root: pemOf(caChain.at(-1) as Uint8Array) }
}
