/** A command of bin/ bundled as it is shipped: what it loads on demand stays apart, so that it starts as fast. */
import { mkdirSync, mkdtempSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { build } from 'esbuild'

const ROOT = resolve(import.meta.dirname, '../..')

/** @returns the file that `node FILE` runs, below node_modules, where its packages are found */
export async function bundleCommand(name: string): Promise<string> {
  const cache = join(ROOT, 'node_modules/.cache/iotchain-test')
  mkdirSync(cache, { recursive: true })
  const outdir = mkdtempSync(join(cache, 'c-'))
  await build({
    entryPoints: [join(ROOT, 'bin', `${name}.ts`)],
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    conditions: ['iotchain-source'],
    alias: { '#crypto': join(ROOT, 'protocol/crypto/node.ts') },
    logLevel: 'error',
  })
  return join(outdir, `${name}.mjs`)
}
