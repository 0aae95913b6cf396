/** What a client shows for an offer beside computing and paying: a list that it is on, an attestation. */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Evidence } from '../../chain/evidence.ts'
import { fromHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { type Address, parseAddress } from '../../protocol/messages/address.ts'

/** The addresses of an allowlist, one a line; # begins a remark. */
export async function readAllowlist(file: string): Promise<Address[]> {
  const text = await textOf(file)
  return text
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '')
    .map(parseAddress)
}

/** @param from a file, or the URL of an issuer */
export async function readAttestation(from: string, client: Address): Promise<NonNullable<Evidence['attestation']>> {
  const text = isUrl(from) ? await fetchText(from, client) : await textOf(from)
  let value: Partial<Record<'issuer' | 'expiresAt' | 'signature', unknown>>
  try {
    value = JSON.parse(text) as typeof value
  } catch (cause) {
    throw new IotchainError('client/bad-attestation', 'the attestation is no JSON', { cause })
  }
  const { issuer, expiresAt, signature } = value
  if (typeof issuer !== 'string' || typeof expiresAt !== 'number' || typeof signature !== 'string') {
    throw new IotchainError('client/bad-attestation', 'the attestation lacks issuer, expiresAt or signature')
  }
  if (!/^(0x)?([0-9a-fA-F]{2}){1,4096}$/.test(signature) || !Number.isSafeInteger(expiresAt) || expiresAt < 0) {
    throw new IotchainError('client/bad-attestation', 'signature or expiresAt of the attestation make no sense', {
      hint: 'signature is hexadecimal, expiresAt in unix seconds',
    })
  }
  return { issuer: parseAddress(issuer), expiresAt, signature: fromHex(signature) }
}

const isUrl = (from: string): boolean => /^https?:\/\//.test(from)

/** As it can be found again from any folder. */
export function absolute(from: string): string {
  return isUrl(from) ? from : resolve(from)
}

async function textOf(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw new IotchainError('client/no-file', `${file} cannot be read`, { hint: 'check the path', cause })
  })
}

/** Octets of an attestation: two numbers and a signature. */
const MAX_ATTESTATION = 16_384

async function boundedText(response: Response): Promise<string> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of response.body ?? []) {
    length += part.length
    if (length > MAX_ATTESTATION) throw new Error('it is too long')
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

/** The issuer is asked for this client's attestation: GET with `?client=0x…`. */
async function fetchText(url: string, client: Address): Promise<string> {
  if (!URL.canParse(url)) {
    throw new IotchainError('client/bad-attestation', 'the address of the issuer is no URL', {
      hint: 'write it like https://issuer.example/attestation',
    })
  }
  const target = new URL(url)
  target.searchParams.set('client', client)
  try {
    const response = await fetch(target, { signal: AbortSignal.timeout(15_000) })
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`)
    return await boundedText(response)
  } catch (cause) {
    throw new IotchainError(
      'client/no-attestation',
      `the issuer at ${target.host} gave no attestation: ${(cause as Error).message}`,
      {
        hint: 'ask the issuer whether this address is known to it',
        cause,
      },
    )
  }
}
