#!/usr/bin/env node
/** `iotchain`: the command of clients (request, read, watch, wallet …) and of resource owners (owner …). */
import { registerCommand } from './commands/command.ts'
import { registerDiscover } from './commands/discover.ts'
import { registerInit } from './commands/init.ts'
import { registerMack } from './commands/mack.ts'
import { registerRead } from './commands/read.ts'
import { registerRequest } from './commands/request.ts'
import { registerWallet } from './commands/wallet.ts'
import { registerWatch } from './commands/watch.ts'
import { createProgram, runProgram } from './terminal/command.ts'
import { version } from './terminal/version.ts'

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
if (process.argv.includes('owner')) (await import('./commands/owner.ts')).registerOwnerCommands(program)
else program.command('owner').description('own devices: keys, contracts, registrations, grants')

await runProgram(program, process.argv)
