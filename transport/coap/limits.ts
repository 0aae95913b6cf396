/** Every bound of the engine, in one place. What a stranger can make grow is capped here. docs/coap.md says why. */
export interface CoapLimits {
  /** Transmission parameters of RFC 7252 §4.8. */
  readonly ackTimeoutMs: number
  readonly ackRandomFactor: number
  readonly maxRetransmit: number
  /** Outstanding interactions per peer; more wait in a queue. */
  readonly nstart: number
  /** EXCHANGE_LIFETIME and NON_LIFETIME. */
  readonly exchangeLifetimeMs: number
  readonly nonLifetimeMs: number
  /** DEFAULT_LEISURE: replies to a group request are spread over this time. */
  readonly leisureMs: number
  /** Replies to group requests that wait for their moment. */
  readonly leisurelyReplies: number
  /** A handler that takes longer gets an empty ACK sent and its reply as a separate response. */
  readonly separateAfterMs: number

  /** Largest datagram that is taken for a request; a larger one draws 4.13 with the wish for blocks. */
  readonly datagramOctets: number
  /** Payload of one block (16 … 1024, a power of two). */
  readonly blockOctets: number
  /** Largest body of a request, unless the resource says otherwise. */
  readonly bodyOctets: number
  /** Largest body of a response that the client assembles. */
  readonly responseOctets: number

  /** Unfinished Block1 uploads: from verified sources, from others, of one peer, and their octets in all. */
  readonly uploads: number
  readonly uploadsUnverified: number
  readonly uploadsPerPeer: number
  readonly uploadOctets: number
  readonly uploadIdleMs: number

  /** Snapshots from which later blocks of a changing resource are served. */
  readonly snapshots: number
  readonly snapshotsPerPeer: number
  readonly snapshotOctets: number
  readonly snapshotIdleMs: number

  /** Observe relations that this server keeps. */
  readonly observers: number
  readonly observersPerPeer: number
  readonly observersUnverified: number
  /** A notification is confirmable at least this often (RFC 7641 §4.5 asks for 24 h). */
  readonly confirmEvery: number
  readonly confirmEveryMs: number

  /** Deduplication memory: octets in all, entries of one peer. */
  readonly deduplicationOctets: number
  readonly deduplicationPerPeer: number
  /** Requests whose handler has not returned yet: in all, of one peer. */
  readonly activeRequests: number
  readonly activeRequestsPerPeer: number
  /** Requests of one source prefix (/32 or /48) that is not trusted: per second, and at once. */
  readonly requestsPerSecond: number
  readonly requestBurst: number
  /** Resets for messages that nobody here waits for, of all sources: per second, and at once. */
  readonly resetsPerSecond: number
  readonly resetBurst: number
  /** Replies kept ready for the octets of a GET. */
  readonly readyReplies: number

  /** Messages that wait for their turn: to one peer, in all. */
  readonly queuedPerPeer: number
  readonly queued: number
  /** Requests of this client that wait for a response. */
  readonly outstandingRequests: number
  /** Time for a separate response after the empty ACK, and for the response to a NON request. */
  readonly separateTimeoutMs: number
  readonly nonTimeoutMs: number
  /** An observation is renewed at the latest after this time, whatever Max-Age says: a restarted server forgot it. */
  readonly observeRefreshMs: number

  /** Amplification towards sources that are not verified. */
  readonly verifiedMs: number
  readonly verifiedSources: number
  readonly amplificationFactor: number
  readonly prefixBucketOctets: number
  readonly prefixRefillPerSecond: number
  readonly globalBucketOctets: number
  readonly globalRefillPerSecond: number
  readonly prefixes: number
}

export const defaultLimits: CoapLimits = {
  ackTimeoutMs: 2000,
  ackRandomFactor: 1.5,
  maxRetransmit: 4,
  nstart: 1,
  exchangeLifetimeMs: 247_000,
  nonLifetimeMs: 145_000,
  leisureMs: 5000,
  leisurelyReplies: 1024,
  separateAfterMs: 500,

  datagramOctets: 4096,
  blockOctets: 1024,
  bodyOctets: 256 * 1024,
  responseOctets: 4 * 1024 * 1024,

  uploads: 256,
  uploadsUnverified: 64,
  uploadsPerPeer: 16,
  uploadOctets: 16 * 1024 * 1024,
  uploadIdleMs: 120_000,

  snapshots: 1024,
  snapshotsPerPeer: 64,
  snapshotOctets: 16 * 1024 * 1024,
  snapshotIdleMs: 120_000,

  observers: 10_000,
  observersPerPeer: 64,
  observersUnverified: 256,
  confirmEvery: 20,
  confirmEveryMs: 24 * 3600_000,

  deduplicationOctets: 4 * 1024 * 1024,
  deduplicationPerPeer: 4096,
  activeRequests: 4096,
  activeRequestsPerPeer: 64,
  requestsPerSecond: 500,
  requestBurst: 2000,
  resetsPerSecond: 64,
  resetBurst: 256,
  readyReplies: 4096,

  queuedPerPeer: 1024,
  queued: 65_536,
  outstandingRequests: 4096,
  separateTimeoutMs: 60_000,
  nonTimeoutMs: 10_000,
  observeRefreshMs: 300_000,

  verifiedMs: 600_000,
  verifiedSources: 16_384,
  amplificationFactor: 3,
  prefixBucketOctets: 16 * 1024,
  prefixRefillPerSecond: 1024,
  globalBucketOctets: 256 * 1024,
  globalRefillPerSecond: 64 * 1024,
  prefixes: 16_384,
}
