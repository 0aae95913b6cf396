/**
 * A host's plain sockets, started in its namespace:
 *
 *   station listen IFACE              joins ff02::fd; prints {"from","octets"} for each datagram
 *   station ask TO PORT MS HEX…       sends the datagrams from one socket; prints {"replies":[{"ms","from","port","hex"}]}
 *
 * TO may be a group; its interface is in its zone (IPv6) or follows a comma (IPv4: `224.0.1.187,10.97.1.5`).
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { isIPv6 } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`)

async function listen(iface: string): Promise<void> {
  const socket = createSocket({ type: 'udp6', reuseAddr: true })
  socket.on('message', (datagram, remote) => say({ from: remote.address, octets: datagram.length }))
  socket.bind({ port: 5683, address: `ff02::fd%${iface}` })
  await once(socket, 'listening')
  socket.addMembership('ff02::fd', `::%${iface}`)
  say({ ready: true })
  process.stdin.resume()
  await once(process.stdin, 'end')
}

async function ask(to: string, port: string, ms: string, datagrams: readonly string[]): Promise<void> {
  const [address = '', own] = to.split(',')
  const socket = createSocket(isIPv6(address.split('%')[0] as string) ? 'udp6' : 'udp4')
  socket.bind(0)
  await once(socket, 'listening')
  if (own !== undefined) socket.setMulticastInterface(own)
  const replies: { ms: number; from: string; port: number; hex: string }[] = []
  const began = performance.now()
  socket.on('message', (datagram, remote) => {
    const at = Math.round(performance.now() - began)
    replies.push({ ms: at, from: remote.address, port: remote.port, hex: datagram.toString('hex') })
  })
  for (const hex of datagrams) {
    await new Promise((resolve) => socket.send(Buffer.from(hex, 'hex'), Number(port), address, resolve))
  }
  await delay(Number(ms))
  say({ replies })
}

const [, , mode, ...args] = process.argv
if (mode === 'listen') await listen(args[0]!)
else if (mode === 'ask') await ask(args[0]!, args[1]!, args[2]!, args.slice(3))
else {
  process.stderr.write('usage: station listen|ask …\n')
  process.exit(2)
}
process.exit(0)
