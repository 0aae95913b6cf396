/** The product's image for a Raspberry Pi: built from this checkout, kept in the peer cache, and a card made of it. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { debianMirror, Unavailable } from './debian.ts'
import { buildDebs, digests } from './debs.ts'

const run = promisify(execFile)
const BUFFER = { maxBuffer: 64 << 20 }
/** The same packages from the same sources, so that an image is built once for them. */
const EPOCH_SECONDS = 1_700_000_000
/** What the emulated board takes must be a power of two; larger than the image, as a real card is. */
const CARD_BYTES = 4 * 2 ** 30

/** @returns the image for the packages and the script of this checkout. @throws Unavailable where none can be built */
export async function builtImage(
  root: string,
  cache: string,
  work: string,
  say: (text: string) => void,
): Promise<string> {
  const debs = join(work, 'debs')
  await buildDebs(root, 'arm64', debs, EPOCH_SECONDS)
  const script = join(root, 'deploy/build-image')
  const inputs = createHash('sha256').update(await readFile(script))
  for (const [file, digest] of await digests(debs)) inputs.update(`${file} ${digest}\n`)
  const name = `pi-${inputs.digest('hex').slice(0, 16)}.img`
  const image = join(cache, name)
  if (existsSync(image)) {
    say(`image ${name} from the cache`)
    return image
  }
  if (process.getuid?.() !== 0) throw new Unavailable('only root can build the image')
  if (process.arch !== 'arm64' && !existsSync('/proc/sys/fs/binfmt_misc/qemu-aarch64'))
    throw new Unavailable('this host cannot run arm64 programs (qemu-user-static, binfmt_misc)')
  const mirror = await debianMirror()
  say('the image is built: some minutes')
  await mkdir(cache, { recursive: true })
  const partial = join(await mkdtemp(join(cache, 'partial-')), name)
  try {
    await run(script, ['--packages', debs, '--out', partial, '--mirror', mirror], {
      ...BUFFER,
      env: { ...process.env, SOURCE_DATE_EPOCH: String(EPOCH_SECONDS) },
    })
    for (const old of (await readdir(cache)).filter((file) => /^pi-.*\.img$/.test(file))) await rm(join(cache, old))
    await rename(partial, image)
  } finally {
    await rm(join(partial, '..'), { recursive: true, force: true })
  }
  const { size, blocks } = await stat(image)
  say(`image ${name}: ${Math.round(size / 2 ** 20)} MiB, ${Math.round((blocks * 512) / 2 ** 20)} of them used`)
  return image
}

export interface Partition {
  readonly start: number
  readonly size: number
  readonly type: string
  readonly bootable?: boolean
}

/** A card with an image on it, whose firmware partition this host reads and writes without mounting it. */
export class Card {
  readonly file: string
  readonly partitions: readonly Partition[]
  readonly #firmware: string

  private constructor(file: string, partitions: readonly Partition[]) {
    this.file = file
    this.partitions = partitions
    this.#firmware = `${file}@@${(partitions[0] as Partition).start * 512}`
  }

  static async flashed(image: string, work: string): Promise<Card> {
    const file = join(work, 'card.img')
    await run('cp', ['--sparse=always', image, file])
    await truncate(file, CARD_BYTES)
    const { stdout } = await run('sfdisk', ['--json', file])
    return new Card(
      file,
      (JSON.parse(stdout) as { partitiontable: { partitions: Partition[] } }).partitiontable.partitions,
    )
  }

  async list(): Promise<string[]> {
    const { stdout } = await run('mdir', ['-b', '-i', this.#firmware, '::'])
    return stdout
      .split('\n')
      .map((line) => line.replace('::/', ''))
      .filter((line) => line !== '')
  }

  async text(name: string): Promise<string> {
    return (await run('mtype', ['-i', this.#firmware, `::${name}`], BUFFER)).stdout
  }

  /** Takes a file of the partition into the folder `into`. @returns where it is */
  async take(name: string, into: string): Promise<string> {
    const file = join(into, name)
    await run('mcopy', ['-n', '-i', this.#firmware, `::${name}`, file])
    return file
  }

  /** Lays a folder onto the partition. */
  async lay(folder: string): Promise<void> {
    await run('mcopy', ['-s', '-i', this.#firmware, folder, '::'])
  }
}
