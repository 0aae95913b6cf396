/**
 * Configuration files: one YAML file per daemon, checked once against its zod schema. Faults come as one error that
 * names file, line and setting; unknown settings are refused.
 */
import { readFileSync } from 'node:fs'
import { isScalar, LineCounter, type Node, parseDocument, visit } from 'yaml'
import type * as z from 'zod'
import { IotchainError } from '../protocol/errors.ts'

/**
 * Reads and checks a file.
 * @throws `config/cannot-read`, `config/bad-yaml`, `config/invalid`; the message has a line for each fault
 */
export function loadConfig<S extends z.ZodType>(schema: S, file: string): z.output<S> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    throw new IotchainError(
      'config/cannot-read',
      `the configuration file ${file} ${missing ? 'is not there' : 'cannot be read'}`,
      {
        cause,
        hint: missing ? 'write one: --print-config prints every setting with its default' : 'check its owner and mode',
      },
    )
  }
  return parseConfig(schema, text, file)
}

/** Like `loadConfig`, of a text; `name` stands in the messages. */
export function parseConfig<S extends z.ZodType>(schema: S, text: string, name = 'configuration'): z.output<S> {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true })
  const fault = document.errors[0]
  if (fault !== undefined) {
    const line = lines.linePos(fault.pos[0]).line
    throw new IotchainError('config/bad-yaml', `${name}:${line}: ${fault.message.split('\n')[0]}`, {
      cause: fault,
      hint: 'mind the indentation; texts with ":" or "#" need quotes',
    })
  }
  // An address without quotes would be read as a number and lose its last digits.
  visit(document, {
    Scalar(_, node) {
      if (typeof node.value === 'number' && /^0x[0-9a-f]{9,}$/i.test(node.source ?? '')) node.value = node.source
    },
  })
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: 100 }) ?? {}
  } catch (cause) {
    throw new IotchainError('config/bad-yaml', `${name}: ${(cause as Error).message}`, { cause })
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const faults = result.error.issues.flatMap((issue) => flatten(issue, []))
  const shown = faults.slice(0, 10).map(({ path, message, key }) => {
    const line = lineOf(document.contents, path, key, lines)
    const setting = formatPath(path)
    return `${name}:${line}: ${setting === '' ? '' : `${setting}: `}${message}`
  })
  if (faults.length > shown.length) shown.push(`… and ${faults.length - shown.length} more`)
  throw new IotchainError('config/invalid', shown.join('\n'), {
    cause: result.error,
    hint: '--print-config prints every setting with its meaning and default',
  })
}

interface Fault {
  readonly path: readonly PropertyKey[]
  readonly message: string
  /** The unknown key itself, whose line is meant. */
  readonly key?: string
}

function flatten(issue: z.core.$ZodIssue, above: readonly PropertyKey[]): Fault[] {
  const path = [...above, ...issue.path]
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path, key, message: `there is no setting "${key}" here` }))
  }
  if (issue.code === 'invalid_union') {
    const options = (issue as { options?: readonly unknown[] }).options
    if (issue.errors.length === 0 && Array.isArray(options)) {
      return [{ path, message: `must be one of ${options.join(', ')}` }]
    }
    // Of the alternatives, the one that went deepest is the one that was meant.
    const deepest = issue.errors
      .map((errors) => errors.flatMap((e) => flatten(e, path)))
      .sort((a, b) => depth(b) - depth(a))[0]
    return deepest ?? [{ path, message: issue.message }]
  }
  if (issue.code === 'invalid_type' && issue.message.endsWith('received undefined')) {
    return [{ path, message: 'is missing' }]
  }
  return [{ path, message: issue.message.replace(/^Invalid input: /, '') }]
}

function depth(faults: readonly Fault[]): number {
  return Math.max(...faults.map((f) => f.path.length))
}

function formatPath(path: readonly PropertyKey[]): string {
  return path
    .map((p) => (typeof p === 'number' ? `[${p}]` : `.${String(p)}`))
    .join('')
    .replace(/^\./, '')
}

/** The line of the setting, or of the nearest part above it that the file has. */
function lineOf(
  contents: Node | null,
  path: readonly PropertyKey[],
  key: string | undefined,
  lines: LineCounter,
): number {
  let node: unknown = contents
  let offset = contents?.range?.[0] ?? 0
  for (const part of key === undefined ? path : [...path, key]) {
    const items = (node as { items?: unknown[] } | null)?.items
    if (!Array.isArray(items)) break
    if (typeof part === 'number') {
      node = items[part]
      offset = (node as Node | undefined)?.range?.[0] ?? offset
    } else {
      const pair = items.find(
        (i) =>
          isScalar((i as { key?: unknown }).key) &&
          String((i as { key: { value: unknown } }).key.value) === String(part),
      )
      if (pair === undefined) break
      const { key: name, value } = pair as { key: Node; value: unknown }
      offset = name.range?.[0] ?? offset
      node = value
    }
  }
  return lines.linePos(offset).line
}
