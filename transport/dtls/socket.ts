/** The UDP socket under DTLS: bound or connected, IPv4, IPv6 or both, addresses written in one way. */
import type { Socket } from 'node:dgram'
import { lookup as resolve } from 'node:dns/promises'
import { isIP, isIPv6 } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import { openSocket } from '../udp/open.ts'
import { type BoundSocket, newSocket } from '../udp/socket.ts'
import type { RemoteAddress } from './types.ts'

interface BindOptions {
  readonly port: number
  readonly host: string | undefined
  readonly receiveBufferSize: number
}

/** @throws `dtls/bind` */
export async function boundSocket(options: BindOptions): Promise<BoundSocket> {
  const { host } = options
  if (host !== undefined) return bind(await addressOf(host), options)
  try {
    return await bind('::', options)
  } catch (error) {
    const code = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error
    return bind('0.0.0.0', options) // a host without IPv6
  }
}

async function bind(host: string, { port, receiveBufferSize }: BindOptions): Promise<BoundSocket> {
  try {
    return await openSocket(port, host, { recvBufferSize: receiveBufferSize })
  } catch (cause) {
    throw bindError(cause as NodeJS.ErrnoException, host, port)
  }
}

function bindError(cause: NodeJS.ErrnoException, host: string, port: number): IotchainError {
  const place = `${isIP(host) === 6 ? `[${host}]` : host}:${port}`
  switch (cause.code) {
    case 'EADDRINUSE':
      return new IotchainError('dtls/bind', `UDP port ${place} is in use`, {
        cause,
        hint: `stop the other program (ss -ulpn 'sport = :${port}' names it) or choose another port`,
      })
    case 'EACCES':
      return new IotchainError('dtls/bind', `this user may not bind UDP port ${place}`, {
        cause,
        hint: 'choose a port above 1023',
      })
    case 'EADDRNOTAVAIL':
      return new IotchainError('dtls/bind', `${host} is not an address of this machine`, {
        cause,
        hint: 'take one that `ip address` shows, or [::] for all',
      })
    default:
      return new IotchainError('dtls/bind', `UDP port ${place} cannot be bound (${cause.code ?? cause.message})`, {
        cause,
      })
  }
}

/** A socket that hears the one peer only, and is told where nobody listens. @throws `dtls/unreachable` */
export async function connectedSocket(host: string, port: number): Promise<{ socket: Socket; remote: RemoteAddress }> {
  const address = await addressOf(host)
  const family = isIP(address) === 6 ? 'IPv6' : 'IPv4'
  const socket = newSocket(family === 'IPv6')
  await new Promise<void>((done, failed) => {
    const unreachable = (cause: Error): void => {
      socket.close()
      failed(
        new IotchainError('dtls/unreachable', `there is no route to ${host}`, { cause, hint: 'check the network' }),
      )
    }
    socket.once('error', unreachable)
    socket.connect(port, address, (error?: Error) => {
      socket.removeListener('error', unreachable)
      if (error === undefined || error === null) done()
      else unreachable(error)
    })
  })
  return { socket, remote: { address, port, family } }
}

/** @throws `dtls/unreachable` */
async function addressOf(host: string): Promise<string> {
  const bare = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
  if (isIP(bare) !== 0) return bare
  try {
    return (await resolve(bare)).address
  } catch (cause) {
    throw new IotchainError('dtls/unreachable', `the name ${host} cannot be resolved`, {
      cause,
      hint: 'check the spelling and the name server',
    })
  }
}

const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i

/** An IPv4 peer on a socket for both is an IPv4 peer. */
export function remoteOf({ address, port }: { address: string; port: number }): RemoteAddress {
  const mapped = MAPPED.exec(address)
  if (mapped !== null) return { address: mapped[1] as string, port, family: 'IPv4' }
  return { address, port, family: isIPv6(address) ? 'IPv6' : 'IPv4' }
}
