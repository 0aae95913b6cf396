/**
 * Where EM(e) comes from and how long it stays (protocol.md §3.2). The manager never sees more of it than these
 * calls, so that a key server can keep each secret in a file of its own and unlink it at retention.
 */
import { concat, u32, utf8 } from '../bytes.ts'
import type { CryptoSuite } from '../crypto/suite.ts'
import { IotchainError } from '../errors.ts'

export interface EpochSecrets {
  /** Makes EM(e), 32 octets, for a new epoch. `undefined`: nothing to be kept, it can be had again from elsewhere. */
  create(epoch: number): Uint8Array | undefined
  /** @throws `group/no-secret` when it is not there (any more) */
  get(epoch: number): Uint8Array
  /** The epoch is past its retention: forget the secret. */
  erase(epoch: number): void
}

/** 32 random octets per epoch: the product's way. `kept` are those loaded from the store. */
export function randomEpochSecrets(
  randomBytes: (length: number) => Uint8Array,
  kept: Iterable<readonly [number, Uint8Array]> = [],
): EpochSecrets {
  const secrets = new Map<number, Uint8Array>(kept)
  return {
    create(epoch) {
      const secret = randomBytes(32)
      secrets.set(epoch, secret)
      return secret
    },
    get(epoch) {
      const secret = secrets.get(epoch)
      if (secret === undefined || secret.length !== 32) {
        throw new IotchainError('group/no-secret', `the secret of epoch ${epoch} is not held`)
      }
      return secret
    },
    erase(epoch) {
      secrets.get(epoch)?.fill(0)
      secrets.delete(epoch)
    },
  }
}

/** EM(e) = H(root, "iotc1 epoch" ‖ gid ‖ u32(e)): for test vectors; one root opens every epoch for ever. */
export function rootEpochSecrets(suite: CryptoSuite, root: Uint8Array, gid: Uint8Array): EpochSecrets {
  if (root.length !== 32) throw new IotchainError('group/no-secret', 'a root has 32 octets')
  const label = utf8('iotc1 epoch')
  return {
    create: () => undefined,
    get: (epoch) => suite.hmacOnce(root, concat(label, gid, u32(epoch))),
    erase: () => undefined,
  }
}
