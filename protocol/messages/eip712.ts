/**
 * Typed structured data of EIP-712 for the flat structs that IoTChain signs: static fields only, no nesting, no arrays.
 * Small enough for a device, which has no ethers; the digests equal those of any wallet.
 */
import { keccak_256 } from '@noble/hashes/sha3.js'
import { concat, fromHex, utf8 } from '../bytes.ts'
import { IotchainError } from '../errors.ts'

export type FieldType = 'address' | 'bytes4' | 'bytes32' | 'uint64' | 'uint256'

export interface StructField {
  readonly name: string
  readonly type: FieldType
}

/** A struct: its name and its fields in the order in which they are hashed. */
export interface StructType {
  readonly name: string
  readonly fields: readonly StructField[]
}

/** Octets (or 0x-hex) for address and bytesN, number or bigint for uintN. */
export type FieldValue = Uint8Array | string | number | bigint

/** The domain of all messages that a chain or a key server checks. */
export interface Domain {
  readonly chainId: number | bigint
  /** address of the DeviceRegistry, 20 octets */
  readonly registry: Uint8Array
}

export const DOMAIN_NAME = 'IoTChain'
export const DOMAIN_VERSION = '1'

const SIZE: Record<Exclude<FieldType, 'uint64' | 'uint256'>, number> = { address: 20, bytes4: 4, bytes32: 32 }

/** `Name(type name,…)` as EIP-712 hashes it. */
export function encodeType(struct: StructType): string {
  return `${struct.name}(${struct.fields.map((f) => `${f.type} ${f.name}`).join(',')})`
}

/** hashStruct of EIP-712. @throws `message/bad-typed-data` for a value that does not fit its type */
export function hashStruct(struct: StructType, values: Readonly<Record<string, FieldValue>>): Uint8Array {
  const words = struct.fields.map((f) => encodeField(f, values[f.name]))
  return keccak_256(concat(keccak_256(utf8(encodeType(struct))), ...words))
}

/** Domain of name and version only, for a device that does not know its chain yet. */
export function bareDomainSeparator(): Uint8Array {
  return keccak_256(
    concat(
      keccak_256(utf8('EIP712Domain(string name,string version)')),
      keccak_256(utf8(DOMAIN_NAME)),
      keccak_256(utf8(DOMAIN_VERSION)),
    ),
  )
}

/** Domain of a chain and its DeviceRegistry. @throws `message/bad-typed-data` */
export function domainSeparator(domain: Domain): Uint8Array {
  return keccak_256(
    concat(
      keccak_256(utf8('EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)')),
      keccak_256(utf8(DOMAIN_NAME)),
      keccak_256(utf8(DOMAIN_VERSION)),
      encodeField({ name: 'chainId', type: 'uint256' }, domain.chainId),
      encodeField({ name: 'verifyingContract', type: 'address' }, domain.registry),
    ),
  )
}

/** The 32 octets that are signed: keccak256(0x19 01 ‖ domain ‖ hashStruct). */
export function typedDigest(separator: Uint8Array, structHash: Uint8Array): Uint8Array {
  return keccak_256(concat(Uint8Array.of(0x19, 0x01), separator, structHash))
}

/** The `types` argument of a wallet's signTypedData (ethers, JSON-RPC) for one struct. */
export function walletTypes(struct: StructType): Record<string, { name: string; type: string }[]> {
  return { [struct.name]: struct.fields.map((f) => ({ name: f.name, type: f.type })) }
}

function encodeField(field: StructField, value: FieldValue | undefined): Uint8Array {
  const word = new Uint8Array(32)
  if (field.type === 'uint64' || field.type === 'uint256') {
    let rest = unsigned(field, value)
    for (let i = 31; rest > 0n; i--, rest >>= 8n) word[i] = Number(rest & 255n)
    return word
  }
  const octets = typeof value === 'string' ? fromHex(value) : value
  if (!(octets instanceof Uint8Array) || octets.length !== SIZE[field.type]) throw misfit(field)
  word.set(octets, field.type === 'address' ? 12 : 0)
  return word
}

function unsigned(field: StructField, value: FieldValue | undefined): bigint {
  if (typeof value !== 'bigint' && !(typeof value === 'number' && Number.isSafeInteger(value))) throw misfit(field)
  const integer = BigInt(value)
  if (integer < 0n || integer >> (field.type === 'uint64' ? 64n : 256n) !== 0n) throw misfit(field)
  return integer
}

function misfit(field: StructField): IotchainError {
  return new IotchainError('message/bad-typed-data', `field ${field.name} is no ${field.type}`)
}
