/** CoAP codes (RFC 7252 §12.1, RFC 7959 §6, RFC 8132 §6, RFC 8516, RFC 8768): one octet `c.dd`. */

/** The octet of code `codeClass.detail`: `code(2, 5)` is 2.05 Content. */
export function code(codeClass: number, detail: number): number {
  return ((codeClass & 7) << 5) | (detail & 31)
}

export const Code = {
  empty: 0,
  get: 1,
  post: 2,
  put: 3,
  delete: 4,
  fetch: 5,
  patch: 6,
  ipatch: 7,
  created: code(2, 1),
  deleted: code(2, 2),
  valid: code(2, 3),
  changed: code(2, 4),
  content: code(2, 5),
  continue: code(2, 31),
  badRequest: code(4, 0),
  unauthorized: code(4, 1),
  badOption: code(4, 2),
  forbidden: code(4, 3),
  notFound: code(4, 4),
  methodNotAllowed: code(4, 5),
  notAcceptable: code(4, 6),
  requestEntityIncomplete: code(4, 8),
  conflict: code(4, 9),
  preconditionFailed: code(4, 12),
  requestEntityTooLarge: code(4, 13),
  unsupportedContentFormat: code(4, 15),
  unprocessableEntity: code(4, 22),
  tooManyRequests: code(4, 29),
  internalServerError: code(5, 0),
  notImplemented: code(5, 1),
  badGateway: code(5, 2),
  serviceUnavailable: code(5, 3),
  gatewayTimeout: code(5, 4),
  proxyingNotSupported: code(5, 5),
  hopLimitReached: code(5, 8),
} as const

export type CoapMethod = 'GET' | 'POST' | 'PUT' | 'DELETE' | 'FETCH' | 'PATCH' | 'iPATCH'

const METHODS: readonly (CoapMethod | undefined)[] = [
  undefined,
  'GET',
  'POST',
  'PUT',
  'DELETE',
  'FETCH',
  'PATCH',
  'iPATCH',
]

/** The method of a request code, undefined for one that no RFC here defines. */
export function methodOf(requestCode: number): CoapMethod | undefined {
  return METHODS[requestCode]
}

export function codeOfMethod(method: CoapMethod): number {
  return METHODS.indexOf(method)
}

/** GET and FETCH change nothing (RFC 7252 §5.1, RFC 8132 §2). */
export function isSafe(requestCode: number): boolean {
  return requestCode === Code.get || requestCode === Code.fetch
}

/** Class 0 without the Empty code. */
export function isRequest(octet: number): boolean {
  return octet > 0 && octet < 32
}

/** Classes 2, 4 and 5; 1, 3, 6 and 7 are reserved (RFC 7252 §3; 7 is TCP signalling). */
export function isResponse(octet: number): boolean {
  const codeClass = octet >> 5
  return codeClass === 2 || codeClass === 4 || codeClass === 5
}

export function isSuccess(octet: number): boolean {
  return octet >> 5 === 2
}

/** `69` → `'2.05'`. */
export function codeText(octet: number): string {
  const detail = octet & 31
  return `${octet >> 5}.${detail < 10 ? '0' : ''}${detail}`
}

const CODE_NAMES: Readonly<Record<number, string>> = {
  [Code.created]: 'Created',
  [Code.deleted]: 'Deleted',
  [Code.valid]: 'Valid',
  [Code.changed]: 'Changed',
  [Code.content]: 'Content',
  [Code.continue]: 'Continue',
  [Code.badRequest]: 'Bad Request',
  [Code.unauthorized]: 'Unauthorized',
  [Code.badOption]: 'Bad Option',
  [Code.forbidden]: 'Forbidden',
  [Code.notFound]: 'Not Found',
  [Code.methodNotAllowed]: 'Method Not Allowed',
  [Code.notAcceptable]: 'Not Acceptable',
  [Code.requestEntityIncomplete]: 'Request Entity Incomplete',
  [Code.conflict]: 'Conflict',
  [Code.preconditionFailed]: 'Precondition Failed',
  [Code.requestEntityTooLarge]: 'Request Entity Too Large',
  [Code.unsupportedContentFormat]: 'Unsupported Content-Format',
  [Code.unprocessableEntity]: 'Unprocessable Entity',
  [Code.tooManyRequests]: 'Too Many Requests',
  [Code.internalServerError]: 'Internal Server Error',
  [Code.notImplemented]: 'Not Implemented',
  [Code.badGateway]: 'Bad Gateway',
  [Code.serviceUnavailable]: 'Service Unavailable',
  [Code.gatewayTimeout]: 'Gateway Timeout',
  [Code.proxyingNotSupported]: 'Proxying Not Supported',
  [Code.hopLimitReached]: 'Hop Limit Reached',
}

/** `132` → `'4.04 Not Found'`, for people. */
export function codeName(octet: number): string {
  const name = CODE_NAMES[octet]
  return name === undefined ? codeText(octet) : `${codeText(octet)} ${name}`
}
