// @ts-check
// Lodestar with one thing changed: with the minimal preset it calls itself out of sync after 8 slots without a block (an
// epoch; 32 on a real network) and then proposes none, for ever. While one of two validating nodes is away, every second
// slot is empty, and 8 in a row come in a matter of minutes. 64 slots keep the network alive.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { findLodestar } from './install.mjs'

const TOLERANCE_SLOTS = 64

const folder = findLodestar()
if (folder === undefined) throw new Error('Lodestar is not installed: run `node deploy/pos/install.mjs`')
const part = (/** @type {string[]} */ ...path) => pathToFileURL(join(folder, 'node_modules', ...path)).href

const { BeaconSync } = await import(part('@lodestar', 'beacon-node', 'lib', 'sync', 'sync.js'))
Object.defineProperty(BeaconSync.prototype, 'slotImportTolerance', {
  get: () => TOLERANCE_SLOTS,
  // the constructor assigns its own
  set: () => undefined,
})

await import(part('@chainsafe', 'lodestar', 'lib', 'index.js'))
