/** Our sealed objects, mac-objects, broadcasts and credentials before third-party COSE libraries, and theirs before us. */
import { suite } from '#crypto'
import { fromHex, toHex, utf8 } from '../../protocol/bytes.ts'
import { nonceOf } from '../../protocol/cose/encrypt0.ts'
import { kidOf } from '../../protocol/cose/key.ts'
import { AEAD, type AeadAlgorithm } from '../../protocol/crypto/suite.ts'
import { BROADCAST_AAD, encodeBroadcast, signBroadcast } from '../../protocol/groups/broadcast.ts'
import { toGid } from '../../protocol/groups/gid.ts'
import { externalAad } from '../../protocol/objects/aad.ts'
import { issueCredential } from '../../protocol/objects/credential.ts'
import { partialIv } from '../../protocol/objects/header.ts'
import { deriveObjectKeys, type ObjectScope } from '../../protocol/objects/keys.ts'
import { createSealer } from '../../protocol/objects/seal.ts'
import { verifySignedWith } from '../../protocol/objects/verify.ts'
import { COSE_PEERS, type CosePeerName, findCosePeer } from '../peers/cose-peers.ts'
import { PeerProcess } from '../peers/process.ts'
import type { Verdict } from './coap-cells.ts'
import type { MatrixOptions } from './coap-matrix.ts'
import type { Result } from './results.ts'

interface Answer {
  readonly payload?: string
  readonly message?: string
  readonly error?: string
}

type Ask = (command: Record<string, string | Uint8Array>) => Promise<Answer>

const ALGORITHMS: readonly [AeadAlgorithm, string][] = [
  [24, 'ChaCha20-Poly1305'],
  [10, 'AES-CCM-16-64-128'],
  [1, 'A128GCM'],
]

/** Everything that one run seals with; fresh in each run. */
function fixture(algorithm: AeadAlgorithm) {
  const seed = suite.randomBytes(32)
  const signingKey = suite.ed25519.signing(seed)
  const scope: ObjectScope = {
    gid: suite.randomBytes(8),
    session: 77,
    device: suite.randomBytes(20),
    sid: suite.randomBytes(3),
    path: ['s', 'température'],
    algorithm,
  }
  const K = suite.randomBytes(16)
  const sealer = createSealer(suite, { ...scope, K, signingKey })
  const input = { seq: 1_234_567, iat: 1_760_000_000, contentFormat: 112, plaintext: utf8('a reading') }
  return { seed, signingKey, scope, K, sealer, input, aad: externalAad(scope.device, scope.path) }
}

function expect(answer: Answer, payload: Uint8Array): Verdict {
  return { ok: answer.payload === toHex(payload), detail: answer.error ?? 'the payload differs' }
}

interface CoseCell {
  readonly title: string
  run(ask: Ask): Promise<Verdict>
}

/** A message with one bit changed must be refused by whoever checks it. */
function bent(message: Uint8Array): Uint8Array {
  const out = Uint8Array.from(message)
  const at = out.length - 3
  out[at] = out[at]! ^ 1
  return out
}

async function accepted(ask: Ask, op: string, message: Uint8Array, rest: Record<string, Uint8Array>): Promise<Verdict> {
  const good = await ask({ op, message, ...rest })
  if (good.error !== undefined) return { ok: false, detail: good.error }
  const bad = await ask({ op, message: bent(message), ...rest })
  return { ok: bad.error !== undefined, detail: 'a changed octet was accepted' }
}

