/** Makes docs/configuration.md from the schemas of the three daemons. `node dist/tools/docs-configuration.js` writes it. */
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import type { z } from 'zod'
import { deviceSettings } from '../device/settings.ts'
import { keyServerSchema } from '../keyserver/config.ts'
import { proxySchema } from '../proxy/config.ts'
import { describeSchema, isSection, type JsonSchema, typeOf } from '../runtime/config-print.ts'

const DAEMONS: readonly (readonly [string, string, z.ZodType])[] = [
  ['iotchain-device', 'device.yaml', deviceSettings],
  ['iotchain-keyserver', 'keyserver.yaml', keyServerSchema],
  ['iotchain-proxy', 'proxy.yaml', proxySchema],
]

const HEAD = `# Configuration

One YAML file for each daemon, checked against its schema when the daemon starts: a wrong value is told with its line, an unknown
setting is refused. \`--print-config\` prints a file with every setting and its default; \`check --config FILE\` loads the whole daemon
and says what is wrong. Examples lie in \`deploy/examples/\`. This page is made from the schemas by \`tools/docs-configuration.ts\`.

* A **duration** is a number and a unit: \`500ms\`, \`60s\`, \`15m\`, \`24h\`, \`7d\`, or several: \`1h30m\`.
* A **path** is relative to the folder of the configuration file. \`credential:NAME\` is a systemd credential (\`LoadCredential=\`).
* Ethereum addresses need no quotes, but do no harm in them.
* \`SIGHUP\` (\`systemctl reload\`) reads the file again; a file with a fault is refused and the old one stays.
`

/** The whole page. */
export function configurationPage(): string {
  return [HEAD, ...DAEMONS.map(([name, file, schema]) => daemonChapter(name, file, describeSchema(schema)))].join('\n')
}

function daemonChapter(name: string, file: string, schema: JsonSchema): string {
  const lines = [`## ${name} (${file})`, '', ...table(flatten(schema, ''))]
  for (const [path, list] of variantLists(schema, '')) {
    lines.push('', `### ${name}: \`${path}\``, '', 'A list; in each entry these settings, and those of its kind:', '')
    lines.push(...table(sharedRows(list)))
    const shared = new Set(sharedRows(list).map((r) => r.name))
    for (const variant of list.oneOf ?? []) {
      const [key, value] = discriminator(variant)
      lines.push('', `**\`${key}: ${value}\`** ${variant.description ?? ''}`, '')
      const own = flatten(variant, '').filter((r) => r.name !== key && !shared.has(r.name))
      lines.push(...(own.length === 0 ? ['Nothing more.'] : table(own)))
    }
  }
  return `${lines.join('\n')}\n`
}

interface Row {
  readonly name: string
  readonly type: string
  readonly value: string
  readonly meaning: string
}

function flatten(schema: JsonSchema, prefix: string): Row[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, setting]) => {
    const path = `${prefix}${name}`
    if (isSection(setting)) {
      const inner = flatten(setting, `${path}.`)
      const optional = schema.required?.includes(name) !== true && setting.default === undefined
      const meaning = `${setting.description ?? ''}${optional ? ' Optional as a whole.' : ''}`.trim()
      return meaning === '' ? inner : [{ name: path, type: 'section', value: '', meaning }, ...inner]
    }
    return [
      {
        name: path,
        type: isVariantList(setting) ? 'list, see below' : typeOf(setting),
        value: defaultOf(setting, schema.required?.includes(name) === true),
        meaning: setting.description ?? '',
      },
    ]
  })
}

function defaultOf(setting: JsonSchema, required: boolean): string {
  if (setting.default !== undefined) {
    return `\`${stringify(setting.default, { collectionStyle: 'flow', lineWidth: 0 }).trim()}\``
  }
  return required ? '**required**' : '–'
}

function table(rows: readonly Row[]): string[] {
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ')
  return [
    '| setting | value | default | meaning |',
    '| --- | --- | --- | --- |',
    ...rows.map((r) => `| \`${r.name}\` | ${cell(r.type)} | ${cell(r.value)} | ${cell(r.meaning)} |`),
  ]
}

function isVariantList(setting: JsonSchema): boolean {
  return setting.type === 'array' && setting.items?.oneOf !== undefined
}

function variantLists(schema: JsonSchema, prefix: string): [string, JsonSchema][] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, setting]): [string, JsonSchema][] => {
    const path = `${prefix}${name}`
    if (isVariantList(setting)) return [[path, setting.items as JsonSchema]]
    return variantLists(setting, `${path}.`)
  })
}

/** Settings that every variant has, with the same meaning. */
function sharedRows(list: JsonSchema): Row[] {
  const variants = (list.oneOf ?? []).map((v) => flatten(v, ''))
  const [first = [], ...rest] = variants
  return first.filter((row) => rest.every((rows) => rows.some((r) => JSON.stringify(r) === JSON.stringify(row))))
}

/** The constant property that tells a variant. */
function discriminator(variant: JsonSchema): [string, string] {
  const found = Object.entries(variant.properties ?? {}).find(([, p]) => p.const !== undefined)
  return [found?.[0] ?? 'kind', String(found?.[1].const)]
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const root = resolve(import.meta.dirname, import.meta.url.includes('/dist/') ? '../..' : '..')
  writeFileSync(join(root, 'docs/configuration.md'), configurationPage())
  console.log('docs/configuration.md written')
}
