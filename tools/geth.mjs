#!/usr/bin/env node
// @ts-check
// Builds geth from the Go module proxy into the cache of foreign programs ($IOTCHAIN_PEERS, default
// ~/.cache/iotchain-peers), once for each version:
//   node tools/geth.mjs            1.17.8, the newest: reorg, finality and proof-of-stake suites
//   node tools/geth.mjs clique     1.13.15, the last that seals Clique
// Prints the path of the program. Without Go it says "skipped" and why, with exit code 0.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

const clique = process.argv.includes('clique')
const version = clique ? '1.13.15' : '1.17.8'
const given = process.env[clique ? 'GETH_CLIQUE' : 'GETH']
const cache = process.env['IOTCHAIN_PEERS'] || join(homedir(), '.cache', 'iotchain-peers')
const folder = join(cache, `geth-${version}`)
const geth = join(folder, 'geth')

if (given !== undefined && given !== '') {
  console.log(given)
} else if (existsSync(geth)) {
  console.log(geth)
} else if (spawnSync('go', ['version']).status !== 0) {
  console.log(`skipped: geth ${version} is not in ${folder}, and there is no Go to build it with`)
} else {
  console.error(`building geth ${version}: some minutes`)
  const building = join(cache, `geth-${version}.${process.pid}`)
  mkdirSync(building, { recursive: true })
  // 1.13.15 reaches into the runtime, which newer linkers refuse unless told otherwise
  const flags = clique ? ['-ldflags=-checklinkname=0'] : []
  const made = spawnSync('nice', ['go', 'install', ...flags, `github.com/ethereum/go-ethereum/cmd/geth@v${version}`], {
    env: { ...process.env, GOBIN: building, GOFLAGS: '-mod=mod', CGO_ENABLED: '1' },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (made.status === 0) {
    rmSync(folder, { recursive: true, force: true })
    // whole or not at all: another process may be looking
    renameSync(building, folder)
    console.log(geth)
  } else {
    rmSync(building, { recursive: true, force: true })
    console.log(`skipped: geth ${version} could not be built`)
    process.exitCode = 1
  }
}