const CELLS: readonly CoseCell[] = [
  {
    title: 'signed object (COSE_Sign1) verifies',
    run: async (ask) => {
      const { sealer, input, signingKey, aad } = fixture(24)
      return await accepted(ask, 'sign1', sealer.seal(input).signed, { aad, key: signingKey.publicKey })
    },
  },
  ...ALGORITHMS.map(([algorithm, name]) => ({
    title: `object opens (COSE_Encrypt0, ${name})`,
    run: async (ask: Ask) => {
      const { sealer, input, scope, K, aad } = fixture(algorithm)
      const { contentKey, baseIv } = deriveObjectKeys(suite, K, scope)
      const nonce = nonceOf(baseIv, partialIv(input.seq))
      if (nonce.length !== AEAD[algorithm].nonceLength) return { ok: false, detail: 'the nonce has another length' }
      const command = { op: 'encrypt0', message: sealer.encrypt(input), aad, key: contentKey, nonce }
      return expect(await ask(command), input.plaintext)
    },
  })),
  {
    title: 'mac-object (COSE_Mac0) verifies',
    run: async (ask) => {
      const { sealer, input, scope, K, aad } = fixture(10)
      const key = deriveObjectKeys(suite, K, scope).integrityKey
      return await accepted(ask, 'mac0', sealer.mac(sealer.encrypt(input)), { aad, key })
    },
  },
  {
    title: 'session broadcast verifies',
    run: async (ask) => {
      const { signingKey } = fixture(24)
      const payload = encodeBroadcast({
        gid: toGid(suite.randomBytes(8)),
        epoch: 3,
        session: 9,
        nbf: 1_760_000_000,
        exp: 1_760_000_900,
        depth: 8,
        kcv: suite.randomBytes(8),
        cohorts: [{ start: 7, cover: suite.randomBytes(24), heal: suite.randomBytes(48) }],
      })
      const message = signBroadcast(suite, payload, signingKey)
      return await accepted(ask, 'sign1', message, { aad: BROADCAST_AAD, key: signingKey.publicKey })
    },
  },
  {
    title: 'device credential verifies',
    run: async (ask) => {
      const { signingKey } = fixture(24)
      const tagged = issueCredential(
        suite,
        {
          issuer: 'keys.example',
          subject: `0x${'ab'.repeat(20)}`,
          iat: 1_760_000_000,
          exp: 1_760_100_000,
          publicKey: suite.ed25519.signing(suite.ed25519.generate()).publicKey,
          groups: new Map([['0011223344556677', [{ sid: Uint8Array.of(1), from: 1_760_000_000 }]]]),
        },
        signingKey,
      )
      // the CWT tag 61 around it is d8 3d
      const message = tagged.subarray(2)
      return await accepted(ask, 'sign1', message, { aad: utf8('iotchain-cred-1'), key: signingKey.publicKey })
    },
  },
  {
    title: 'an object that they sign is verified by us',
    run: async (ask) => {
      const { sealer, input, signingKey, seed, scope, aad } = fixture(24)
      const payload = sealer.encrypt(input)
      const made = await ask({ op: 'make', payload, aad, seed, kid: kidOf(suite, signingKey.publicKey) })
      if (made.message === undefined) return { ok: false, detail: made.error ?? 'nothing was made' }
      const header = verifySignedWith(suite, fromHex(made.message), {
        device: scope.device,
        path: scope.path,
        verifyKey: suite.ed25519.verifying(signingKey.publicKey),
      })
      return { ok: header.seq === input.seq, detail: 'another seq' }
    },
  },
]

/** What a library is known not to have: it must say so itself. */
const LACKS: readonly { peer: CosePeerName; cell: RegExp; said: RegExp; why: string }[] = [
  { peer: 'pycose', cell: /ChaCha20/, said: /ChaCha|24|nknown|upported/, why: 'pycose has no ChaCha20-Poly1305' },
]

async function runPeer(name: CosePeerName, onResult: (result: Omit<Result, 'table'>) => void): Promise<void> {
  const program = new PeerProcess(await findCosePeer(name))
  const ask: Ask = async (command) => {
    const plain = Object.entries(command).map(([key, value]) => [key, typeof value === 'string' ? value : toHex(value)])
    program.write(`${JSON.stringify(Object.fromEntries(plain))}\n`)
    const line = await program.line(20_000)
    return line === undefined ? { error: program.stderr.trim().slice(-200) } : (JSON.parse(line) as Answer)
  }
  try {
    for (const { title, run } of CELLS) {
      const verdict = await run(ask).catch((error: Error): Verdict => ({ ok: false, detail: error.message }))
      const lack = LACKS.find((each) => each.peer === name && each.cell.test(title) && each.said.test(verdict.detail))
      const status = verdict.ok ? 'ok' : lack === undefined ? 'failed' : 'peer'
      onResult({
        cell: title,
        peer: name,
        status,
        detail: status === 'ok' ? 'checked' : status === 'peer' ? lack!.why : verdict.detail,
      })
    }
  } finally {
    await program.stop()
  }
}

export async function runCoseMatrix(options: MatrixOptions): Promise<void> {
  const table = 'COSE: third-party libraries'
  for (const name of Object.keys(COSE_PEERS) as CosePeerName[]) {
    if (!(options.peers?.includes(name) ?? true)) continue
    try {
      await runPeer(name, (result) => options.onResult({ table, ...result }))
      options.onPeer(name, COSE_PEERS[name].version)
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      for (const { title } of CELLS) options.onResult({ table, cell: title, peer: name, status: 'skipped', detail })
    }
  }
}
