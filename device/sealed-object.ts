/** A sealed reading as the device keeps and serves it. */
export interface SealedObject {
  /** `/s/temp`; a pack's resource ends in `/@pack`. */
  readonly path: string
  readonly seq: number
  readonly sid: Uint8Array
  readonly session: number
  /** Unix seconds. */
  readonly iat: number
  /** COSE_Sign1. */
  readonly signed: Uint8Array
  /** COSE_Encrypt0 inside it, from which a COSE_Mac0 is made on request. */
  readonly encrypt0: Uint8Array
}

/** `/s/temp` → ['s', 'temp']. */
export function segmentsOf(path: string): readonly string[] {
  return path.split('/').slice(1)
}
