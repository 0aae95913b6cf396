/** The product's own Debian packages, as a person would get them, and the same ones under a later version. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { appendFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const BUFFER = { maxBuffer: 64 << 20 }

/** Builds iotchain-runtime and iotchain-device. @returns their files, the runtime first */
export async function buildDebs(
  root: string,
  arch: 'amd64' | 'arm64',
  out: string,
  epochSeconds?: number,
): Promise<string[]> {
  const env = { ...process.env, ...(epochSeconds === undefined ? {} : { SOURCE_DATE_EPOCH: String(epochSeconds) }) }
  const { stdout } = await run(
    process.execPath,
    [
      join(root, 'dist/tools/package/main.js'),
      ...[arch, '--out', out, '--compression', 'zstd', '--only', 'iotchain-device'],
    ],
    { ...BUFFER, cwd: root, env },
  )
  return stdout.trim().split('\n')
}

/** SHA-256 by file name. */
export async function digests(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const file of (await readdir(folder)).filter((f) => f.endsWith('.deb')).sort()) {
    const digest = createHash('sha256').update(await readFile(join(folder, file)))
    found.set(file, digest.digest('hex'))
  }
  return found
}

/**
 * Packs a package again under `version`, which its dependency on the runtime follows, with another default of its
 * configuration. @returns the file
 */
export async function laterVersion(deb: string, version: string, out: string, work: string): Promise<string> {
  const folder = join(work, 'repack')
  await rm(folder, { recursive: true, force: true })
  await run('dpkg-deb', ['-R', deb, folder])
  const control = join(folder, 'DEBIAN/control')
  const text = (await readFile(control, 'utf8'))
    .replace(/^Version: .*$/m, `Version: ${version}`)
    .replace(/iotchain-runtime \(= [^)]*\)/, `iotchain-runtime (= ${version})`)
  await writeFile(control, text)
  const defaults = join(folder, 'usr/share/iotchain')
  for (const file of existsSync(defaults) ? await readdir(defaults) : [])
    await appendFile(join(defaults, file), '\n# A later version says more here.\n')
  const name = text.match(/^Package: (.*)$/m)?.[1] as string
  const file = join(out, `${name}_${version}.deb`)
  await run('dpkg-deb', ['--root-owner-group', '-Zzstd', '-z1', '--build', folder, file])
  await rm(folder, { recursive: true })
  return file
}
