#!/usr/bin/env node
/** `iotchain`: the command of clients (request, read, watch, wallet …) and of resource owners (owner …). */
import { createIotchain } from './program.ts'
import { runProgram } from './terminal/command.ts'

process.exitCode = await runProgram(await createIotchain(process.argv), process.argv)
