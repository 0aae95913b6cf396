#!/usr/bin/env node
// @ts-check
// Installs Lodestar, the consensus client, from this folder's lockfile into the cache of foreign programs
// ($IOTCHAIN_PEERS, default ~/.cache/iotchain-peers), once for each state of the lockfile; prints where it is.
// It is a program of its own beside the product, never a dependency of it: no install script of it runs.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const HERE = dirname(fileURLToPath(import.meta.url))
/** What the installation is made of; a change of any is another installation. */
const PARTS = ['package.json', 'package-lock.json', 'snappy/index.js', 'snappy/package.json']
const PROGRAM = join('node_modules', '@chainsafe', 'lodestar', 'lib', 'index.js')

export const OLDEST_NODE = 20
export const NEWEST_NODE = 22

/** Why Lodestar cannot run here; undefined if it can. */
export function unfit() {
  const major = Number(process.versions.node.split('.')[0])
  return major >= OLDEST_NODE && major <= NEWEST_NODE
    ? undefined
    : `Lodestar 1.5.1 runs on Node ${OLDEST_NODE} to ${NEWEST_NODE}, not on ${major}`
}

function cacheFolder() {
  const cache = process.env['IOTCHAIN_PEERS'] || join(homedir(), '.cache', 'iotchain-peers')
  const hash = createHash('sha256')
  for (const part of PARTS) hash.update(readFileSync(join(HERE, part)))
  return join(cache, `lodestar-${hash.digest('hex').slice(0, 12)}`)
}

/** Where it is installed: in the cache, or beside this file by `npm ci --ignore-scripts`. @returns {string | undefined} */
export function findLodestar() {
  return [cacheFolder(), HERE].find((folder) => existsSync(join(folder, PROGRAM)))
}

/** @returns {string} the folder that holds its node_modules @throws if npm cannot install it */
export function installLodestar() {
  const found = findLodestar()
  if (found !== undefined) return found
  const folder = cacheFolder()
  const making = `${folder}.${process.pid}`
  mkdirSync(making, { recursive: true })
  try {
    for (const part of PARTS) cpSync(join(HERE, part), join(making, part))
    const made = spawnSync('npm', ['ci', '--ignore-scripts', '--omit=dev', '--no-audit', '--no-fund'], {
      cwd: making,
      stdio: ['ignore', 'ignore', 'pipe'],
      encoding: 'utf8',
    })
    if (made.status !== 0) {
      const why = made.error?.message ?? made.stderr.trim().split('\n').slice(-3).join(' ')
      throw new Error(`npm could not install Lodestar: ${why}`)
    }
    try {
      // whole or not at all: another process may be looking
      renameSync(making, folder)
    } catch (error) {
      // another one was quicker
      if (!existsSync(join(folder, PROGRAM))) throw error
    }
    return folder
  } finally {
    rmSync(making, { recursive: true, force: true })
  }
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const why = unfit()
  if (why !== undefined) {
    console.log(`skipped: ${why}`)
  } else {
    if (findLodestar() === undefined) console.error('installing Lodestar: a minute or two, 270 MB')
    try {
      console.log(installLodestar())
    } catch (error) {
      console.log(`skipped: ${error instanceof Error ? error.message : String(error)}`)
      process.exitCode = 1
    }
  }
}
