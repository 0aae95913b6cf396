/** Who seals and opens in the objects bench: this product with either suite, and libcrypto from C. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { coseStructure } from '../protocol/cose/headers.ts'
import type { CryptoSuite, SigningKey } from '../protocol/crypto/suite.ts'
import { addressHex } from '../protocol/messages/address.ts'
import { externalAad } from '../protocol/objects/aad.ts'
import { type Credential, issueCredential, verifyCredential } from '../protocol/objects/credential.ts'
import { ObjectOpener } from '../protocol/objects/open.ts'
import { parseSigned } from '../protocol/objects/parse.ts'
import { createSealer, type SealInput } from '../protocol/objects/seal.ts'
import { encodeSenml } from '../protocol/objects/senml.ts'
import { verifySigned } from '../protocol/objects/verify.ts'

/** CPU seconds of `iterations` operations. */
export type Timed = (iterations: number) => number

export interface ObjectContender {
  readonly seal: Timed
  readonly open: Timed
}

const device = new Uint8Array(20).fill(0xd0)
const path = ['s', 'temp']
/** 29 octets: name, unit, time and value of a reading. */
export const READING = encodeSenml([{ n: 'temperature', u: 'Cel', t: 12, v: 21.46 }])
const IAT = 1_800_000_000
/** Five octets, as at today's dates. */
export const FIRST_SEQ = (IAT - 1_704_067_200) * 256

export function cpu(run: () => void): number {
  const before = process.cpuUsage()
  run()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

export function scopeOf(suite: CryptoSuite, at: readonly string[] = path) {
  return {
    K: new Uint8Array(16).fill(1),
    gid: new Uint8Array(8).fill(2),
    session: 1000,
    device,
    sid: Uint8Array.of(1),
    path: at,
    algorithm: 24 as const,
    signingKey: suite.ed25519.signing(new Uint8Array(32).fill(3)),
  }
}

/** What a client holds of the device: its credential, verified before. */
function credentialOf(suite: CryptoSuite, deviceKey: SigningKey): Credential {
  const kdcKey = suite.ed25519.signing(new Uint8Array(32).fill(4))
  const claims = {
    issuer: 'bench',
    subject: addressHex(device),
    iat: IAT - 3600,
    exp: IAT + 3600,
    publicKey: deviceKey.publicKey,
    groups: new Map([['0202020202020202', [{ sid: Uint8Array.of(1), from: IAT - 3600 }]]]),
  }
  const bytes = issueCredential(suite, claims, kdcKey)
  return verifyCredential(suite, bytes, { key: suite.ed25519.verifying(kdcKey.publicKey) })
}

/** Seals with one sealer, opens with one opener: keys are derived once per session and resource, as in the product. */
export function productContender(suite: CryptoSuite): ObjectContender {
  const scope = scopeOf(suite)
  const sealer = createSealer(suite, scope)
  const input = (n: number): SealInput => ({ seq: FIRST_SEQ + n, iat: IAT, contentFormat: 112, plaintext: READING })
  const objects = Array.from({ length: 64 }, (_, n) => sealer.seal(input(n)).signed)
  const credentials = [credentialOf(suite, scope.signingKey)]
  const opener = new ObjectOpener(suite, () => scope.K)
  return {
    seal: (iterations) =>
      cpu(() => {
        for (let n = 0; n < iterations; n++) sealer.seal(input(n))
      }),
    open: (iterations) =>
      cpu(() => {
        for (let n = 0; n < iterations; n++) {
          const { parsed } = verifySigned(objects[n & 63] as Uint8Array, { device, path, credentials })
          opener.open(parsed, device, path)
        }
      }),
  }
}

/** Octets that the product authenticates and signs for one reading: the same work for C. */
export function workload(suite: CryptoSuite): { plaintext: number; aad: number; signed: number } {
  const parsed = parseSigned(
    createSealer(suite, scopeOf(suite)).seal({ seq: FIRST_SEQ, iat: IAT, contentFormat: 112, plaintext: READING })
      .signed,
  )
  const aad = externalAad(device, path)
  return {
    plaintext: READING.length,
    aad: coseStructure('Encrypt0', parsed.protectedBytes, aad).length,
    signed: coseStructure('Signature1', parsed.outer, aad, parsed.encrypt0).length,
  }
}

/** Compiles the C loop; a sentence instead if that cannot be done here. */
export function libcryptoContender(suite: CryptoSuite): (ObjectContender & { dispose(): void }) | string {
  const source = ['bench', '../../bench', '.']
    .map((folder) => join(folder === 'bench' ? '' : import.meta.dirname, folder, 'objects-libcrypto.c'))
    .find((file) => existsSync(file))
  if (source === undefined) return 'its source is not here'
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-bench-'))
  const dispose = (): void => rmSync(folder, { recursive: true, force: true })
  const binary = join(folder, 'objects-libcrypto')
  const compiled = spawnSync('cc', ['-O2', '-o', binary, source, '-lcrypto'], { encoding: 'utf8' })
  if (compiled.status !== 0) {
    dispose()
    const reason = compiled.error?.message ?? compiled.stderr.split('\n')[0] ?? 'cc failed'
    return `it does not compile (apt install gcc libc6-dev libssl-dev): ${reason}`
  }
  const { plaintext, aad, signed } = workload(suite)
  const run =
    (what: string): Timed =>
    (iterations) => {
      const done = spawnSync(binary, [what, iterations, plaintext, aad, signed].map(String), { encoding: 'utf8' })
      if (done.status !== 0) throw new Error(`the C loop failed: ${done.stderr}`)
      return Number(done.stdout)
    }
  return { seal: run('seal'), open: run('open'), dispose }
}
