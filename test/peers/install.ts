/**
 * Finds foreign programs, or installs them into a cache outside the tree: `IOTCHAIN_PEERS`, by default
 * `~/.cache/iotchain-peers`. What cannot be had is reported with the reason, never counted as present.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'

/** A foreign program that is there, or why it is not. */
export type PeerReport =
  | { readonly name: string; readonly version: string; readonly path: string }
  | { readonly name: string; readonly skipped: string }

/** Why a peer cannot be had; its message is what the report says. */
export class PeerMissing extends Error {}

export function cacheFolder(): string {
  const folder = process.env['IOTCHAIN_PEERS'] || join(homedir(), '.cache', 'iotchain-peers')
  mkdirSync(folder, { recursive: true })
  return folder
}

/** The root of this package, from the sources as from the build. */
export function packageRoot(): string {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package-lock.json'))) return folder
    if (folder === dirname(folder)) throw new PeerMissing('the package root was not found')
  }
}

/** A file of this folder as it stands in the sources (foreign sources are not copied to the build). */
export function peerSource(...path: string[]): string {
  return join(packageRoot(), 'test', 'peers', ...path)
}

export function onPath(command: string): string | undefined {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, command)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // not here
    }
  }
  return undefined
}

export interface RunResult {
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end. @throws PeerMissing with the last line it said */
export function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {},
): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    execFile(
      command,
      [...args],
      {
        cwd: options.cwd,
        env: { ...process.env, ...options.env },
        timeout: options.timeoutMs ?? 300_000,
        maxBuffer: 16 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        if (error === null) resolve({ stdout, stderr })
        else {
          const said = `${stdout}\n${stderr}`.trim().split('\n').at(-1) || error.message
          reject(new PeerMissing(`${command.split('/').at(-1)}: ${said.slice(0, 200)}`))
        }
      },
    )
  })
}

let aptUpdated: Promise<unknown> | undefined
let aptQueue: Promise<unknown> = Promise.resolve()

/**
 * The path of `command`; where it is missing and this is root on Debian, installs `packages` first.
 * Installations run one after the other: dpkg has one lock.
 */
export async function debianCommand(command: string, packages: readonly string[]): Promise<string> {
  await debianPackages(packages, () => onPath(command) !== undefined)
  const found = onPath(command)
  if (found === undefined) throw new PeerMissing(`${command} is not in Debian package ${packages.join(' ')}`)
  return found
}

/** Installs Debian packages unless `present()`. */
export async function debianPackages(packages: readonly string[], present: () => boolean): Promise<void> {
  if (present()) return
  const turn = aptQueue.then(async () => {
    if (present()) return
    if (onPath('apt-get') === undefined) throw new PeerMissing(`not installed: ${packages.join(' ')} (no apt-get here)`)
    if (process.getuid?.() !== 0)
      throw new PeerMissing(`not installed: apt-get install ${packages.join(' ')} needs root`)
    aptUpdated ??= run('apt-get', ['update'])
    await aptUpdated
    await run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], {
      env: { DEBIAN_FRONTEND: 'noninteractive' },
      timeoutMs: 600_000,
    })
  })
  aptQueue = turn.catch(() => {})
  await turn
}

const building = new Map<string, Promise<string>>()

/** Runs `work` once per `key` and process, however many ask at the same time. */
export function once(key: string, work: () => Promise<string>): Promise<string> {
  const running = building.get(key)
  if (running !== undefined) return running
  const started = work()
  building.set(key, started)
  return started
}

/**
 * The path of something built from `sources`, in the cache: built by `build(into)` when the sources changed or it is
 * not there. A build that fails leaves nothing behind.
 */
export function built(
  name: string,
  sources: readonly string[],
  build: (into: string) => Promise<void>,
): Promise<string> {
  return once(name, () => buildOnce(name, sources, build))
}

async function buildOnce(
  name: string,
  sources: readonly string[],
  build: (into: string) => Promise<void>,
): Promise<string> {
  const hash = createHash('sha256')
  for (const source of sources) hash.update(readFileSync(source))
  const path = join(cacheFolder(), `${name}-${hash.digest('hex').slice(0, 12)}`)
  if (existsSync(path)) return path
  const draft = `${path}.${process.pid}`
  rmSync(draft, { recursive: true, force: true })
  await build(draft)
  if (existsSync(path)) rmSync(draft, { recursive: true, force: true })
  else renameSync(draft, path)
  return path
}
