/** The network interfaces of this host as multicast needs them: by name, with an address of each family. */
import { networkInterfaces } from 'node:os'

export interface NetworkInterface {
  readonly name: string
  /** An IPv4 address of it, by which IPv4 multicast names an interface. */
  readonly ipv4: string | undefined
  /** It has an IPv6 address; multicast names the interface by its zone. */
  readonly ipv6: boolean
  /** The kernel's number of it, where an IPv6 address tells: another one under the same name is another interface. */
  readonly index: number | undefined
}

/** Interfaces for multicast: those named, or (`all`) each one that leads out of this host. */
export type InterfaceChoice = 'all' | readonly string[]

/** Those of the choice that are up now; what is not there is left out, as it may come later. */
export function interfacesOf(choice: InterfaceChoice): NetworkInterface[] {
  const found: NetworkInterface[] = []
  for (const [name, addresses = []] of Object.entries(present())) {
    const wanted = choice === 'all' ? addresses.some(({ internal }) => !internal) : choice.includes(name)
    if (!wanted) continue
    found.push({
      name,
      ipv4: addresses.find(({ family }) => family === 'IPv4')?.address,
      ipv6: addresses.some(({ family }) => family === 'IPv6'),
      index: addresses.map((each) => (each.family === 'IPv6' ? each.scopeid : 0)).find((each) => each > 0),
    })
  }
  return found
}

/** A system that does not tell (a sandbox without netlink) is one without multicast. */
function present(): ReturnType<typeof networkInterfaces> {
  try {
    return networkInterfaces()
  } catch {
    return {}
  }
}

/** The interface that has an address, or undefined. */
export function interfaceWith(address: string): string | undefined {
  const bare = address.split('%')[0]
  for (const [name, addresses = []] of Object.entries(present())) {
    if (addresses.some((each) => each.address === bare)) return name
  }
  return undefined
}

/** True if this host has addresses, and the one given is none of them. */
export function hasNot(address: string): boolean {
  return interfaceWith(address) === undefined && Object.keys(present()).length > 0
}
