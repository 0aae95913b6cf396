import { copyOf, fromHex, toHex } from '../bytes.ts'
import { encodeCbor } from '../cbor.ts'
import type { CryptoSuite } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'

declare const gidBrand: unique symbol
/** Group identifier: 8 octets that stand for one (chain, registry, device, claims bit). */
export type Gid = Uint8Array & { readonly [gidBrand]: true }

/** @throws `group/bad-gid` unless it is 8 octets long */
export function toGid(bytes: Uint8Array): Gid {
  if (bytes.length !== 8) throw new IotchainError('group/bad-gid', 'a group identifier has 8 octets')
  return bytes as Gid
}

/** The group's name in URIs: 16 lower-case hex digits. */
export function gname(gid: Uint8Array): string {
  return toHex(toGid(gid))
}

/** @throws `group/bad-gid` */
export function parseGname(name: string): Gid {
  if (!/^[0-9a-f]{16}$/.test(name)) {
    throw new IotchainError('group/bad-gid', 'a group name is 16 lower-case hex digits')
  }
  return fromHex(name) as Gid
}

export interface GroupIdentity {
  chainId: number | bigint
  /** Address of the DeviceRegistry contract, 20 octets. */
  registry: Uint8Array
  /** Address of the device, 20 octets. */
  device: Uint8Array
  /** Claims bit, 0 to 31. */
  bit: number
}

/** The identifier of the group that a claims bit of a device names (protocol.md §3.1). */
export function gidOf(suite: CryptoSuite, identity: GroupIdentity): Gid {
  const { chainId, registry, device, bit } = identity
  if (registry.length !== 20 || device.length !== 20) {
    throw new IotchainError('group/bad-gid', 'an address has 20 octets')
  }
  if (!Number.isInteger(bit) || bit < 0 || bit > 31) {
    throw new IotchainError('group/bad-gid', 'a claims bit is 0 to 31')
  }
  if (BigInt(chainId) < 0n) throw new IotchainError('group/bad-gid', 'a chain id is not negative')
  const digest = suite.sha256(encodeCbor(['iotc1 gid', chainId, registry, device, bit]))
  return copyOf(digest, 0, 8) as Gid
}

/** Member identifier of a client: 0x01 and its 20-octet address. */
export function clientMemberId(address: Uint8Array): Uint8Array {
  return memberId(0x01, address)
}

/** Member identifier of a device: 0x02 and its 20-octet address. */
export function deviceMemberId(address: Uint8Array): Uint8Array {
  return memberId(0x02, address)
}

function memberId(kind: number, address: Uint8Array): Uint8Array {
  if (address.length !== 20) throw new IotchainError('group/bad-member', 'an address has 20 octets')
  const id = new Uint8Array(21)
  id[0] = kind
  id.set(address, 1)
  return id
}
