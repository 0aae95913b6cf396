/**
 * Ethereum accounts: made, kept in encrypted keystore files (Web3 Secret Storage, as geth writes them), and signing.
 * A key leaves this module only encrypted.
 */
import { readFileSync, statSync } from 'node:fs'
import {
  decryptKeystoreJson,
  encryptKeystoreJson,
  isKeystoreJson,
  Signature,
  Transaction,
  type TypedDataField,
  Wallet,
} from 'ethers'
import { fromHex, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import { type Address, parseAddress } from '../protocol/messages/address.ts'
import {
  DOMAIN_NAME,
  DOMAIN_VERSION,
  type Domain,
  type FieldValue,
  type StructType,
  walletTypes,
} from '../protocol/messages/eip712.ts'
import type { Hex } from './types.ts'

/** What a transaction says, as it is signed. */
export interface UnsignedTransaction {
  readonly chainId: number
  readonly nonce: number
  readonly to: Address | null
  readonly data: Hex
  readonly value: bigint
  readonly gasLimit: bigint
  /** EIP-1559 fees; without them `gasPrice` is used (a chain before London). */
  readonly maxFeePerGas?: bigint | undefined
  readonly maxPriorityFeePerGas?: bigint | undefined
  readonly gasPrice?: bigint | undefined
}

/** What a signed transaction says. @param raw one that was signed here */
export function readTransaction(raw: Hex): UnsignedTransaction {
  const t = Transaction.from(raw)
  const fees =
    t.maxFeePerGas === null
      ? { gasPrice: t.gasPrice ?? 0n }
      : { maxFeePerGas: t.maxFeePerGas, maxPriorityFeePerGas: t.maxPriorityFeePerGas ?? 0n }
  return {
    chainId: Number(t.chainId),
    nonce: t.nonce,
    to: t.to === null ? null : (t.to.toLowerCase() as Address),
    data: t.data as Hex,
    value: t.value,
    gasLimit: t.gasLimit,
    ...fees,
  }
}

/** An account that can sign. */
export interface Account {
  readonly address: Address
  /** 65 octets r ‖ s ‖ v over a 32-octet digest; callers make the digest themselves (EIP-712). */
  signDigest(digest: Uint8Array): Uint8Array
  /** EIP-712 over one flat struct under the domain of IoTChain; 65 octets. */
  signStruct(domain: Domain, struct: StructType, values: Readonly<Record<string, FieldValue>>): Promise<Uint8Array>
  /** The raw transaction, ready to be sent. */
  signTransaction(transaction: UnsignedTransaction): Promise<Hex>
  /** The keystore file's text. `light` spends less on the password (devices, tests): scrypt N 2^12 instead of 2^17. */
  encrypt(password: string, light?: boolean): Promise<string>
}

export function createAccount(): Account {
  return accountOf(new Wallet(Wallet.createRandom().privateKey))
}

/** @param privateKey 0x and 64 hex digits @throws `wallet/bad-key` */
export function accountFromKey(privateKey: string): Account {
  try {
    const key = privateKey.trim()
    return accountOf(new Wallet(key.startsWith('0x') ? key : `0x${key}`))
  } catch {
    // ethers' own message would repeat the key
    throw new IotchainError('wallet/bad-key', 'that is no private key', {
      hint: 'A private key is 64 hexadecimal digits on the first line of the file.',
    })
  }
}

/** @throws `wallet/bad-keystore`, `wallet/wrong-password` */
export async function openKeystore(json: string, password: string): Promise<Account> {
  if (!isKeystoreJson(json)) {
    throw new IotchainError('wallet/bad-keystore', 'this is no Ethereum keystore file', {
      hint: 'It should be a JSON file as iotchain, geth or a wallet writes it, version 3.',
    })
  }
  try {
    const { privateKey } = await decryptKeystoreJson(json, password)
    return accountOf(new Wallet(privateKey))
  } catch (error) {
    if (/password/i.test(String((error as Error).message))) {
      throw new IotchainError('wallet/wrong-password', 'the password does not open this key', {
        hint: 'Try again; there is no way around a lost password.',
      })
    }
    throw new IotchainError('wallet/bad-keystore', 'this keystore file is damaged', { hint: 'Restore it from a copy.' })
  }
}

/** Opens a keystore file. @throws `wallet/no-file` and what `openKeystore` throws */
export async function loadKeystore(path: string, password: string): Promise<Account> {
  return openKeystore(readKeystore(path), password)
}

/** The address in a keystore file, without its password. @throws `wallet/no-file`, `wallet/bad-keystore` */
export function keystoreAddress(path: string): Address {
  try {
    const { address } = JSON.parse(readKeystore(path)) as { address?: string }
    return parseAddress(`0x${(address ?? '').replace(/^0x/, '').toLowerCase()}`)
  } catch (error) {
    if (error instanceof IotchainError && error.code === 'wallet/no-file') throw error
    throw new IotchainError('wallet/bad-keystore', `${path} is no Ethereum keystore file`, { cause: error })
  }
}

function readKeystore(path: string): string {
  try {
    if (statSync(path).size > 65_536) throw new Error('too large')
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new IotchainError('wallet/no-file', `cannot read the keystore file ${path}`, {
      hint: 'Check the path, or make a key with the init command.',
      cause,
    })
  }
}

function accountOf(wallet: Wallet): Account {
  const address = parseAddress(wallet.address.toLowerCase())
  return {
    address,
    signDigest: (digest) => fromHex(wallet.signingKey.sign(digest).serialized),
    signStruct: async (domain, struct, values) => {
      const types: Record<string, TypedDataField[]> = walletTypes(struct)
      const text = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, v instanceof Uint8Array ? hex(v) : v]))
      const signature = await wallet.signTypedData(
        {
          name: DOMAIN_NAME,
          version: DOMAIN_VERSION,
          chainId: domain.chainId,
          verifyingContract: hex(domain.registry),
        },
        types,
        text,
      )
      return fromHex(Signature.from(signature).serialized)
    },
    signTransaction: async (t) => {
      const fees =
        t.maxFeePerGas === undefined
          ? { type: 0, gasPrice: t.gasPrice ?? 0n }
          : { type: 2, maxFeePerGas: t.maxFeePerGas, maxPriorityFeePerGas: t.maxPriorityFeePerGas ?? 0n }
      const { chainId, nonce, to, data, value, gasLimit } = t
      return (await wallet.signTransaction({ chainId, nonce, to, data, value, gasLimit, ...fees })) as Hex
    },
    encrypt: (password, light = false) =>
      encryptKeystoreJson({ address: wallet.address, privateKey: wallet.privateKey }, password, {
        scrypt: { N: light ? 1 << 12 : 1 << 17, r: 8, p: 1 },
      }),
  }
}

const hex = (octets: Uint8Array): string => `0x${toHex(octets)}`
