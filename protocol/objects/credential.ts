/**
 * Credentials: how a kid comes to stand for a device (or, in a command group, for a client). A CWT signed by the key
 * server (protocol.md §4.5, RFC 8392, proof-of-possession key as in RFC 8747).
 */
import { copyOf, utf8 } from '../bytes.ts'
import { type CborMap, type CborValue, decodeCbor, encodeCbor, Tagged } from '../cbor.ts'
import { ALG, COSE_TAG, encodeProtected, HEADER } from '../cose/headers.ts'
import { coseKeyMapEd25519, kidOf, publicKeyOf } from '../cose/key.ts'
import { decodeSign1, sign1, verifySign1 } from '../cose/sign1.ts'
import type { CryptoSuite, SigningKey, VerifyKey } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'
import { gname } from '../groups/gid.ts'
import { type Address, addressBytes, addressHex } from '../messages/address.ts'

const AAD = utf8('iotchain-cred-1')
const CLAIM = { iss: 1, sub: 2, exp: 4, iat: 6, cnf: 8, groups: -70001, role: -70002 } as const
const DEVICE = 'urn:iotchain:device:'
const CLIENT = 'urn:iotchain:client:'

/** The longest life of a credential. */
export const CREDENTIAL_SECONDS = 48 * 3600
/** Groups in one credential and Sender IDs in one group, at most. */
export const CREDENTIAL_GROUPS = 32
export const CREDENTIAL_SIDS = 1024

/** A Sender ID and the time, Unix seconds, from which on it stands for the subject. */
export interface SidGrant {
  readonly sid: Uint8Array
  readonly from: number
}

export interface CredentialClaims {
  /** Name of the key server that issues it. */
  readonly issuer: string
  /** Address of the device, or of the client that may send commands. */
  readonly subject: Address
  /** `w`: the subject is a client that may write to the group (a command sender). */
  readonly role?: 'w' | undefined
  readonly iat: number
  readonly exp: number
  /** Ed25519, 32 octets. */
  readonly publicKey: Uint8Array
  /** gid in hex → Sender IDs in order of issue. */
  readonly groups: ReadonlyMap<string, readonly SidGrant[]>
}

/** A credential whose signature checked. */
export interface Credential extends CredentialClaims {
  /** kid of `publicKey`. */
  readonly kid: Uint8Array
  /** The subject's address as octets. */
  readonly address: Uint8Array
  /** The signed octets, to be passed on. */
  readonly bytes: Uint8Array
  /** Handle of the subject's public key. */
  readonly verifyKey: VerifyKey
}

/**
 * @param key the key server's broadcast key
 * @throws `credential/bad-claims` for claims that no receiver would take
 */
export function issueCredential(suite: CryptoSuite, claims: CredentialClaims, key: SigningKey): Uint8Array {
  if (claims.exp <= claims.iat || claims.exp - claims.iat > CREDENTIAL_SECONDS) {
    throw new IotchainError('credential/bad-claims', 'a credential lives at most 48 hours')
  }
  const groups: CborMap = new Map()
  for (const [name, grants] of claims.groups) {
    if (grants.length === 0 || grants.length > CREDENTIAL_SIDS) {
      throw new IotchainError('credential/bad-claims', 'a credential names 1 to 1024 Sender IDs in each group')
    }
    const gid = parseHexGid(name)
    groups.set(
      gid,
      grants.map((g) => [g.sid, g.from]),
    )
  }
  if (groups.size > CREDENTIAL_GROUPS) {
    throw new IotchainError('credential/bad-claims', 'a credential names at most 32 groups')
  }
  const map = new Map<number, CborValue>([
    [CLAIM.iss, claims.issuer],
    [CLAIM.sub, `${claims.role === 'w' ? CLIENT : DEVICE}${addressHex(addressBytes(claims.subject))}`],
    [CLAIM.exp, claims.exp],
    [CLAIM.iat, claims.iat],
    [CLAIM.cnf, new Map([[1, coseKeyMapEd25519(claims.publicKey)]])],
    [CLAIM.groups, groups],
  ])
  if (claims.role !== undefined) map.set(CLAIM.role, claims.role)
  const header = encodeProtected(
    new Map<number, number | Uint8Array>([
      [HEADER.alg, ALG.eddsa],
      [HEADER.kid, kidOf(suite, key.publicKey)],
    ]),
  )
  const cwt = sign1(header, encodeCbor(map), AAD, key)
  const out = new Uint8Array(cwt.length + 2)
  out.set([0xd8, COSE_TAG.cwt])
  out.set(cwt, 2)
  return out
}

export interface VerifyCredentialOptions {
  /** The key server's key, pinned. */
  readonly key: VerifyKey
  /** Present time in Unix seconds; given, a credential that expired or is from the future is refused. */
  readonly now?: number | undefined
  /** Also take alg −19 (RFC 9864). */
  readonly acceptEd25519?: boolean | undefined
}

/**
 * @throws `credential/malformed`, `credential/unknown-issuer` (another kid), `credential/bad-signature`,
 * `credential/expired`, `credential/not-yet`
 */
