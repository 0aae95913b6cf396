#!/usr/bin/env node
// @ts-check
/**
 * Adds to package-lock.json the optional platform packages that `npm install` dropped.
 *
 * npm leaves an optional dependency out of the lockfile when the registry at hand does not serve it for
 * any platform, yet `npm ci` then refuses the lockfile as incomplete. Each missing entry is written with
 * the exact version that its parent names; `os` and `cpu` are read from the package's name, so that npm
 * skips it on every machine it is not for. Run it after each change of dependencies, then `npm ci`.
 */
import { readFileSync, writeFileSync } from 'node:fs'

const FILE = new URL('../package-lock.json', import.meta.url)

/** Platform words as packages spell them → npm's `os` and `cpu` values. */
const OS = {
  linux: 'linux',
  darwin: 'darwin',
  windows: 'win32',
  win32: 'win32',
  android: 'android',
  freebsd: 'freebsd',
}
const CPU = {
  x64: 'x64',
  amd64: 'x64',
  x86_64: 'x64',
  arm64: 'arm64',
  aarch64: 'arm64',
  arm: 'arm',
  armv7: 'arm',
  ia32: 'ia32',
  universal: '',
}

/** @param {string} name */
function platformOf(name) {
  const words = name.split('/').at(-1)?.split(/[-.]/) ?? []
  const os = words.map((w) => OS[/** @type {keyof typeof OS} */ (w)]).find(Boolean)
  const cpu = words.map((w) => CPU[/** @type {keyof typeof CPU} */ (w)]).find(Boolean)
  return { ...(os ? { os: [os] } : {}), ...(cpu ? { cpu: [cpu] } : {}) }
}

const lock = JSON.parse(readFileSync(FILE, 'utf8'))
const packages = lock.packages
let added = 0
for (const [path, entry] of Object.entries(packages)) {
  for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
    const nested = path === '' ? `node_modules/${name}` : `${path}/node_modules/${name}`
    if (packages[nested] || packages[`node_modules/${name}`]) continue
    if (!/^\d+\.\d+\.\d+/.test(range)) {
      console.error(`complete-lock: ${path} wants ${name}@${range}; only exact versions can be completed`)
      process.exitCode = 1
      continue
    }
    packages[`node_modules/${name}`] = {
      version: range,
      ...platformOf(name),
      ...(entry.dev ? { dev: true } : {}),
      optional: true,
    }
    added++
  }
}
const sorted = Object.fromEntries(Object.entries(packages).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
lock.packages = sorted
writeFileSync(FILE, `${JSON.stringify(lock, null, 2)}\n`)
console.log(`complete-lock: ${added} entries added`)
