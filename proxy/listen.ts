/** Addresses to listen at, as the configuration has them. */
import { IotchainError } from '../protocol/errors.ts'

/** `127.0.0.1:8080`, `[::]:8080`. @throws `config/invalid` */
export function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65_535) {
    throw new IotchainError('config/invalid', `http.listen: "${text}" is no address with a port`, {
      hint: 'write for example 127.0.0.1:8080 or [::]:8080, or off',
    })
  }
  return { host: (match[1] ?? match[2]) as string, port }
}
