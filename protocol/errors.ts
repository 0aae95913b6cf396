/**
 * The one error class of the project. `code` is stable and documented in docs/errors.md; the message is for
 * people and may change. A `hint`, where there is one, says what to do next.
 */
export type ErrorCode = `${Area}/${string}`

type Area =
  | 'cbor'
  | 'cose'
  | 'crypto'
  | 'group'
  | 'object'
  | 'senml'
  | 'credential'
  | 'message'
  | 'coap'
  | 'dtls'
  | 'chain'
  | 'store'
  | 'config'
  | 'pki'
  | 'runtime'
  | 'device'
  | 'sensor'
  | 'keyserver'
  | 'proxy'
  | 'client'
  | 'owner'
  | 'wallet'
  | 'demo'

export interface IotchainErrorOptions {
  /** What the person can do about it: one sentence, shown by the command-line tools. */
  hint?: string | undefined
  cause?: unknown
  /** Seconds after which a repetition may succeed (CoAP Max-Age of a 5.03 or 4.29). */
  retryAfterSeconds?: number | undefined
}

export class IotchainError extends Error {
  override readonly name = 'IotchainError'
  readonly code: ErrorCode
  readonly hint: string | undefined
  readonly retryAfterSeconds: number | undefined

  /**
   * @param code stable code `area/what`, see docs/errors.md
   * @param message one sentence for a person; never holds key material
   */
  constructor(code: ErrorCode, message: string, options: IotchainErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.hint = options.hint
    this.retryAfterSeconds = options.retryAfterSeconds
  }
}

/** True for an error of this project, also across duplicated module instances. */
export function isIotchainError(error: unknown): error is IotchainError {
  return error instanceof Error && error.name === 'IotchainError' && typeof (error as IotchainError).code === 'string'
}
