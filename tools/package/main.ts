/**
 * `npm run package -- arm64|amd64 [--out DIR] [--compression xz|zstd] [--only NAME]…`: the Debian packages for one
 * architecture; `--only` leaves out the programs that are not named (the runtime is always made).
 */
import { execFile } from 'node:child_process'
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { bundle } from './bundle.ts'
import { buildDeb } from './deb.ts'
import { nativeParts } from './native-parts.ts'
import { type Arch, CPU, NODE_VERSION, nodeRuntime } from './node-runtime.ts'
import { CLIENT, DAEMONS, type PackagePlan, RUNTIME_SUMMARY } from './plans.ts'
import { daemonScripts } from './scripts.ts'

const run = promisify(execFile)
const ROOT = resolve(import.meta.dirname, '..', '..', '..')
const HOME = 'usr/lib/iotchain'

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: 'string', default: join(ROOT, 'out') },
      compression: { type: 'string', default: 'xz' },
      only: { type: 'string', multiple: true, default: [] },
      help: { type: 'boolean', default: false },
    },
  })
  const arch = positionals[0] as Arch
  if (values.help || positionals.length !== 1 || !(arch in CPU)) {
    console.error('usage: npm run package -- arm64|amd64 [--out DIR] [--compression xz|zstd] [--only NAME]…')
    process.exitCode = values.help ? 0 : 2
    return
  }
  const all = [...DAEMONS, CLIENT]
  const unknown = values.only.find((name) => !all.some((plan) => plan.name === name))
  if (unknown !== undefined) {
    console.error(`package: there is no package ${unknown}; there are ${all.map((plan) => plan.name).join(', ')}`)
    process.exitCode = 2
    return
  }
  const plans = all.filter((plan) => values.only.length === 0 || values.only.includes(plan.name))
  const cache = join(process.env['IOTCHAIN_PEERS'] ?? join(homedir(), '.cache/iotchain-peers'), 'package')
  await mkdir(cache, { recursive: true })
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  const epoch = await sourceDateEpoch()
  const work = await mkdtemp(join(tmpdir(), 'iotchain-package-'))
  try {
    const say = (text: string): void => console.error(`package ${arch}: ${text}`)
    say(`Node ${NODE_VERSION}`)
    const node = await nodeRuntime(arch, cache)
    say('native parts')
    const runtime = join(work, 'iotchain-runtime')
    await mkdir(join(runtime, HOME, 'bin'), { recursive: true })
    await nativeParts({ root: ROOT, arch, node, out: join(runtime, HOME) })
    await cp(join(node, 'bin/node'), join(runtime, HOME, 'bin/node'))
    await chmod(join(runtime, HOME, 'bin/node'), 0o755)
    await run(arch === 'arm64' && process.arch !== 'arm64' ? 'aarch64-linux-gnu-strip' : 'strip', [
      join(runtime, HOME, 'bin/node'),
    ])
    await writeFile(join(runtime, HOME, 'package.json'), `${JSON.stringify({ name: 'iotchain', version })}\n`)
    await document(runtime, 'iotchain-runtime', node)
    const common = { version, arch }
    const made = [
      await buildDeb(
        {
          ...common,
          name: 'iotchain-runtime',
          depends: ['libc6 (>= 2.28)', 'libstdc++6 (>= 8)', 'libatomic1'],
          summary: RUNTIME_SUMMARY,
          description: `Node ${NODE_VERSION} and native parts, private to the IoTChain programs below /${HOME}.`,
          stage: runtime,
        },
        values.out,
        epoch,
        values.compression,
      ),
    ]
    for (const plan of plans) {
      say(plan.name)
      const stage = join(work, plan.name)
      await stageProgram(plan, stage)
      const { units } = plan
      made.push(
        await buildDeb(
          {
            ...common,
            name: plan.name,
            depends: [
              `iotchain-runtime (= ${version})`,
              ...(units === undefined ? [] : ['init-system-helpers (>= 1.54)']),
            ],
            summary: plan.summary,
            description: plan.description,
            stage,
            ...(units === undefined
              ? {}
              : {
                  scripts: daemonScripts(units, {
                    state: plan.state as string,
                    keys: plan.keys as string,
                    config: plan.config as string,
                  }),
                }),
          },
          values.out,
          epoch,
          values.compression,
        ),
      )
    }
    for (const file of made) console.log(file)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** A program's bundle, its command in /usr/bin, and for a daemon its unit and configuration. */
async function stageProgram(plan: PackagePlan, stage: string): Promise<void> {
  const home = join(stage, HOME, plan.command)
  await bundle({ root: ROOT, commands: [plan.command], out: home })
  await mkdir(join(stage, 'usr/bin'), { recursive: true })
  const wrapper = `#!/bin/sh\nexec /${HOME}/bin/node /${HOME}/${plan.command}/${plan.command}.mjs "$@"\n`
  await writeFile(join(stage, 'usr/bin', plan.command), wrapper, { mode: 0o755 })
  await document(stage, plan.name)
  for (const [from, to] of plan.files) await cp(join(ROOT, from), join(stage, to), { recursive: true })
}

async function document(stage: string, name: string, node?: string): Promise<void> {
  const folder = join(stage, 'usr/share/doc', name)
  await mkdir(folder, { recursive: true })
  await cp(join(ROOT, 'LICENSE'), join(folder, 'copyright'))
  if (node !== undefined) await cp(join(node, 'LICENSE'), join(folder, 'copyright.node')).catch(() => undefined)
}

/** $SOURCE_DATE_EPOCH, else the time of the last commit. */
async function sourceDateEpoch(): Promise<number> {
  const given = process.env['SOURCE_DATE_EPOCH']
  if (given !== undefined && /^\d+$/.test(given)) return Number(given)
  const { stdout } = await run('git', ['log', '-1', '--format=%ct'], { cwd: ROOT })
  return Number(stdout.trim())
}

await main()
