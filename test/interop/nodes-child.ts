/**
 * One end of a handshake, in whichever Node runs this: node nodes-child.js load | serve CERT KEY CA | connect PORT CERT
 * KEY CA. Says what it found in JSON lines; a server ends with its standard input.
 */
import { readFileSync } from 'node:fs'
import { binding } from '../../transport/dtls/binding.ts'
import { connect } from '../../transport/dtls/connect.ts'
import { listen } from '../../transport/dtls/endpoint.ts'
import type { DtlsAssociation } from '../../transport/dtls/types.ts'

export interface ChildLine {
  readonly node?: string
  /** The OpenSSL that the binding reaches, and the one that this Node says it has. */
  readonly openssl?: string
  readonly own?: string
  readonly port?: number
  readonly authorized?: boolean
  readonly reused?: boolean
  readonly channelBinding?: string
  readonly echo?: string
}

const say = (line: ChildLine): void => void process.stdout.write(`${JSON.stringify(line)}\n`)
const facts = (association: DtlsAssociation): ChildLine => ({
  authorized: association.authorized,
  reused: association.reused,
  channelBinding: association.channelBinding().toString('hex'),
})
const HOST = '127.0.0.1'
/** A flight that the peer drops is missed, not repaired by a timer. */
const FAR_MS = 60_000

const [mode, ...rest] = process.argv.slice(2)
if (mode === 'load') {
  say({ node: process.version, openssl: binding().openssl, own: process.versions.openssl })
} else if (mode === 'serve') {
  const [cert, key, ca] = rest.map((file) => readFileSync(file))
  const endpoint = listen(
    (association) => {
      say(facts(association))
      association.onmessage = (datagram) => association.send(datagram)
    },
    { port: 0, host: HOST, cert, key, ca, clientAuth: 'optional', retransmitInitial: FAR_MS },
  )
  say({ port: (await endpoint.listening).port })
  process.stdin.resume().on('end', () => process.exit())
} else {
  const [cert, key, ca] = rest.slice(1).map((file) => readFileSync(file))
  const association = connect(HOST, Number(rest[0]), { cert, key, ca })
  await association.opened
  const echo = new Promise<string>((done) => {
    association.onmessage = (datagram) => done(datagram.toString())
  })
  association.send(Buffer.from('through another Node'))
  say({ ...facts(association), echo: await echo })
  association.close()
}
