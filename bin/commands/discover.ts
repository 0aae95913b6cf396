/** `iotchain discover`: what a server, a resource directory or the local network has. */
import type { Command } from 'commander'
import { responseError } from '../../client/errors.ts'
import { IotchainError } from '../../protocol/errors.ts'
import type { CoapClient } from '../../transport/coap/client.ts'
import { CoapEndpoint } from '../../transport/coap/endpoint.ts'
import { decodeLinks } from '../../transport/coap/link-format.ts'
import type { CoapResponse } from '../../transport/coap/messages.ts'
import type { Link } from '../../transport/coap/server.ts'
import { bindUdp } from '../../transport/coap/udp.ts'
import { COAP_PORT, formatCoapUri, parseCoapUri } from '../../transport/coap/uri.ts'
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

/** All CoAP Nodes (RFC 7252 §12.8), link-local. */
const GROUPS = { ipv6: 'ff02::fd', ipv4: '224.0.1.187' } as const
const PATIENCE_MS = 10_000

export function registerDiscover(program: Command): void {
  program
    .command('discover [uri]')
    .description('list the resources of a device or proxy, or, without an address, ask the local network')
    .option('--directory', 'ask the resource directory of the proxy at the address')
    .option('--rt <type>', 'only resources of this type, e.g. core.ps.gm or temperature')
    .option('--interface <name>', 'network interface for asking the local network, e.g. eth0')
    .option('--wait <seconds>', 'how long to collect answers of the local network', '3')
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
    throw new IotchainError('client/bad-uri', 'discovery is plain CoAP', { hint: 'write coap:// instead of coaps://' })
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
  const seconds = Number(options.wait ?? '3')
  if (!(seconds >= 0.1 && seconds <= 60)) {
    throw new IotchainError('client/bad-number', '--wait is 0.1 to 60 seconds')
  }
  ctx.out.progress(`asking the local network for ${seconds} s`)
  const found = new Map<string, Found>()
  const rounds = await Promise.allSettled([askGroup('ipv6', options, seconds), askGroup('ipv4', options, seconds)])
  for (const round of rounds) {
    if (round.status === 'fulfilled') for (const f of round.value) found.set(f.href, f)
  }
  const failure = rounds.find((r) => r.status === 'rejected')
  if (rounds.every((r) => r.status === 'rejected') && failure !== undefined) throw failure.reason
  return [...found.values()]
}

async function askGroup(family: keyof typeof GROUPS, options: DiscoverOptions, seconds: number): Promise<Found[]> {
  const zone = family === 'ipv6' && options.interface !== undefined ? `%${options.interface}` : ''
  const transport = await bindUdp({
    host: family === 'ipv6' ? '::' : '0.0.0.0',
    multicastInterface: family === 'ipv6' && options.interface !== undefined ? `::%${options.interface}` : undefined,
  })
  const endpoint = new CoapEndpoint(transport)
  try {
    const group = await transport.peer(`${GROUPS[family]}${zone}`, COAP_PORT)
    const query = options.rt === undefined ? [] : [`rt=${options.rt}`]
    const responses = await endpoint.multicast(group, {
      path: '/.well-known/core',
      query,
      windowMs: seconds * 1000,
    })
    return responses.filter((r) => r.ok).flatMap((r) => foundIn(r, originOf(r)))
  } finally {
    await endpoint.close()
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
