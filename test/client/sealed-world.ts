/**
 * A small world for tests: one key server's keys, groups with real broadcasts, devices that seal, credentials, and a
 * clock that stands still until it is moved. No sockets.
 */
import { suite } from '#crypto'
import type { Clock } from '../../protocol/clock.ts'
import { coseKeyEd25519 } from '../../protocol/cose/key.ts'
import { randomEpochSecrets } from '../../protocol/groups/epoch-secrets.ts'
import { clientMemberId, gidOf, gname } from '../../protocol/groups/gid.ts'
import { newManagerState } from '../../protocol/groups/manager-state.ts'
import { encodePersonalKey } from '../../protocol/groups/personal-key.ts'
import type { GroupManager } from '../../protocol/groups/scheme.ts'
import { sdsh } from '../../protocol/groups/sdsh.ts'
import { type Address, addressBytes, addressHex } from '../../protocol/messages/address.ts'
import type { JoinResponse } from '../../protocol/messages/join.ts'
import { issueCredential } from '../../protocol/objects/credential.ts'
import { createSealer } from '../../protocol/objects/seal.ts'
import { encodeSenml } from '../../protocol/objects/senml.ts'

export const CHAIN = { chainId: 20180415, registry: `0x${'11'.repeat(20)}` as Address }
export const SESSION_SECONDS = 900
const SENML = 112

export class TestClock implements Clock {
  seconds: number
  /** Seconds that it is ahead of the time that passes. */
  wrongBy = 0
  constructor(seconds = 1_800_000_000) {
    this.seconds = seconds
  }
  nowMs(): number {
    return (this.seconds + this.wrongBy) * 1000
  }
  monotonicMs(): number {
    return this.seconds * 1000
  }
}

const seed = (n: number): Uint8Array => new Uint8Array(32).fill(n)
export const addressOfNumber = (n: number): Address => addressHex(new Uint8Array(20).fill(n))

export class TestDevice {
  readonly address: Address
  readonly bytes: Uint8Array
  readonly signingKey
  sids: { sid: Uint8Array; from: number }[]
  constructor(number: number) {
    this.address = addressOfNumber(number)
    this.bytes = addressBytes(this.address)
    this.signingKey = suite.ed25519.signing(seed(number))
    this.sids = [{ sid: Uint8Array.of(number), from: 0 }]
  }
  get sid(): Uint8Array {
    return this.sids.at(-1)!.sid
  }
}

export class TestKeyServer {
  readonly clock: TestClock
  readonly signingKey = suite.ed25519.signing(seed(200))
  readonly kdcCred = coseKeyEd25519(this.signingKey.publicKey)

  constructor(clock: TestClock) {
    this.clock = clock
  }

  group(device: TestDevice, bit = 0): TestGroup {
    return new TestGroup(this, device, bit)
  }
}

export interface SealOptions {
  path?: readonly string[]
  seq?: number
  iat?: number
  session?: number
  sid?: Uint8Array
  value?: number
  signer?: TestDevice
  device?: TestDevice
  plaintext?: Uint8Array
  contentFormat?: number
}

export class TestGroup {
  readonly keyServer: TestKeyServer
  readonly device: TestDevice
  readonly bit: number
  readonly gid
  readonly manager: GroupManager
  readonly broadcasts = new Map<number, Uint8Array>()
  readonly #keys = new Map<number, Uint8Array>()
  #seq = 0

  constructor(keyServer: TestKeyServer, device: TestDevice, bit: number) {
    this.keyServer = keyServer
    this.device = device
    this.bit = bit
    this.gid = gidOf(suite, { ...CHAIN, registry: addressBytes(CHAIN.registry), device: device.bytes, bit })
    this.manager = sdsh(suite).manager({
      state: newManagerState(this.gid, { window: 8, dMin: 3 }),
      secrets: randomEpochSecrets((n) => suite.randomBytes(n)),
      signingKey: keyServer.signingKey,
    })
    this.manager.allocateEpoch({ nbf: keyServer.clock.seconds })
    this.manager.activateEpoch()
    this.#commit()
    this.manager.join(clientMemberId(new Uint8Array(20).fill(250)), { mode: 'next' })
    this.#commit()
    this.advance(0)
  }

