/**
 * The registration of a device in the DeviceRegistry: signed by the device's own key and naming its owner, so that
 * nobody registers another's device (chain of authorization, protocol.md "Registration").
 */
import { fromHex, toHex } from '../bytes.ts'
import { IotchainError } from '../errors.ts'
import { type Address, addressBytes, parseAddress } from './address.ts'
import { type Domain, domainSeparator, hashStruct, type StructType, typedDigest } from './eip712.ts'

export interface Registration {
  /** 20 octets */
  readonly device: Uint8Array
  /** 20 octets; must be msg.sender of `register` */
  readonly owner: Uint8Array
  /** RFC 9679 SHA-256 thumbprint of the object-signing COSE_Key */
  readonly signingKey: Uint8Array
  /** SHA-256 of the key server's SPKI */
  readonly keyServer: Uint8Array
  readonly nonce: number | bigint
  /** unix seconds */
  readonly deadline: number | bigint
}

export const REGISTRATION: StructType = {
  name: 'Registration',
  fields: [
    { name: 'device', type: 'address' },
    { name: 'owner', type: 'address' },
    { name: 'signingKey', type: 'bytes32' },
    { name: 'keyServer', type: 'bytes32' },
    { name: 'nonce', type: 'uint256' },
    { name: 'deadline', type: 'uint256' },
  ],
}

/** 32 octets that the device signs. @throws `message/bad-typed-data` */
export function registrationDigest(domain: Domain, registration: Registration): Uint8Array {
  return typedDigest(domainSeparator(domain), hashStruct(REGISTRATION, { ...registration }))
}

/** What a device prints (text and QR) and its owner submits. */
export interface RegistrationTicket {
  readonly device: Address
  readonly owner: Address
  /** 32 octets */
  readonly signingKey: Uint8Array
  /** 32 octets */
  readonly keyServer: Uint8Array
  readonly uri: string
  readonly nonce: number
  /** unix seconds */
  readonly deadline: number
  /** 65 octets r ‖ s ‖ v */
  readonly deviceSig: Uint8Array
}

const TICKET_KEYS = ['device', 'owner', 'signingKey', 'keyServer', 'uri', 'nonce', 'deadline', 'deviceSig']

/** One line of JSON: `{"device":"0x…","owner":"0x…","signingKey":"0x…","keyServer":"0x…","uri":…,"nonce":0,"deadline":…,"deviceSig":"0x…"}`. */
export function encodeRegistrationTicket(ticket: RegistrationTicket): string {
  return JSON.stringify({
    device: ticket.device,
    owner: ticket.owner,
    signingKey: `0x${toHex(ticket.signingKey)}`,
    keyServer: `0x${toHex(ticket.keyServer)}`,
    uri: ticket.uri,
    nonce: ticket.nonce,
    deadline: ticket.deadline,
    deviceSig: `0x${toHex(ticket.deviceSig)}`,
  })
}

/** @throws `message/bad-registration` */
export function decodeRegistrationTicket(text: string): RegistrationTicket {
  if (text.length > 4096) throw bad('it is longer than 4096 characters')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw bad('it is no JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('it is no JSON object')
  const o = value as Record<string, unknown>
  const unknown = Object.keys(o).find((k) => !TICKET_KEYS.includes(k))
  if (unknown !== undefined) throw bad('it has an entry that a registration does not have')
  const uri = o['uri']
  if (typeof uri !== 'string' || uri.length > 256) throw bad('uri must be text of at most 256 characters')
  return {
    device: address(o, 'device'),
    owner: address(o, 'owner'),
    signingKey: hex(o, 'signingKey', 32),
    keyServer: hex(o, 'keyServer', 32),
    uri,
    nonce: integer(o, 'nonce'),
    deadline: integer(o, 'deadline'),
    deviceSig: hex(o, 'deviceSig', 65),
  }
}

/** The registration that a ticket's signature covers. */
export function registrationOf(ticket: RegistrationTicket): Registration {
  const { signingKey, keyServer, nonce, deadline } = ticket
  return {
    device: addressBytes(ticket.device),
    owner: addressBytes(ticket.owner),
    signingKey,
    keyServer,
    nonce,
    deadline,
  }
}

function address(o: Record<string, unknown>, key: string): Address {
  const value = o[key]
  if (typeof value !== 'string') throw bad(`${key} must be an address`)
  try {
    return parseAddress(value)
  } catch (cause) {
    throw bad(`${key} must be an address`, cause)
  }
}

function hex(o: Record<string, unknown>, key: string, size: number): Uint8Array {
  const value = o[key]
  if (typeof value !== 'string' || !new RegExp(`^0x[0-9a-fA-F]{${2 * size}}$`).test(value)) {
    throw bad(`${key} must be 0x and ${2 * size} hexadecimal digits`)
  }
  return fromHex(value)
}

function integer(o: Record<string, unknown>, key: string): number {
  const value = o[key]
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw bad(`${key} must be an unsigned integer`)
  }
  return value
}

function bad(why: string, cause?: unknown): IotchainError {
  return new IotchainError('message/bad-registration', `this is no device registration: ${why}`, {
    hint: 'pass the line that `iotchain-device registration` prints, unchanged',
    cause,
  })
}
