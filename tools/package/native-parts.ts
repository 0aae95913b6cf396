/** What the bundles cannot hold: the DTLS binding and the npm packages with native parts, built for one architecture. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cp, mkdir, readdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { NATIVE_PACKAGES } from './bundle.ts'
import { type Arch, CPU } from './node-runtime.ts'

const run = promisify(execFile)
const BUFFER = { maxBuffer: 64 << 20 }
const TOOLCHAIN = { arm64: 'aarch64-linux-gnu-', amd64: '' } as const
/** Sources and build trees that a running program does not read. */
const NOT_SHIPPED = new Set([
  'deps',
  'src',
  'test',
  'tests',
  'binding.gyp',
  'integration-test',
  '.github',
  'examples',
  'example',
  'binding.cc',
  '.npmignore',
  '.travis.yml',
  'docs',
])

export interface NativeOptions {
  readonly root: string
  readonly arch: Arch
  /** the unpacked Node for this architecture */
  readonly node: string
  /** gets `native/build/dtls.node` and `node_modules/` */
  readonly out: string
}

export async function nativeParts(options: NativeOptions): Promise<void> {
  const { root, arch, node, out } = options
  const prefix = arch === hostArch() ? '' : TOOLCHAIN[arch]
  await mkdir(join(out, 'native/build'), { recursive: true })
  const binding = join(out, 'native/build/dtls.node')
  await run(
    process.execPath,
    [
      join(root, 'tools/build-dtls.mjs'),
      '--cc',
      `${prefix}gcc`,
      '--include',
      join(node, 'include/node'),
      '--out',
      binding,
    ],
    { ...BUFFER, cwd: root },
  )
  await rm(`${binding}.json`, { force: true })
  for (const name of packageClosure(root)) {
    const to = join(out, 'node_modules', name)
    await cp(join(root, 'node_modules', name), to, { recursive: true, filter: (from) => !isDropped(root, name, from) })
    await keepOwnPrebuild(to, arch)
  }
  for (const name of ['epoll', 'unix-dgram']) await compileAddon(options, name, prefix)
}

/** The native packages and everything that they need at run time. */
export function packageClosure(root: string): string[] {
  const wanted = [...NATIVE_PACKAGES]
  const found = new Set<string>()
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    const manifest = join(root, 'node_modules', name, 'package.json')
    if (found.has(name) || !existsSync(manifest)) continue
    found.add(name)
    const { dependencies = {} } = JSON.parse(readFileSync(manifest, 'utf8')) as {
      dependencies?: Record<string, string>
    }
    wanted.push(...Object.keys(dependencies))
  }
  // Headers that only a compiler reads.
  for (const name of ['nan', 'napi-macros', 'node-addon-api']) found.delete(name)
  return [...found].sort()
}

function isDropped(root: string, name: string, from: string): boolean {
  const inside = from.slice(join(root, 'node_modules', name).length + 1).split('/')
  return NOT_SHIPPED.has(inside[0] as string) || inside[0] === 'build' || /\.(md|ts|map)$/.test(from)
}

async function keepOwnPrebuild(folder: string, arch: Arch): Promise<void> {
  const prebuilds = join(folder, 'prebuilds')
  if (!existsSync(prebuilds)) return
  for (const name of await readdir(prebuilds)) {
    if (name !== `linux-${CPU[arch]}`) await rm(join(prebuilds, name), { recursive: true })
    else
      for (const file of await readdir(join(prebuilds, name)))
        if (file.includes('musl')) await rm(join(prebuilds, name, file))
  }
}

/** node-gyp is the one that npm itself carries; headers are the shipped Node's, never the running one's. */
async function compileAddon({ root, arch, node, out }: NativeOptions, name: string, prefix: string): Promise<void> {
  const source = join(root, 'node_modules', name)
  if (!existsSync(source)) return
  const work = join(out, '.build', name)
  await cp(source, work, { recursive: true, filter: (from) => !from.startsWith(join(source, 'build')) })
  for (const need of ['nan', 'bindings', 'file-uri-to-path', 'node-addon-api']) {
    const from = join(root, 'node_modules', need)
    if (existsSync(from)) await cp(from, join(out, '.build/node_modules', need), { recursive: true })
  }
  const { stdout } = await run('npm', ['root', '-g'])
  const gyp = join(stdout.trim(), 'npm/node_modules/node-gyp/bin/node-gyp.js')
  await run(process.execPath, [gyp, 'rebuild', '--release', `--arch=${CPU[arch]}`, `--nodedir=${node}`], {
    ...BUFFER,
    cwd: work,
    env: { ...process.env, CC: `${prefix}gcc`, CXX: `${prefix}g++`, npm_config_nodedir: node },
  })
  const release = join(work, 'build/Release')
  const to = join(out, 'node_modules', name, 'build/Release')
  await mkdir(to, { recursive: true })
  for (const file of await readdir(release)) {
    if (!file.endsWith('.node')) continue
    await cp(join(release, file), join(to, file))
    await run(`${prefix}strip`, ['--strip-unneeded', join(to, file)])
  }
  await rm(dirname(work), { recursive: true, force: true })
}

export function hostArch(): Arch {
  return process.arch === 'arm64' ? 'arm64' : 'amd64'
}
