/**
 * Verification of sealed objects (protocol.md §4.4, §4.5): by the proxy before it stores, by the client before it
 * opens, by a gateway that holds the integrity key alone.
 */
import { equalBytes } from '../bytes.ts'
import { coseStructure } from '../cose/headers.ts'
import { kidOf } from '../cose/key.ts'
import type { CryptoSuite, HmacKey, VerifyKey } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'
import { gname } from '../groups/gid.ts'
import { externalAad, type ResourcePath } from './aad.ts'
import type { Credential } from './credential.ts'
import type { ObjectHeader } from './header.ts'
import { type ParsedMac, type ParsedSigned, parseMac, parseSigned } from './parse.ts'

/** Clocks of devices may be off by this much, seconds (protocol.md §3.11). */
export const CLOCK_SKEW = 60

export interface VerifyOptions {
  /** The device that was asked for, 20 octets; for a command, the device that shall act. */
  readonly device: Uint8Array
  /** The path that was asked for, not one that came with the object. */
  readonly path: ResourcePath
  /** Who may have sealed it: the credentials known, of any subject. Objects are good if one covers their iat. */
  readonly credentials: readonly Credential[]
  /** Address of the sender, if it is not `device`: the client of a command. */
  readonly sender?: Uint8Array | undefined
  /** Other resources of the device, to tell a swapped object from a broken one. */
  readonly otherPaths?: readonly ResourcePath[] | undefined
  readonly acceptEd25519?: boolean | undefined
}

export interface VerifiedObject {
  readonly header: ObjectHeader
  readonly parsed: ParsedSigned
  /** The credential that covers the time of sealing. */
  readonly credential: Credential
}

/**
 * Verifies a signed object against the credentials of its device. Changes nothing.
 * @throws `object/malformed`, `object/too-large`, `object/unknown-signer` (no credential for its kid),
 * `object/wrong-device` (sealed and signed by another device), `object/re-signed` (the signer never was given this
 * Sender ID), `object/unknown-sid`, `object/not-covered` (no credential for its time), `object/swapped` (a good object
 * of another resource), `object/bad-signature`
 */
export function verifySigned(bytes: Uint8Array, options: VerifyOptions): VerifiedObject {
  const parsed = parseSigned(bytes, options)
  const credential = credentialFor(parsed, options)
  checkSignature(parsed, credential.verifyKey, options)
  return { header: parsed.header, parsed, credential }
}

/** Verifies a signed object under one key that is known to be the device's, without looking at credentials. */
export function verifySignedWith(
  suite: CryptoSuite,
  bytes: Uint8Array,
  options: Omit<VerifyOptions, 'credentials' | 'sender'> & { readonly verifyKey: VerifyKey },
): ObjectHeader {
  const parsed = parseSigned(bytes, options)
  if (!equalBytes(parsed.kid, kidOf(suite, options.verifyKey.publicKey))) throw unknownSigner()
  checkSignature(parsed, options.verifyKey, options)
  return parsed.header
}

/**
 * Verifies a mac-object with the integrity key. Proves that a member of the group (or a holder of the integrity key)
 * made it, not which one.
 * @throws `object/malformed`, `object/too-large`, `object/bad-mac`
 */
export function verifyMacObject(
  bytes: Uint8Array,
  options: { readonly device: Uint8Array; readonly path: ResourcePath; readonly integrityKey: HmacKey },
): ParsedMac {
  const parsed = parseMac(bytes)
  const aad = externalAad(options.device, options.path)
  const tag = options.integrityKey.mac(coseStructure('MAC0', parsed.outer, aad, parsed.encrypt0))
  if (!equalBytes(tag.subarray(0, 8), parsed.tag)) {
    throw new IotchainError('object/bad-mac', 'the object was not made with the integrity key, or was changed')
  }
  return parsed
}

/** Whether a credential was good at a time, Unix seconds; clocks may be off a little. */
export function coversTime(credential: Pick<Credential, 'iat' | 'exp'>, at: number): boolean {
  return credential.iat - CLOCK_SKEW <= at && at <= credential.exp
}

function credentialFor(parsed: ParsedSigned, options: VerifyOptions): Credential {
  const { header } = parsed
  const sender = options.sender ?? options.device
  const signers = options.credentials.filter((c) => equalBytes(c.kid, parsed.kid))
  if (signers.length === 0) throw unknownSigner()
  const name = gname(header.gid)
  const lists = (c: Credential): boolean => (c.groups.get(name) ?? []).some((g) => equalBytes(g.sid, header.sid))
  const listed = signers.filter(lists)
  const own = listed.filter((c) => equalBytes(c.address, sender))
  if (own.length === 0) {
    if (listed.length > 0) {
      throw new IotchainError('object/wrong-device', 'the object is of another device than the one asked for')
    }
    if (signers.some((c) => equalBytes(c.address, sender))) {
      throw new IotchainError('object/unknown-sid', 'the credential does not list the Sender ID of the object', {
        hint: 'fetch the current credentials from the key server',
      })
    }
    throw new IotchainError('object/re-signed', 'somebody else than its sender signed the object')
  }
  const covering = own.find((c) => coversTime(c, header.iat))
  if (covering === undefined) {
    throw new IotchainError('object/not-covered', 'no credential covers the time at which the object was sealed', {
      hint: 'fetch the credentials of that time from the key server',
    })
  }
  return covering
}

function checkSignature(
  parsed: ParsedSigned,
  key: VerifyKey,
  options: Pick<VerifyOptions, 'device' | 'path' | 'otherPaths'>,
): void {
  const holds = (path: ResourcePath): boolean => {
    const structure = coseStructure('Signature1', parsed.outer, externalAad(options.device, path), parsed.encrypt0)
    return key.verify(structure, parsed.signature)
  }
  if (holds(options.path)) return
  if (options.otherPaths?.some(holds)) {
    throw new IotchainError('object/swapped', 'the object is of another resource than the one asked for')
  }
  throw new IotchainError('object/bad-signature', 'the signature does not check for this device and path')
}

function unknownSigner(): IotchainError {
  return new IotchainError('object/unknown-signer', 'there is no credential for the key that signed the object', {
    hint: 'fetch the current credentials from the key server',
  })
}
