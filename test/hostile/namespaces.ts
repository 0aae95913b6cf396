/**
 * Two network namespaces joined by a veth pair: the daemons in one, everybody else in the other. No address of it is
 * loopback, so that the engine verifies its sources as on the Internet; nothing leaves the pair.
 */
import { execFileSync } from 'node:child_process'
import { onPath } from '../peers/install.ts'

export const SERVER_ADDRESS = '10.98.0.1'
/** The other side answers for all of 10.99.0.0/16, so that whatever is sent to a spoofed source is really sent. */
export const OUTSIDE_ADDRESS = '10.99.0.2'

export interface Namespaces {
  readonly server: string
  readonly outside: string
  remove(): void
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** Why there can be none here, or undefined. */
export function whyNot(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces are a matter of Linux'
  if (process.getuid?.() !== 0) return 'making network namespaces needs root'
  if (onPath('ip') === undefined) return 'ip (Debian package iproute2) is not installed'
  return undefined
}

/** @throws Error when the kernel or the sandbox does not allow it */
export function makeNamespaces(): Namespaces {
  const tag = `iotc${process.pid}`
  const server = `${tag}s`
  const outside = `${tag}o`
  const remove = (): void => {
    for (const name of [server, outside]) {
      try {
        ip('netns', 'delete', name)
      } catch {
        // it was never made
      }
    }
  }
  try {
    ip('netns', 'add', server)
    ip('netns', 'add', outside)
    ip('link', 'add', `${tag}a`, 'netns', server, 'type', 'veth', 'peer', 'name', `${tag}b`, 'netns', outside)
    const inNamespace = (name: string, ...args: string[]): void => ip('-n', name, ...args)
    inNamespace(server, 'link', 'set', 'lo', 'up')
    inNamespace(server, 'address', 'add', `${SERVER_ADDRESS}/32`, 'dev', `${tag}a`)
    inNamespace(server, 'link', 'set', `${tag}a`, 'up')
    // one next hop: the table of neighbours has no room for 65 536 of them
    inNamespace(server, 'route', 'add', `${OUTSIDE_ADDRESS}/32`, 'dev', `${tag}a`)
    inNamespace(server, 'route', 'add', '10.99.0.0/16', 'via', OUTSIDE_ADDRESS, 'dev', `${tag}a`)
    inNamespace(outside, 'link', 'set', 'lo', 'up')
    inNamespace(outside, 'address', 'add', `${OUTSIDE_ADDRESS}/32`, 'dev', `${tag}b`)
    inNamespace(outside, 'link', 'set', `${tag}b`, 'up')
    inNamespace(outside, 'route', 'add', 'local', '10.99.0.0/16', 'dev', 'lo')
    inNamespace(outside, 'route', 'add', `${SERVER_ADDRESS}/32`, 'dev', `${tag}b`, 'src', OUTSIDE_ADDRESS)
  } catch (error) {
    remove()
    const said = (error as { stderr?: Buffer }).stderr?.toString().trim()
    throw new Error(`no network namespaces here: ${said || (error as Error).message}`)
  }
  return { server, outside, remove }
}

/** The command line that runs `command` in a namespace. */
export function inside(namespace: string, command: readonly string[]): string[] {
  return ['ip', 'netns', 'exec', namespace, ...command]
}
