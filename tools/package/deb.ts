/** One .deb from a staged folder, by dpkg-deb alone; the same octets for the same inputs and SOURCE_DATE_EPOCH. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, lstat, mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Arch } from './node-runtime.ts'

const run = promisify(execFile)

export interface DebPackage {
  readonly name: string
  readonly version: string
  readonly arch: Arch
  readonly depends: readonly string[]
  readonly summary: string
  readonly description: string
  /** installed files, as they lie below / */
  readonly stage: string
  /** maintainer scripts: preinst, postinst, prerm, postrm */
  readonly scripts?: Readonly<Record<string, string>>
}

/** @returns the file `<out>/<name>_<version>_<arch>.deb` */
export async function buildDeb(
  deb: DebPackage,
  out: string,
  epochSeconds: number,
  compression: string,
): Promise<string> {
  const control = join(deb.stage, 'DEBIAN')
  await mkdir(control, { recursive: true })
  const files = (await filesBelow(deb.stage)).filter((f) => !f.startsWith('DEBIAN/'))
  const sums: string[] = []
  let kibibytes = 0
  for (const file of files) {
    const path = join(deb.stage, file)
    const status = await lstat(path)
    if (!status.isFile()) continue
    kibibytes += Math.ceil(status.size / 1024)
    const executable = (status.mode & 0o111) !== 0
    await chmod(path, executable ? 0o755 : 0o644)
    sums.push(
      `${createHash('md5')
        .update(await readFile(path))
        .digest('hex')}  ${file}`,
    )
  }
  await writeFile(join(control, 'control'), controlText(deb, kibibytes))
  await writeFile(join(control, 'md5sums'), `${sums.join('\n')}\n`)
  for (const [name, text] of Object.entries(deb.scripts ?? {})) {
    await writeFile(join(control, name), text, { mode: 0o755 })
    await chmod(join(control, name), 0o755)
  }
  await settleTimes(deb.stage, epochSeconds)
  const file = join(out, `${deb.name}_${deb.version}_${deb.arch}.deb`)
  await mkdir(out, { recursive: true })
  await run('dpkg-deb', ['--root-owner-group', `-Z${compression}`, '--build', deb.stage, file], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(epochSeconds) },
  })
  return file
}

function controlText(deb: DebPackage, kibibytes: number): string {
  const body = deb.description
    .split('\n')
    .map((line) => ` ${line === '' ? '.' : line}`)
    .join('\n')
  return `Package: ${deb.name}
Version: ${deb.version}
Architecture: ${deb.arch}
Maintainer: IoTChain maintainers <maintainers@iotchain.invalid>
Installed-Size: ${kibibytes}
Depends: ${deb.depends.join(', ')}
Section: net
Priority: optional
Description: ${deb.summary}
${body}
`
}

async function filesBelow(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).sort()
}

/** Modes of folders and times of everything: neither umask nor the clock shows in the package. */
async function settleTimes(stage: string, epochSeconds: number): Promise<void> {
  for (const file of [...(await filesBelow(stage)).reverse(), '.']) {
    const path = join(stage, file)
    const status = await lstat(path)
    if (status.isSymbolicLink()) continue
    if (status.isDirectory()) await chmod(path, 0o755)
    await utimes(path, epochSeconds, epochSeconds)
  }
}
