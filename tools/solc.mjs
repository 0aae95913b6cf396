#!/usr/bin/env node
// @ts-check
// The npm package solc (pure WebAssembly) behind the few switches of the native compiler that forge and slither
// use: --version, and --standard-json on standard input. Sources come inside the input, never from a path.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const solc = createRequire(import.meta.url)('solc')

if (process.argv.includes('--version')) {
  const version = solc.version().replace('.Emscripten.clang', '.Linux.g++')
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`)
} else if (process.argv.includes('--standard-json')) {
  process.stdout.write(solc.compile(readFileSync(0, 'utf8')))
} else {
  process.stderr.write('usage: solc.mjs --version | --standard-json < input.json\n')
  process.exitCode = 1
}
