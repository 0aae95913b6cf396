import { execFileSync } from 'node:child_process'
import { createDiffieHellmanGroup, createHash, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions, DtlsAssociation, DtlsEndpoint } from '../../../transport/dtls/types.ts'
import { bindingFile } from '../../../transport/native.ts'
import { ask, createWorld, startServer, type World } from './authority.ts'
import { Files, OPENSSL, SKIPPED } from './openssl.ts'

/** On OpenSSL 3.0 handshakes see a choice of its algorithms (native/library.c): all that they need, and nobody else. */
let world: World
const files = new Files()
const open: (DtlsEndpoint | DtlsAssociation)[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterEach(async () => {
  for (const thing of open.splice(0)) await thing.close()
})
afterAll(() => files.remove())

const KEYS: readonly (readonly [name: string, ...newkey: string[]])[] = [
  ['P-256', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  ['P-384', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  ['P-521', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-521'],
  ['RSA', 'rsa:2048'],
  ['RSA-PSS', 'rsa-pss', '-pkeyopt', 'rsa_keygen_bits:2048'],
  ['Ed25519', 'ed25519'],
  ['Ed448', 'ed448'],
]

/** A root with a key of the kind, an issuing authority of the same kind, and a P-256 certificate of that. */
function chainOf(name: string, newkey: readonly string[]): { ca: string; cert: string; key: string } {
  const at = (file: string): string => `${files.folder}/${name}-${file}`
  const run = (...args: string[]): void => void execFileSync('openssl', args, { stdio: 'pipe' })
  const request = (file: string, kind: readonly string[], ...more: string[]): void =>
    run('req', '-nodes', '-newkey', ...kind, '-keyout', at(`${file}.key`), '-subj', `/CN=${file}`, ...more)
  const authority = files.write('ca.ext', 'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n')
  const end = files.write('end.ext', 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n')
  const sign = (file: string, by: string, extensions: string): void =>
    run(
      ...['x509', '-req', '-in', at(`${file}.csr`), '-CA', at(`${by}.pem`), '-CAkey', at(`${by}.key`)],
      ...['-set_serial', '7', '-days', '2', '-extfile', extensions, '-out', at(`${file}.pem`)],
    )
  request('root', newkey, '-x509', '-days', '2', '-addext', 'keyUsage=critical,keyCertSign', '-out', at('root.pem'))
  request('issuing', newkey, '-out', at('issuing.csr'))
  sign('issuing', 'root', authority)
  request('end', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'], '-out', at('end.csr'))
  sign('end', 'issuing', end)
  const read = (file: string): string => readFileSync(at(file), 'latin1')
  return { ca: read('root.pem'), cert: read('end.pem') + read('issuing.pem'), key: read('end.key') }
}

async function opened(port: number, options: ConnectOptions): Promise<DtlsAssociation> {
  const association = connect('127.0.0.1', port, { retransmitInitial: 100, ...options })
  open.push(association)
  await association.opened
  return association
}

test.each(KEYS)(`chains of authorities with %s keys count, and make tickets${SKIPPED}`, async (name, ...newkey) => {
  if (OPENSSL === undefined) return
  const { ca, cert, key } = chainOf(name, newkey)
  const server = await startServer({ cert, key, ca, clientAuth: 'require' })
  open.push(server.endpoint)
  const first = await opened(server.port, { ca, cert, key })
  expect(await ask(first, 'one')).toBe('eno')
  expect(server.associations[0]?.authorized).toBe(true)
  // with the long signatures of RSA a ticket needs a larger hello
  const second = await opened(server.port, { ca, cert, key, session: first.session, mtu: 4000 })
  expect(await ask(second, 'two')).toBe('owt')
  expect(second.reused).toBe(true)
  expect(server.associations[1]?.peerX509Certificate?.fingerprint256).toBe(
    server.associations[0]?.peerX509Certificate?.fingerprint256,
  )
})

test.each([
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-ECDSA-AES128-CCM8',
])('our suite %s is there', async (suite) => {
  await negotiates({ coapCompat: true }, suite)
})

test.each([
  'ECDHE-ECDSA-AES256-CCM',
  'ECDHE-ECDSA-AES128-SHA256',
  'ECDHE-ECDSA-AES256-SHA',
  'ECDHE-ECDSA-ARIA128-GCM-SHA256',
  'ECDHE-ECDSA-CAMELLIA256-SHA384',
])('whoever names suite %s has it', async (suite) => {
  await negotiates({ ciphers: `${suite}:@SECLEVEL=0` }, suite)
})

async function negotiates(options: { coapCompat?: boolean; ciphers?: string }, suite: string): Promise<void> {
  const { cert, key } = world.server
  const server = await startServer({ cert, key, ...options })
  open.push(server.endpoint)
  const association = await opened(server.port, { ca: world.ca, ciphers: `${suite}:@SECLEVEL=0` })
  expect(association.cipher).toBe(suite)
  expect(await ask(association, 'suite')).toBe('etius')
}

test('a look-up has all algorithms of Node, and so has everybody afterwards', async () => {
  const psk = createHash('sha256').update('only for this test').digest()
  const made: string[] = []
  /** Of none of these does a handshake know. */
  const useOthers = (): void => {
    made.push(createHash('ripemd160').update('x').digest('hex'))
    createDiffieHellmanGroup('modp14').generateKeys()
    const { publicKey } = generateKeyPairSync('x448')
    expect(createPublicKey(publicKey.export({ type: 'spki', format: 'pem' })).asymmetricKeyType).toBe('x448')
  }
  const server = await startServer({
    psk: () => {
      useOthers()
      return psk
    },
  })
  open.push(server.endpoint)
  const association = await opened(server.port, { psk: { somebody: psk } })
  expect(await ask(association, 'abc')).toBe('cba')
  useOthers()
  expect(made).toHaveLength(2)
  expect(new Set(made).size).toBe(1)
})

test.skipIf(process.platform !== 'linux')('workers may come and go; what OpenSSL was given stays for others', () => {
  const { server, device, ca } = world
  const work = { binding: bindingFile(), server, device, ca, rounds: 3, atOnce: 3 }
  const script = join(import.meta.dirname, 'workers-main.mjs')
  const said = execFileSync(process.execPath, [script], { input: JSON.stringify(work), encoding: 'utf8' })
  // one full handshake each; unloaded and loaded again, the binding would leave a library context behind each time
  expect(JSON.parse(said)).toEqual({ workers: [2, 12, 22], mapped: true, main: 2 })
})