  get session(): number {
    return this.manager.session
  }

  /** The next session begins `after` seconds from now (the clock moves there). */
  advance(after = SESSION_SECONDS): Uint8Array {
    const { clock } = this.keyServer
    clock.seconds += after
    const bytes = this.manager.next({ nbf: clock.seconds, exp: clock.seconds + SESSION_SECONDS })
    this.#commit()
    this.broadcasts.set(this.session, bytes)
    const id = clientMemberId(new Uint8Array(20).fill(250))
    for (const { session, K } of this.manager.keys(id)) this.#keys.set(session, K)
    return bytes
  }

  newest(): Uint8Array {
    return this.broadcasts.get(this.session)!
  }

  /** What the key server's join answers to this client. @param options.upcoming with the key of the epoch ahead */
  join(client: Address, options: { upcoming?: boolean } = {}): JoinResponse {
    const result = this.manager.join(clientMemberId(addressBytes(client)), { mode: 'current' })
    this.#commit()
    return {
      keys: result.keys.map(({ session, K }) => ({ session, key: K })),
      num: this.session,
      exp: this.keyServer.clock.seconds + SESSION_SECONDS,
      exi: SESSION_SECONDS,
      serverTime: this.keyServer.clock.seconds,
      creds: [this.credential()],
      peerIdentifiers: [this.device.sid],
      policies: {
        sessionSeconds: SESSION_SECONDS,
        graceSeconds: 60,
        aead: 24,
        window: 8,
        epochSeconds: 86_400,
        maxAgeSeconds: 600,
        confirmations: 3,
      },
      kdcCred: this.keyServer.kdcCred,
      controlUri: 'coaps://[::1]:1/ace-group',
      controlGroupUri: `coap://[::1]:1/bc/${gname(this.gid)}`,
      personalKey: encodePersonalKey((options.upcoming && result.upcoming) || result.personal),
    }
  }

  leave(client: Address): void {
    this.manager.leave(clientMemberId(addressBytes(client)))
    this.#commit()
  }

  credential(options: { device?: TestDevice; iat?: number; exp?: number } = {}): Uint8Array {
    const device = options.device ?? this.device
    const iat = options.iat ?? this.keyServer.clock.seconds - 3600
    return issueCredential(
      suite,
      {
        issuer: 'test',
        subject: device.address,
        iat,
        exp: options.exp ?? iat + 48 * 3600,
        publicKey: device.signingKey.publicKey,
        groups: new Map([[gname(this.gid), device.sids]]),
      },
      this.keyServer.signingKey,
    )
  }

  #commit(): void {
    if (this.manager.changes() !== undefined) this.manager.committed()
  }

  key(session: number): Uint8Array {
    return this.#keys.get(session)!
  }

  nextSeq(): number {
    return ++this.#seq
  }

  sealer(options: SealOptions = {}) {
    const { device = this.device, signer = device, path = ['s', 'temp'], session = this.session } = options
    return createSealer(suite, {
      K: this.key(session),
      gid: this.gid,
      session,
      device: device.bytes,
      sid: options.sid ?? device.sid,
      path,
      algorithm: 24,
      signingKey: signer.signingKey,
    })
  }

  /** The device seals a reading. */
  seal(options: SealOptions = {}): { signed: Uint8Array; mac: Uint8Array; encrypt0: Uint8Array; seq: number } {
    const iat = options.iat ?? this.keyServer.clock.seconds
    const seq = options.seq ?? this.nextSeq()
    const plaintext = options.plaintext ?? encodeSenml([{ n: 'temp', u: 'Cel', v: options.value ?? 21.5, t: iat }])
    const sealer = this.sealer(options)
    const encrypt0 = sealer.encrypt({ seq, iat, contentFormat: options.contentFormat ?? SENML, plaintext })
    return { signed: sealer.sign(encrypt0), mac: sealer.mac(encrypt0), encrypt0, seq }
  }
}
