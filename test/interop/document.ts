/** Writes the matrix into docs/interop.md, between the marks that the file holds. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../peers/install.ts'
import { asMarkdown, type Result } from './results.ts'

const BEGIN = '<!-- matrix: written by npm run test:interop -- --write -->'
const END = '<!-- end of matrix -->'

export function writeDocument(results: readonly Result[], versions: ReadonlyMap<string, string>): void {
  const path = join(packageRoot(), 'docs', 'interop.md')
  const text = readFileSync(path, 'utf8')
  const begin = text.indexOf(BEGIN)
  const end = text.indexOf(END)
  if (begin < 0 || end < begin) throw new Error(`${path} has no place for the matrix`)
  const counts = (['ok', 'failed', 'peer', 'skipped'] as const).map(
    (status) => `${results.filter((result) => result.status === status).length} ${status}`,
  )
  const stacks = [...versions].map(([name, version]) => `${name} ${version.replace(/^v/, '')}`).sort()
  const body = `${BEGIN}\n\n${counts.join(', ')}, with ${stacks.join(', ')}.\n\n${asMarkdown(results)}\n`
  writeFileSync(path, text.slice(0, begin) + body + text.slice(end))
}
