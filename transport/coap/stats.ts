/** Counters of an endpoint. The engine writes no log: programs show these, or listen to `onEvent`. */

/** Why a datagram was not processed, or a message not sent. */
export type DropReason =
  | 'short'
  | 'version'
  | 'token-length'
  | 'truncated-option'
  | 'empty-payload'
  | 'reserved-code'
  | 'empty-message'
  | 'stray-ack'
  | 'stray-reset'
  | 'stray-response'
  | 'duplicate'
  | 'rate'
  | 'amplification'
  | 'no-server'
  | 'multicast'
  | 'bad-option'
  | 'suppressed'
  | 'queue-full'

export interface CoapStats {
  datagramsReceived: number
  datagramsSent: number
  octetsReceived: number
  octetsSent: number
  requestsServed: number
  /** Of those, answered from a reply kept ready. */
  requestsReady: number
  retransmissions: number
  timeouts: number
  resetsSent: number
  resetsReceived: number
  notifications: number
  /** Exceptions where there should be none. */
  faults: number
  /** Gauges. */
  observers: number
  uploads: number
  snapshots: number
  deduplicationOctets: number
  outstanding: number
  readonly dropped: Record<DropReason, number>
}

/** For a log with a rate limit; `peer` is `address:port`. */
export interface CoapEvent {
  readonly kind: 'dropped' | 'observer-gone' | 'handler-error' | 'peer-gone' | 'fault'
  readonly reason: string
  readonly peer: string
  readonly error?: unknown
}

export function newStats(): CoapStats {
  return {
    datagramsReceived: 0,
    datagramsSent: 0,
    octetsReceived: 0,
    octetsSent: 0,
    requestsServed: 0,
    requestsReady: 0,
    retransmissions: 0,
    timeouts: 0,
    resetsSent: 0,
    resetsReceived: 0,
    notifications: 0,
    faults: 0,
    observers: 0,
    uploads: 0,
    snapshots: 0,
    deduplicationOctets: 0,
    outstanding: 0,
    dropped: {
      short: 0,
      version: 0,
      'token-length': 0,
      'truncated-option': 0,
      'empty-payload': 0,
      'reserved-code': 0,
      'empty-message': 0,
      'stray-ack': 0,
      'stray-reset': 0,
      'stray-response': 0,
      duplicate: 0,
      rate: 0,
      amplification: 0,
      'no-server': 0,
      multicast: 0,
      'bad-option': 0,
      suppressed: 0,
      'queue-full': 0,
    },
  }
}
