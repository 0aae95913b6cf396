/** The results of a matrix, as a table for people, as Markdown for docs/interop.md, and as the closing count. */

export type Status = 'ok' | 'failed' | 'peer' | 'skipped'

export interface Result {
  /** Title of the table: one per protocol and direction. */
  readonly table: string
  /** Row. */
  readonly cell: string
  /** Column. */
  readonly peer: string
  readonly status: Status
  /** Why, for anything but a plain success. */
  readonly detail: string
}

const WORD: Readonly<Record<Status, string>> = { ok: 'ok', failed: 'FAILED', peer: 'peer', skipped: '–' }

interface Table {
  readonly title: string
  readonly peers: readonly string[]
  readonly rows: readonly { readonly cell: string; readonly marks: readonly string[] }[]
  readonly notes: readonly string[]
}

function tablesOf(results: readonly Result[]): Table[] {
  return [...new Set(results.map((result) => result.table))].map((title) => {
    const own = results.filter((result) => result.table === title)
    const peers = [...new Set(own.map((result) => result.peer))]
    const notes: string[] = []
    const noteOf = (text: string): number => {
      const at = notes.indexOf(text)
      return at >= 0 ? at + 1 : notes.push(text)
    }
    const rows = [...new Set(own.map((result) => result.cell))].map((cell) => ({
      cell,
      marks: peers.map((peer) => {
        const result = own.find((each) => each.cell === cell && each.peer === peer)
        if (result === undefined) return ''
        if (result.status === 'ok') return WORD.ok
        return `${WORD[result.status]} (${noteOf(noteText(result))})`
      }),
    }))
    return { title, peers, rows, notes }
  })
}

function noteText(result: Result): string {
  if (result.status === 'skipped') return `skipped: ${result.detail}`
  if (result.status === 'peer') return `${result.peer}'s own: ${result.detail}`
  return `${result.peer}, ${result.cell}: ${result.detail}`
}

export function asText(results: readonly Result[]): string {
  return tablesOf(results)
    .map(({ title, peers, rows, notes }) => {
      const first = Math.max(...rows.map(({ cell }) => cell.length), 4) + 2
      const width = peers.map((peer, i) => Math.max(peer.length, ...rows.map(({ marks }) => marks[i]!.length)) + 2)
      const line = (head: string, marks: readonly string[]): string =>
        (head.padEnd(first) + marks.map((mark, i) => mark.padEnd(width[i]!)).join('')).trimEnd()
      return [
        title,
        line('', peers),
        ...rows.map(({ cell, marks }) => line(cell, marks)),
        ...notes.map((note, i) => `  (${i + 1}) ${note}`),
        '',
      ].join('\n')
    })
    .join('\n')
}

export function asMarkdown(results: readonly Result[]): string {
  return tablesOf(results)
    .map(({ title, peers, rows, notes }) =>
      [
        `### ${title}`,
        '',
        `| | ${peers.join(' | ')} |`,
        `|---|${peers.map(() => '---').join('|')}|`,
        ...rows.map(({ cell, marks }) => `| ${cell} | ${marks.join(' | ')} |`),
        '',
        ...notes.map((note, i) => `${i + 1}. ${note}`),
        '',
      ].join('\n'),
    )
    .join('\n')
}

export function count(results: readonly Result[], status: Status): number {
  return results.filter((result) => result.status === status).length
}

/** Runs at most `limit` of the jobs at a time. */
export async function inParallel(limit: number, jobs: readonly (() => Promise<void>)[]): Promise<void> {
  const queue = [...jobs]
  const worker = async (): Promise<void> => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) await job()
  }
  await Promise.all(Array.from({ length: limit }, worker))
}
