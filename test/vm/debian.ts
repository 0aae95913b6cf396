/**
 * Debian packages of another suite or architecture, unpacked into the peer cache and never installed. The mirror is the
 * one that this host's own apt uses; nothing of the kernel or of busybox is part of the repository.
 */
import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const BUFFER = { maxBuffer: 64 << 20 }

export interface DebianTarget {
  /** e.g. `trixie` */
  readonly suite: string
  /** Debian's name of the architecture, e.g. `arm64` */
  readonly arch: string
  /** a folder of the peer cache */
  readonly cache: string
}

/** The reason why a virtual machine cannot be had on this host; a suite prints it as `skipped: …`. */
export class Unavailable extends Error {}

/** The address of the Debian mirror in this host's apt configuration. */
export async function debianMirror(): Promise<string> {
  const files = ['/etc/apt/sources.list']
  try {
    files.push(...(await readdir('/etc/apt/sources.list.d')).map((f) => join('/etc/apt/sources.list.d', f)))
  } catch {
    throw new Unavailable('this host has no apt configuration')
  }
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => '')
    const found = text.match(/^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s+)?)(\S+\/debian)\/?(?:\s|$)/m)
    if (found !== null) return found[1] as string
  }
  throw new Unavailable('this host\u2019s apt knows no Debian mirror')
}

/** One suite and architecture of Debian, as an apt configuration of its own below the cache. */
export class DebianSuite {
  readonly #target: DebianTarget
  readonly #home: string

  constructor(target: DebianTarget) {
    this.#target = target
    this.#home = join(target.cache, `apt-${target.suite}-${target.arch}`)
  }

  /** Reads the package lists, once an hour at the most. @throws Unavailable */
  async update(): Promise<void> {
    const stamp = join(this.#home, 'updated')
    const last = Number(await readFile(stamp, 'utf8').catch(() => '0'))
    if (Date.now() - last < 3_600_000) return
    const { suite, arch } = this.#target
    for (const folder of [
      'etc/apt/apt.conf.d',
      'etc/apt/preferences.d',
      'var/lib/apt/lists/partial',
      'var/lib/dpkg',
      'var/cache/apt/archives/partial',
    ]) {
      await mkdir(join(this.#home, folder), { recursive: true })
    }
    await writeFile(join(this.#home, 'var/lib/dpkg/status'), '')
    const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg'
    await writeFile(
      join(this.#home, 'etc/apt/sources.list'),
      `deb [arch=${arch} signed-by=${keyring}] ${await debianMirror()} ${suite} main\n`,
    )
    try {
      await run('apt-get', [...this.#options(), '-qq', 'update'], BUFFER)
    } catch (cause) {
      throw new Unavailable(`the package lists of ${suite}/${arch} cannot be read (${firstLine(cause)})`)
    }
    await writeFile(stamp, String(Date.now()))
  }

  /** The newest version that `name` depends on exactly (a kernel's meta package → its image). */
  async dependencyOf(name: string, pattern: RegExp): Promise<string> {
    const { stdout } = await run('apt-cache', [...this.#options(), 'show', name], BUFFER)
    const found = stdout.match(/^Depends: (.*)$/m)?.[1]?.match(pattern)?.[0]
    if (found === undefined) throw new Unavailable(`${name} has no dependency like ${pattern}`)
    return found
  }

  /** Unpacks packages into one folder, which is made anew when the list of packages changes. @returns the folder */
  async unpack(folder: string, packages: readonly string[]): Promise<string> {
    const root = join(this.#target.cache, folder)
    const mark = join(root, '.packages')
    if ((await readFile(mark, 'utf8').catch(() => '')) === packages.join(' ')) return root
    await rm(root, { recursive: true, force: true })
    const debs = join(this.#target.cache, `${folder}-debs`)
    await rm(debs, { recursive: true, force: true })
    await mkdir(debs, { recursive: true })
    try {
      await run('apt-get', [...this.#options(), '-qq', 'download', ...packages], { ...BUFFER, cwd: debs })
    } catch (cause) {
      throw new Unavailable(`${packages.join(', ')} cannot be fetched (${firstLine(cause)})`)
    }
    for (const deb of await readdir(debs)) await run('dpkg', ['-x', join(debs, deb), root], BUFFER)
    await rm(debs, { recursive: true })
    await writeFile(mark, packages.join(' '))
    return root
  }

  #options(): string[] {
    const { arch } = this.#target
    return [
      `Dir=${this.#home}`,
      `Dir::State::status=${join(this.#home, 'var/lib/dpkg/status')}`,
      `APT::Architecture=${arch}`,
      `APT::Architectures=${arch}`,
      'APT::Sandbox::User=root',
    ].flatMap((option) => ['-o', option])
  }
}

function firstLine(error: unknown): string {
  const text = (error as { stderr?: string }).stderr ?? String(error)
  return (text.trim().split('\n')[0] ?? '').slice(0, 200)
}
