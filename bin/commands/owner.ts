/** `iotchain owner …`: everything that a resource owner does. */
import type { Command } from 'commander'
import { registerDeploy, registerDescriptor, registerDevices, registerOffer } from './owner-chain.ts'
import { registerGrants, registerLooks } from './owner-grants.ts'
import { registerAddress, registerCa, registerInit } from './owner-init.ts'

export function registerOwnerCommands(program: Command): void {
  const owner = program.command('owner').description('own devices: keys, contracts, registrations, grants')
  registerInit(owner)
  registerAddress(owner)
  registerCa(owner)
  registerDeploy(owner)
  registerDescriptor(owner)
  registerOffer(owner)
  registerDevices(owner)
  registerGrants(owner)
  registerLooks(owner)
}
