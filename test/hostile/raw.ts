/** Datagrams with any source, through raw-sender in the outer namespace. */
import { once } from 'node:events'
import { join } from 'node:path'
import { built, debianCommand, packageRoot, run } from '../peers/install.ts'
import { PeerProcess } from '../peers/process.ts'
import { inside, SERVER_ADDRESS } from './namespaces.ts'

export interface Spoofed {
  /** Last two octets of the source: 10.99.a.b. */
  readonly host: number
  readonly port: number
  readonly payload: Uint8Array
}

export function hostOf(a: number, b: number): number {
  return (a << 8) | b
}

export function addressOf(host: number): string {
  return `10.99.${host >> 8}.${host & 255}`
}

/** @throws PeerMissing without a C compiler */
export async function rawSender(): Promise<string> {
  const source = join(packageRoot(), 'test', 'hostile', 'raw-sender.c')
  await debianCommand('gcc', ['gcc', 'libc6-dev'])
  return await built('raw-sender', [source], async (into) => {
    await run('gcc', ['-O2', '-o', into, source])
  })
}

export interface Sent {
  readonly datagrams: number
  /** UDP payload. */
  readonly octets: number
  readonly seconds: number
}

/**
 * Sends to `port` of the server, at most `perSecond`. An own address of the outer namespace is never the source unless
 * the datagrams say so.
 */
export async function sendSpoofed(
  program: string,
  namespace: string,
  port: number,
  perSecond: number,
  datagrams: Iterable<Spoofed>,
): Promise<Sent> {
  const process = new PeerProcess(inside(namespace, [program, String(Math.round(perSecond))]))
  const input = process.child.stdin!
  const target = SERVER_ADDRESS.split('.').map(Number)
  const began = performance.now()
  let octets = 0
  let pending: Buffer[] = []
  const flush = async (): Promise<void> => {
    if (!input.write(Buffer.concat(pending))) await Promise.race([once(input, 'drain'), process.exited])
    pending = []
  }
  for (const { host, port: sourcePort, payload } of datagrams) {
    const head = Buffer.alloc(14)
    head.set([10, 99, host >> 8, host & 255])
    head.writeUInt16BE(sourcePort, 4)
    head.set(target, 6)
    head.writeUInt16BE(port, 10)
    head.writeUInt16BE(payload.length, 12)
    pending.push(head, Buffer.from(payload))
    octets += payload.length
    if (pending.length >= 512) await flush()
    if (process.child.exitCode !== null) break
  }
  await flush()
  input.end()
  const code = await process.exited
  if (code !== 0) throw new Error(`raw-sender: ${process.stderr.trim() || `ended with ${code}`}`)
  return { datagrams: Number(process.stdout.trim()), octets, seconds: (performance.now() - began) / 1000 }
}
