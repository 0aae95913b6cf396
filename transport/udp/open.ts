/** Binds a UDP socket for a server: the native module's where it is built (Linux), else Node's. */
import { isIPv6 } from 'node:net'
import { bindNative, udpBinding } from './native-socket.ts'
import { type BoundSocket, bindSocket, NodeSocket, newSocket, type SocketOptions } from './socket.ts'

export interface OpenOptions extends SocketOptions {
  /** Interface for what is sent to a group: an address of it (IPv4) or `::%eth0`. */
  readonly multicastInterface?: string | undefined
  readonly multicastHops?: number | undefined
}

/** @param address numeric @throws the system's error, as `ErrnoException` */
export async function openSocket(port: number, address: string, options: OpenOptions = {}): Promise<BoundSocket> {
  const { multicastInterface, multicastHops } = options
  const toGroups = multicastInterface !== undefined || multicastHops !== undefined
  const native = toGroups ? undefined : udpBinding()
  if (native !== undefined) return bindNative(native, port, address, options)
  const socket = newSocket(isIPv6(address), options)
  try {
    await bindSocket(socket, port, address, options)
    if (multicastInterface !== undefined) socket.setMulticastInterface(multicastInterface)
    if (multicastHops !== undefined) socket.setMulticastTTL(multicastHops)
  } catch (error) {
    socket.close()
    throw error
  }
  return new NodeSocket(socket)
}
