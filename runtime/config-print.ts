/**
 * A schema, told to people: the commented YAML of `--print-config` and the tables of docs/configuration.md. The zod
 * schema is the only source; `describe()` gives the meaning, `meta({ example })` a value for what has no default (zod drops the standard's `examples` where a
 * transform is below).
 */
import { stringify } from 'yaml'
import * as z from 'zod'

export interface JsonSchema {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly example?: unknown
  readonly examples?: readonly unknown[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: readonly string[]
  readonly items?: JsonSchema
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly anyOf?: readonly JsonSchema[]
  readonly oneOf?: readonly JsonSchema[]
  readonly additionalProperties?: boolean | JsonSchema
  readonly minimum?: number
  readonly maximum?: number
  readonly format?: string
}

/** What a person may write: defaults, descriptions and bounds of the input side. */
export function describeSchema(schema: z.ZodType): JsonSchema {
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema
}

/** A configuration with every setting: defaults as they are, required ones by example, optional ones commented out. */
export function printConfig(schema: z.ZodType, title: string): string {
  return [...wrap(title, '# '), '', ...printObject(describeSchema(schema), '')].join('\n').concat('\n')
}

/** One line that says what a value may be: `duration`, `"a" | "b"`, `integer 1…9`. */
export function typeOf(schema: JsonSchema): string {
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (schema.enum !== undefined) return schema.enum.map((v) => JSON.stringify(v)).join(' | ')
  const alternatives = schema.anyOf ?? schema.oneOf
  if (alternatives !== undefined) {
    const names = [...new Set(alternatives.map(typeOf))]
    return names.join(' | ')
  }
  if (schema.format === 'duration') return 'duration'
  if (schema.type === 'array') return `list of ${typeOf(schema.items ?? {})}`
  if (schema.type === 'integer' || schema.type === 'number') {
    const low = schema.minimum !== undefined && schema.minimum > -Number.MAX_SAFE_INTEGER ? String(schema.minimum) : ''
    const high = schema.maximum !== undefined && schema.maximum < Number.MAX_SAFE_INTEGER ? String(schema.maximum) : ''
    return low === '' && high === '' ? schema.type : `${schema.type} ${low}…${high}`
  }
  if (schema.type === 'object') return 'map'
  return schema.type ?? 'any'
}

/** True for a map whose settings are worth lines of their own. */
export function isSection(schema: JsonSchema): boolean {
  return schema.type === 'object' && schema.properties !== undefined
}

function printObject(schema: JsonSchema, indent: string): string[] {
  const lines: string[] = []
  for (const [name, setting] of Object.entries(schema.properties ?? {})) {
    if (indent === '' && lines.length > 0) lines.push('')
    lines.push(...wrap(setting.description ?? '', `${indent}# `))
    if (isSection(setting)) lines.push(`${indent}${name}:`, ...printObject(setting, `${indent}  `))
    else lines.push(...printValue(name, setting, indent, schema.required?.includes(name) === true))
  }
  return lines
}

function printValue(name: string, setting: JsonSchema, indent: string, required: boolean): string[] {
  const example = setting.example ?? setting.examples?.[0]
  const value = setting.default !== undefined ? setting.default : example
  if (value === undefined) {
    return [
      `${indent}${required ? '' : '# '}${name}: ${required ? '""  ' : ''}# ${typeOf(setting)}${required ? ', required' : ''}`,
    ]
  }
  const commented = setting.default === undefined && !required
  const lines = entry(name, value).map((line) => `${indent}${commented ? '# ' : ''}${line}`)
  // An empty list by default is told by its example too.
  if (Array.isArray(value) && value.length === 0 && example !== undefined) {
    lines.push(...entry(name, example).map((line) => `${indent}# ${line}`))
  }
  return lines
}

/** `name: value` on one line; a list of maps with a line for each. */
function entry(name: string, value: unknown): string[] {
  const flow = (v: unknown): string => stringify(v, { collectionStyle: 'flow', lineWidth: 0 }).trimEnd()
  if (Array.isArray(value) && value.some((v) => typeof v === 'object')) {
    return [`${name}:`, ...value.map((v) => `  - ${flow(v)}`)]
  }
  return [`${name}: ${flow(value)}`]
}

function wrap(text: string, prefix: string): string[] {
  if (text === '') return []
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/)) {
    if (line !== '' && prefix.length + line.length + word.length + 1 > 100) {
      lines.push(prefix + line)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  lines.push(prefix + line)
  return lines
}
