/** Which network an address belongs to: /32 for IPv4, /48 for IPv6; and whether it is loopback or trusted. */
import { BlockList, isIP, isIPv4 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'

const MAPPED = '::ffff:'

/** The IPv4 address within a v4-mapped IPv6 address, any other address as it is; without an IPv6 zone. */
export function plainAddress(address: string): string {
  const zone = address.indexOf('%')
  const bare = zone < 0 ? address : address.slice(0, zone)
  return bare.startsWith(MAPPED) && bare.includes('.') ? bare.slice(MAPPED.length) : bare
}

/** A key that all addresses of one /32 (IPv4) or /48 (IPv6) share. */
export function prefixOf(address: string): string {
  const plain = plainAddress(address)
  if (!plain.includes(':')) return plain
  const [before = '', after] = plain.split('::') as [string, string?]
  const head = before === '' ? [] : before.split(':')
  const tail = after === undefined || after === '' ? [] : after.split(':')
  const zeros = after === undefined ? 0 : Math.max(0, 8 - head.length - tail.length - (plain.includes('.') ? 1 : 0))
  const groups = [...head, ...new Array<string>(zeros).fill('0'), ...tail]
  return `${groups[0] ?? '0'}:${groups[1] ?? '0'}:${groups[2] ?? '0'}`
}

export function isLoopback(address: string): boolean {
  return address === '127.0.0.1' || address === '::1' || /^(::ffff:)?127\.\d+\.\d+\.\d+$/.test(address)
}

/**
 * `10.0.0.0/8`, `fd00::/8`, `192.0.2.7` → a list to check addresses against; undefined when there is none.
 * @throws `coap/bad-prefix`
 */
export function parsePrefixes(prefixes: readonly string[]): ((address: string) => boolean) | undefined {
  if (prefixes.length === 0) return undefined
  const list = new BlockList()
  for (const prefix of prefixes) {
    const [address = '', length] = prefix.split('/') as [string, string?]
    const family = isIP(address)
    const bits = length === undefined ? (family === 4 ? 32 : 128) : /^\d{1,3}$/.test(length) ? Number(length) : -1
    if (family === 0 || bits < 0 || bits > (family === 4 ? 32 : 128)) {
      throw new IotchainError('coap/bad-prefix', `cannot use ${JSON.stringify(prefix)} as an address prefix`, {
        hint: 'write prefixes like 192.168.0.0/16 or fd00::/8',
      })
    }
    list.addSubnet(address, bits, family === 4 ? 'ipv4' : 'ipv6')
  }
  return (address) => {
    const plain = plainAddress(address)
    return list.check(plain, isIPv4(plain) ? 'ipv4' : 'ipv6')
  }
}
