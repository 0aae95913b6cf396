/** Programs of this repository as child processes, on any Node: bundled once, packages left outside. */
import { mkdirSync, mkdtempSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { build } from 'esbuild'

const ROOT = resolve(import.meta.dirname, '..')

/**
 * Bundles a TypeScript entry so that `node FILE` runs it.
 * @returns the path of the file, below node_modules, where its packages are found
 */
export async function bundleProgram(entry: string): Promise<string> {
  const cache = join(ROOT, 'node_modules/.cache/iotchain-test')
  mkdirSync(cache, { recursive: true })
  const outfile = join(mkdtempSync(join(cache, 'p-')), 'program.mjs')
  await build({
    entryPoints: [resolve(ROOT, entry)],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    conditions: ['iotchain-source'],
    alias: { '#crypto': resolve(ROOT, 'protocol/crypto/node.ts') },
    logLevel: 'error',
  })
  return outfile
}