export function verifyCredential(suite: CryptoSuite, bytes: Uint8Array, options: VerifyCredentialOptions): Credential {
  const value = guarded(() => decodeCbor(bytes))
  if (!(value instanceof Tagged) || value.tag !== COSE_TAG.cwt || !(value.value instanceof Tagged)) {
    throw malformed('not a tagged CWT')
  }
  const inner = value.value
  const message = guarded(() => decodeSign1(inner))
  const alg = message.protectedHeader.get(HEADER.alg)
  const kid = message.protectedHeader.get(HEADER.kid)
  const known = alg === ALG.eddsa || (alg === ALG.ed25519 && options.acceptEd25519 === true)
  if (message.unprotected.size > 0 || message.protectedHeader.size !== 2 || !known || !(kid instanceof Uint8Array)) {
    throw malformed('its header is not the one used here')
  }
  const pinned = kidOf(suite, options.key.publicKey)
  if (kid.length !== 8 || kid.some((octet, i) => octet !== pinned[i])) {
    throw new IotchainError('credential/unknown-issuer', 'the credential is signed by another key than the pinned one')
  }
  if (!verifySign1(message, AAD, options.key)) {
    throw new IotchainError('credential/bad-signature', 'the signature of the credential does not check')
  }
  const claims = decodeClaims(guarded(() => decodeCbor(message.payload)))
  if (options.now !== undefined && claims.exp <= options.now) {
    throw new IotchainError('credential/expired', 'the credential has expired', {
      hint: 'fetch the current credentials from the key server',
    })
  }
  if (options.now !== undefined && claims.iat > options.now + 60) {
    throw new IotchainError('credential/not-yet', 'the credential was issued in the future', {
      hint: 'check the clock of this machine',
    })
  }
  return {
    ...claims,
    kid: kidOf(suite, claims.publicKey),
    address: addressBytes(claims.subject),
    bytes: copyOf(bytes),
    verifyKey: suite.ed25519.verifying(claims.publicKey),
  }
}

function decodeClaims(value: CborValue): CredentialClaims {
  if (!(value instanceof Map)) throw malformed('its claims are no map')
  const labels: readonly unknown[] = Object.values(CLAIM)
  for (const label of value.keys()) if (!labels.includes(label)) throw malformed('a claim that is not used here')
  const issuer = value.get(CLAIM.iss)
  const sub = value.get(CLAIM.sub)
  const role = value.get(CLAIM.role)
  if (typeof issuer !== 'string' || typeof sub !== 'string') throw malformed('its issuer or subject is no text')
  if (role !== undefined && role !== 'w') throw malformed('a role that is not used here')
  const prefix = role === 'w' ? CLIENT : DEVICE
  if (!sub.startsWith(prefix) || !/^0x[0-9a-f]{40}$/.test(sub.slice(prefix.length))) throw malformed('its subject')
  const iat = seconds(value.get(CLAIM.iat))
  const exp = seconds(value.get(CLAIM.exp))
  if (exp <= iat || exp - iat > CREDENTIAL_SECONDS) throw malformed('its life is not within 48 hours')
  const confirmation = value.get(CLAIM.cnf)
  const key = confirmation instanceof Map && confirmation.size === 1 ? confirmation.get(1) : undefined
  if (!(key instanceof Map)) throw malformed('it confirms no key')
  const publicKey = guarded(() => publicKeyOf(key))
  return {
    issuer,
    subject: sub.slice(prefix.length) as Address,
    role,
    iat,
    exp,
    publicKey,
    groups: decodeGroups(value.get(CLAIM.groups)),
  }
}

function decodeGroups(value: CborValue | undefined): Map<string, SidGrant[]> {
  if (!(value instanceof Map) || value.size === 0 || value.size > CREDENTIAL_GROUPS) throw malformed('its groups')
  const groups = new Map<string, SidGrant[]>()
  for (const [gid, list] of value) {
    if (!(gid instanceof Uint8Array) || gid.length !== 8) throw malformed('a group identifier')
    if (!Array.isArray(list) || list.length === 0 || list.length > CREDENTIAL_SIDS) throw malformed('its Sender IDs')
    const grants = list.map((grant): SidGrant => {
      const [sid, from] = Array.isArray(grant) && grant.length === 2 ? grant : []
      if (!(sid instanceof Uint8Array) || sid.length < 1 || sid.length > 7) throw malformed('a Sender ID')
      return { sid, from: seconds(from) }
    })
    groups.set(gname(gid), grants)
  }
  return groups
}

function seconds(value: CborValue | undefined): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw malformed('a time')
  return value
}

function parseHexGid(name: string): Uint8Array {
  if (!/^[0-9a-f]{16}$/.test(name)) throw new IotchainError('credential/bad-claims', 'a group name is 16 hex digits')
  return Uint8Array.from({ length: 8 }, (_, i) => Number.parseInt(name.slice(2 * i, 2 * i + 2), 16))
}

function guarded<T>(decoding: () => T): T {
  try {
    return decoding()
  } catch (cause) {
    throw malformed('it cannot be decoded', cause)
  }
}

function malformed(what: string, cause?: unknown): IotchainError {
  return new IotchainError('credential/malformed', `not a credential: ${what}`, { cause })
}
