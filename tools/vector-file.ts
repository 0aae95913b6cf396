/** The format of test/vectors/groups-and-objects.json, checked before anything is replayed. */
import { readFileSync } from 'node:fs'
import * as z from 'zod'
import { IotchainError } from '../protocol/errors.ts'

const hex = z.string().regex(/^([0-9a-f]{2})*$/)
const octets = (n: number) => z.string().regex(new RegExp(`^[0-9a-f]{${2 * n}}$`))
const whole = z.int().min(0)

const operation = z.union([
  z.tuple([z.literal('epoch')]),
  z.tuple([z.literal('join'), z.string(), z.int().min(1), whole.nullable()]),
  z.tuple([z.literal('leave'), z.string()]),
  z.tuple([z.literal('broadcast'), whole, whole]),
])

const scenario = z.object({
  seed: z.union([z.number(), z.string()]),
  root: octets(32),
  gid: octets(8),
  window: z.int().min(1),
  min_depth: z.int().min(1).max(18),
  kdc_ed25519_seed: octets(32),
  ops: z.array(operation),
  broadcasts: z.array(
    z.object({
      session: z.int().min(1),
      epoch: z.int().min(1),
      depth: z.int().min(1).max(18),
      payload: hex,
      sign1: hex,
      K: octets(16),
      opens_from: z.record(z.string(), z.int().min(1)),
    }),
  ),
  personal_keys: z.array(
    z.object({ epoch: whole, depth: z.int().min(1).max(18), leaf: whole, id: z.string(), start: whole, labels: hex }),
  ),
})

const negative = z.array(z.object({ name: z.string(), sign1: hex }))

const vectorFile = z.object({
  version: z.literal(1),
  derive: z.object({
    root: octets(32),
    gid: octets(8),
    epoch: z.int().min(1),
    EM: octets(32),
    label_all: octets(16),
    labels: z.array(z.object({ i: z.int().min(1), j: z.int().min(2), label: octets(16) })),
    session_keys: z.array(z.object({ j: whole, K: octets(16) })),
    time_nodes: z.array(z.object({ level: z.int().min(0).max(32), prefix: whole, node: octets(16) })),
  }),
  dyadic: z.array(z.object({ lo: whole, hi: whole, nodes: z.array(z.tuple([whole, whole])) })),
  cover: z.array(
    z.object({
      depth: z.int().min(1).max(18),
      live: z.array(whole),
      subsets: z.array(z.tuple([whole, whole])),
      packed: z.array(octets(3)),
    }),
  ),
  personal: z.array(
    z.object({
      depth: z.int().min(1).max(18),
      leaf: whole,
      labels: hex.optional(),
      labels_sha256: octets(32).optional(),
    }),
  ),
  scenarios: z.array(scenario),
  negative: z.object({
    scenario: z.union([z.number(), z.string()]),
    must_not_parse: negative,
    must_not_open: negative,
    must_not_verify: negative,
  }),
  objects: z.object({
    device_ed25519_seed: octets(32),
    kid: octets(8),
    cases: z.array(
      z.object({
        K: octets(16),
        gid: octets(8),
        session: z.int().min(1),
        device: octets(20),
        sid: hex,
        path: z.array(z.string()),
        alg: z.union([z.literal(24), z.literal(10), z.literal(1)]),
        seq: whole,
        iat: whole,
        content_format: whole,
        plaintext: hex,
        cek: hex,
        base_iv: hex,
        mac_key: octets(32),
        nonce: hex,
        external_aad: hex,
        encrypt0: hex,
        sign1: hex,
        mac0: hex,
      }),
    ),
  }),
})

export type VectorFile = z.infer<typeof vectorFile>
export type VectorScenario = VectorFile['scenarios'][number]
export type VectorObject = VectorFile['objects']['cases'][number]

/** @throws `config/bad-vectors` in one sentence for a file that is missing, no JSON or of another format */
export function readVectorFile(path: string): VectorFile {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new IotchainError('config/bad-vectors', `cannot read ${path}`, { cause })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new IotchainError('config/bad-vectors', `${path} is not JSON`, { cause })
  }
  return checkVectorFile(value, path)
}

/** @param name what to call it in the error @throws `config/bad-vectors` */
export function checkVectorFile(value: unknown, name: string): VectorFile {
  const result = vectorFile.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const where = issue === undefined || issue.path.length === 0 ? 'the top' : issue.path.join('.')
  throw new IotchainError('config/bad-vectors', `${name} is not a file of vectors: ${issue?.message} at ${where}`)
}
