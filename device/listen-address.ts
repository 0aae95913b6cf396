/** The address that `device.listen` names. */

/** Where to bind; unlike a URI to ask at, it may have port 0 (any free one). The schema has checked its form. */
export function listenAddress(uri: string): { readonly host: string; readonly port: number } {
  const [, v6, name, port] = /^coap:\/\/(?:\[([^\]]+)\]|([^:/]+))(?::(\d+))?/.exec(uri) ?? []
  return { host: v6 ?? name ?? '::', port: Number(port ?? 5683) }
}
