/**
 * gpio-sim and irq_sim for a Debian kernel that was built without them, out of tree from Debian's own sources. The
 * sources are fetched when the test runs and stay in the peer cache.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { DebianSuite } from './debian.ts'

const run = promisify(execFile)
const BUFFER = { maxBuffer: 64 << 20 }

export interface SimulatedKernel {
  /** the unpacked kernel package */
  readonly root: string
  readonly release: string
  /** folder with gpio-sim.ko and irq_sim.ko */
  readonly modules: string
}

/** @param cache where `suite` unpacks */
export async function kernelWithGpioSim(suite: DebianSuite, cache: string): Promise<SimulatedKernel> {
  const image = await suite.dependencyOf('linux-image-amd64', /linux-image-[0-9][^ ,]*/)
  const release = image.replace('linux-image-', '')
  const version = release.replace(/-amd64$/, '')
  const root = await suite.unpack('kernel-amd64', [image])
  const modules = join(cache, `gpio-sim-${release}`)
  if (existsSync(join(modules, 'gpio-sim.ko'))) return { root, release, modules }
  const series = release.match(/^\d+\.\d+/)?.[0]
  const build = await suite.unpack('kernel-build-amd64', [
    `linux-headers-${release}`,
    `linux-headers-${version}-common`,
    `linux-kbuild-${version}`,
    `linux-source-${series}`,
  ])
  const headers = join(build, `usr/src/linux-headers-${release}`)
  // The package expects to lie in /usr/src.
  const makefile = join(headers, 'Makefile')
  await writeFile(
    makefile,
    (await readFile(makefile, 'utf8')).replace(/^include \/usr\/src\//m, `include ${build}/usr/src/`),
  )
  const work = join(cache, 'gpio-sim-build')
  await rm(work, { recursive: true, force: true })
  await mkdir(work)
  const top = `linux-source-${series}`
  await run(
    'tar',
    [
      ...['-xJf', join(build, `usr/src/${top}.tar.xz`), '-C', work, '--strip-components=3'],
      ...[`${top}/drivers/gpio/gpio-sim.c`, `${top}/kernel/irq/irq_sim.c`],
    ],
    BUFFER,
  )
  // Built into the kernel it may use an internal function; as a module it needs the exported one and a licence.
  const irqSim = (await readFile(join(work, 'irq_sim.c'), 'utf8')).replace(
    /handle_simple_irq\(irq_to_desc\((\w+)\)\);/,
    'generic_handle_irq($1);',
  )
  const licence = irqSim.includes('MODULE_LICENSE')
    ? ''
    : '#include <linux/module.h>\nMODULE_DESCRIPTION("irq_sim");\nMODULE_LICENSE("GPL");\n'
  await writeFile(join(work, 'irq_sim.c'), irqSim + licence)
  await writeFile(join(work, 'Makefile'), 'obj-m := irq_sim.o gpio-sim.o\n')
  await run('make', ['-C', headers, `M=${work}`, 'CONFIG_DEBUG_INFO_BTF_MODULES=', 'CC=gcc', 'modules'], BUFFER)
  await mkdir(modules, { recursive: true })
  for (const name of ['irq_sim.ko', 'gpio-sim.ko']) await copyFile(join(work, name), join(modules, name))
  await rm(work, { recursive: true })
  return { root, release, modules }
}
