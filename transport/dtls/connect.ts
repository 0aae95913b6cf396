/** A client: one socket, one association. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:dgram'
import { isIP } from 'node:net'
import { IotchainError } from '../../protocol/errors.ts'
import { Association } from './association.ts'
import { binding, type NativeAssociation, type NativeContext } from './binding.ts'
import { bad, clientContext, octets, timingOf } from './options.ts'
import { refused } from './refusals.ts'
import { connectedSocket } from './socket.ts'
import type { ConnectOptions, DtlsAssociation } from './types.ts'

/** After so many answers «nobody listens there», with nothing else between them, the server is gone and its keys too. */
const REFUSALS_ENOUGH = 3

/**
 * Begins a handshake with `host:port`; await `opened`. The server must show a certificate that chains to `ca` and
 * names `servername` (default: the host), or own the key of `expectSpki`, or both; or share the one `psk`.
 * @throws `dtls/bad-options`, `dtls/no-trust`, `dtls/not-built`, `dtls/unsupported` at once; the rest rejects `opened`
 */
export function connect(host: string, port: number, options: ConnectOptions): DtlsAssociation {
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw bad(`${port} is not a UDP port`)
  const timing = timingOf(options)
  const context = clientContext(options)
  const name = bareName(options.servername ?? host)
  const native = createNative(context, name, options, timing)
  let socket: Socket | undefined

  const association: Association = new Association(
    native,
    { address: bareName(host), port, family: isIP(bareName(host)) === 6 ? 'IPv6' : 'IPv4' },
    {
      side: 'client',
      timing,
      lookup: undefined,
      local: () => socket?.address(),
      transmit: (datagram) => socket?.send(datagram, ignoreLoss),
      context: () => context,
      accept: (made, facts) => (facts.reused ? recheck(made, name, options) : undefined),
      gone: () => {
        options.signal?.removeEventListener('abort', abort)
        socket?.close()
        socket = undefined
      },
    },
  )
  const abort = (): void => {
    if (!association.isOpen) association.destroy(abortError(options.signal as AbortSignal))
  }

  if (options.signal?.aborted === true) {
    queueMicrotask(abort)
    return association
  }
  options.signal?.addEventListener('abort', abort, { once: true })
  connectedSocket(host, port).then(
    (made) => {
      if (association.isGone) {
        made.socket.close()
        return
      }
      socket = made.socket
      association.remoteAddress = made.remote
      let refusals = 0
      made.socket.on('error', (cause: NodeJS.ErrnoException) => {
        if (cause.code !== 'ECONNREFUSED' || ++refusals < REFUSALS_ENOUGH) return
        association.destroy(
          new IotchainError('dtls/unreachable', `nothing answers on UDP port ${port} of ${host}`, {
            cause,
            hint: 'check that the server runs, and the port',
          }),
        )
      })
      made.socket.on('message', (datagram) => {
        refusals = 0
        association.feed(datagram)
      })
      association.start()
    },
    (error: Error) => association.destroy(error),
  )
  return association
}

/** A lost datagram is what retransmission is for; errors of the socket arrive as its event. */
const ignoreLoss = (): void => undefined

function createNative(
  context: NativeContext,
  name: string,
  options: ConnectOptions,
  timing: { mtu: number; retransmitInitial: number },
): NativeAssociation {
  const isAddress = isIP(name) !== 0
  const checked = options.ca !== undefined
  try {
    return binding().createAssociation(context, {
      mtu: timing.mtu,
      retransmitInitial: timing.retransmitInitial,
      ...(isAddress ? {} : { name: octets(name) }),
      ...(checked && !isAddress ? { checkName: octets(name) } : {}),
      ...(checked && isAddress ? { checkAddress: octets(name.replace(/%.*$/, '')) } : {}),
      ...(options.expectSpki === undefined ? {} : { pin: options.expectSpki }),
      ...(options.session === undefined ? {} : { session: options.session }),
    })
  } catch (cause) {
    throw bad((cause as Error).message, undefined, cause)
  }
}

/** OpenSSL does not look at the certificate again when it resumes; whom the caller expects may have changed. */
function recheck(association: Association, name: string, options: ConnectOptions): IotchainError | undefined {
  const certificate = association.peerX509Certificate
  if (certificate === undefined) return undefined
  if (options.expectSpki !== undefined) {
    const spki = certificate.publicKey.export({ type: 'spki', format: 'der' })
    const hash = createHash('sha256').update(spki).digest()
    if (!timingSafeEqual(hash, options.expectSpki)) {
      return refused('the server was refused: the key is not the pinned one')
    }
  }
  if (options.ca === undefined) return undefined
  const named = isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)
  if (named !== undefined) return undefined
  return refused(`the server was refused: its certificate does not name ${name}`)
}

function abortError(signal: AbortSignal): IotchainError {
  return new IotchainError('dtls/aborted', 'the DTLS handshake was called off', { cause: signal.reason })
}

function bareName(host: string): string {
  return host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
}
