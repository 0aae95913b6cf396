/** `iotchain discover`: what a server, a resource directory or the local network has. */
import type { Command } from 'commander'
import { responseError } from '../../client/errors.ts'
import { IotchainError } from '../../protocol/errors.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { interfacesOf } from '../../transport/coap/interfaces.ts'
import { decodeLinks } from '../../transport/coap/link-format.ts'
import type { CoapResponse } from '../../transport/coap/messages.ts'
import { askNeighbours } from '../../transport/coap/neighbourhood.ts'
import type { Link } from '../../transport/coap/server.ts'
import { formatCoapUri, parseCoapUri } from '../../transport/coap/uri.ts'
import { dial } from '../../transport/dial.ts'
import { action, type CommandContext } from '../terminal/command.ts'

interface DiscoverOptions {
  readonly directory?: boolean
  readonly rt?: string
  readonly interface?: string
  readonly wait?: string
}

interface Found {
  /** Whole address where it can be read. */
  readonly href: string
  readonly attributes: Link['attributes']
}

const PATIENCE_MS = 10_000

export function registerDiscover(program: Command): void {
  program
    .command('discover [uri]')
    .description('list the resources of a device or proxy, or, without an address, ask the local network')
    .option('--directory', 'ask the resource directory of the proxy at the address')
    .option('--rt <type>', 'only resources of this type, e.g. core.ps.gm or temperature')
    .option('--interface <name>', 'network interface for asking the local network, e.g. eth0')
    .option('--wait <seconds>', 'how long to collect answers of the local network; each waits up to 5 s', '6')
    .action(
      action<DiscoverOptions, [string | undefined]>(async (ctx, options, uri) => {
        const found = uri === undefined ? await askNetwork(ctx, options) : await askServer(uri, options)
        const lines = found.map((f) => `${f.href}${describeAttributes(f.attributes)}`)
        ctx.out.result(found, lines.length === 0 ? 'nothing found' : lines.join('\n'))
      }),
    )
}

async function askServer(uri: string, options: DiscoverOptions): Promise<Found[]> {
  const { scheme, host, port } = parseCoapUri(uri)
  if (scheme === 'coaps') {
    throw new IotchainError('client/bad-uri', 'discovery asks over plain CoAP', {
      hint: 'write coap:// and the plain port, which is 5683 where nothing else was configured',
    })
  }
  const origin = formatCoapUri({ scheme, host, port }).replace(/\/$/, '')
  const client = await dial(uri)
  try {
    const path = options.directory === true ? '/rd-lookup/res' : '/.well-known/core'
    return await linksOf(client, path, options.rt, origin)
  } finally {
    await client.close()
  }
}

async function linksOf(client: CoapClient, path: string, rt: string | undefined, origin: string): Promise<Found[]> {
  const query = rt === undefined ? [] : [`rt=${rt}`]
  const response = await client.get(path, { query, timeoutMs: PATIENCE_MS })
  if (!response.ok) throw responseError(response, `${path} at ${origin}`)
  return foundIn(response, origin)
}

async function askNetwork(ctx: CommandContext, options: DiscoverOptions): Promise<Found[]> {
  const seconds = Number(options.wait ?? '6')
  if (!(seconds >= 0.1 && seconds <= 60)) {
    throw new IotchainError('client/bad-number', '--wait is 0.1 to 60 seconds')
  }
  const interfaces = options.interface === undefined ? 'all' : [options.interface]
  if (interfacesOf(interfaces).length === 0) {
    throw new IotchainError('client/no-network', `there is no network interface ${options.interface ?? 'here'}`, {
      hint: 'ip address lists them; ask a server by its address: iotchain discover coap://HOST',
    })
  }
  ctx.out.progress(`asking the local network for ${seconds} s`)
  const found = new Map<string, Found>()
  const query = options.rt === undefined ? [] : [`rt=${options.rt}`]
  const windowMs = seconds * 1000
  for (const response of await askNeighbours({ interfaces, path: '/.well-known/core', query, windowMs })) {
    if (response.ok) for (const f of linksIn(response)) found.set(f.href, f)
  }
  return [...found.values()]
}

/** What a stranger on the local network says is no reason to hear nobody else. */
function linksIn(response: CoapResponse): Found[] {
  try {
    return foundIn(response, originOf(response))
  } catch {
    return []
  }
}

function foundIn(response: CoapResponse, origin: string): Found[] {
  return decodeLinks(response.text).map(({ href, attributes }) => ({
    href: href.startsWith('/') ? `${origin}${href}` : href,
    attributes,
  }))
}

function originOf(response: CoapResponse): string {
  const { address, port } = response.peer
  return formatCoapUri({ scheme: 'coap', host: address.replace(/^::ffff:(?=\d+\.)/, ''), port }).replace(/\/$/, '')
}

function describeAttributes(attributes: Link['attributes']): string {
  const shown = Object.entries(attributes).filter(([, v]) => v !== undefined && v !== false)
  return shown.map(([name, value]) => (value === true ? `  ${name}` : `  ${name}=${String(value)}`)).join('')
}
