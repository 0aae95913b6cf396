/** The program `iotchain`, put together: clients' commands, and owners' when they are asked for. */
import type { Command } from 'commander'
import { registerCommand } from './commands/command.ts'
import { registerDiscover } from './commands/discover.ts'
import { registerInit } from './commands/init.ts'
import { registerMack } from './commands/mack.ts'
import { registerRead } from './commands/read.ts'
import { registerRequest } from './commands/request.ts'
import { registerWallet } from './commands/wallet.ts'
import { registerWatch } from './commands/watch.ts'
import { createProgram } from './terminal/command.ts'
import { version } from './terminal/version.ts'

/** @param argv as in `process.argv` */
export async function createIotchain(argv: readonly string[]): Promise<Command> {
  const program = createProgram('iotchain', 'read sealed sensor data, and own devices that serve it', version())
  registerInit(program)
  registerWallet(program)
  registerRequest(program)
  registerRead(program)
  registerWatch(program)
  registerCommand(program)
  registerDiscover(program)
  registerMack(program)
  // What owners need (ethers, certificates) takes a moment to load: readers shall not wait for it.
  if (argv.includes('owner')) (await import('./commands/owner.ts')).registerOwnerCommands(program)
  else program.command('owner').description('own devices: keys, contracts, registrations, grants')
  return program
}
