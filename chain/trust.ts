/** Before a client pays or asks, and before a key server counts a contract's tokens: whose is it, and what is its code? */
import { IotchainError } from '../protocol/errors.ts'
import type { Address } from '../protocol/messages/address.ts'
import { accessTokenCode } from './bytecode.ts'
import { accessToken } from './contracts.ts'
import { ROLE_IDS } from './intents.ts'
import type { ChainReader } from './reader.ts'
import type { DeviceEntry, Head } from './types.ts'

/** True if the code at an address is the AccessToken of this release. */
export async function isOurContract(reader: ChainReader, contract: Address, head: Head): Promise<boolean> {
  return (await reader.codeHash(contract, head)) === accessTokenCode.codeHash
}

/**
 * Checks that a device stands in the registry, active, that its owner lists this contract and owns it, and that its
 * code is known.
 *
 * @throws `chain/no-device`, `chain/untrusted-contract`
 */
export async function checkPublisher(
  reader: ChainReader,
  device: Address,
  contract: Address,
  head: Head,
  allowContracts: readonly Address[] = [],
): Promise<DeviceEntry> {
  const entry = await reader.deviceOf(device, head)
  if (entry === undefined || !entry.active) {
    const what = entry === undefined ? 'is not registered' : 'has been deactivated'
    throw new IotchainError('chain/no-device', `device ${device} ${what}`, {
      hint: 'Check its address with the resource owner.',
    })
  }
  const distrust = (why: string): IotchainError =>
    new IotchainError('chain/untrusted-contract', `contract ${contract} ${why}`, {
      hint: 'A token of it would open nothing: ask the resource owner for the right address.',
    })
  if (!entry.contracts.includes(contract)) throw distrust(`is not among those that ${device} names in the registry`)
  if (allowContracts.includes(contract)) return entry
  if (!(await isOurContract(reader, contract, head))) throw distrust('has code that this release does not know')
  if (!(await reader.read(accessToken, contract, 'hasRole', [ROLE_IDS.owner, entry.owner], head))) {
    throw distrust(`does not belong to the owner of the device, ${entry.owner}`)
  }
  return entry
}
