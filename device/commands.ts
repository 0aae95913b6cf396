/**
 * Commands to actuators (protocol.md "Commands"). The device acts only on a fresh command, signed by a client that
 * the key server gave the right to, sealed for this device and this actuator, whose number was never used: the number
 * is on the disk before the line moves.
 */
import { suite } from '#crypto'
import { equalBytes, toHex } from '../protocol/bytes.ts'
import { IotchainError } from '../protocol/errors.ts'
import {
  COMMAND_CONTENT_FORMAT,
  COMMAND_GRACE,
  COMMAND_SECONDS,
  type CommandOrder,
  decodeCommand,
} from '../protocol/objects/command.ts'
import type { Credential } from '../protocol/objects/credential.ts'
import { ObjectOpener } from '../protocol/objects/open.ts'
import { type ParsedSigned, parseSigned } from '../protocol/objects/parse.ts'
import { coversTime, verifySigned } from '../protocol/objects/verify.ts'
import type { Logger } from '../runtime/log.ts'
import { decodeRecord, encodeRecord } from '../store/records.ts'
import type { Store } from '../store/store.ts'
import type { Credentials } from './credentials.ts'
import type { GroupSession } from './group-session.ts'

export interface CommandsOptions {
  /** 20 octets. */
  readonly device: Uint8Array
  readonly store: Store
  readonly credentials: Credentials
  readonly log: Logger
  readonly nowSeconds: () => number | undefined
  readonly monotonicMs: () => number
  /** Asks the key server for the group's credentials. */
  readonly fetchCredentials: (group: GroupSession) => Promise<void>
}

/** High-water mark of a sender, under `c/<gname>/<sid>`; `ca/<path>` has the last command of an actuator. */
interface HighWater {
  readonly seq: number
}

/** Where numbers were lost, commands sealed before that time are refused. */
const FLOOR_KEY = 'command-floor'
/** An unknown Sender ID makes the device ask the key server, this often at most. */
const FETCH_INTERVAL_MS = 10_000

export class Commands {
  readonly #options: CommandsOptions
  #floor: number | undefined
  readonly #openedMs: number
  #fetchedMs = Number.NEGATIVE_INFINITY
  #turn: Promise<unknown> = Promise.resolve()
  readonly #last = new Map<string, CommandOrder>()
  taken = 0
  refused = 0

  private constructor(options: CommandsOptions) {
    this.#options = options
    this.#openedMs = options.monotonicMs()
  }

  static async open(options: CommandsOptions, paths: readonly string[]): Promise<Commands> {
    const self = new Commands(options)
    const floor = await options.store.get(FLOOR_KEY)
    self.#floor = floor === undefined ? undefined : decodeRecord<number>(floor)
    for (const path of paths) {
      const last = await options.store.get(`ca/${path}`)
      if (last !== undefined) self.#last.set(path, decodeRecord<CommandOrder>(last))
    }
    return self
  }

  /** The last command that an actuator took. */
  last(path: string): CommandOrder | undefined {
    return this.#last.get(path)
  }

  /**
   * Checks a command and, when it is good, makes its number durable and then calls `act`. One at a time.
   * @throws `device/command-unsigned` (4.01), `device/command-forbidden` (4.03), `device/command-replayed` (4.09), `object/…`
   */
  take(
    bytes: Uint8Array,
    path: string,
    group: GroupSession,
    act: (value: boolean | number) => Promise<void>,
  ): Promise<void> {
    const turn = this.#turn.then(async () => {
      try {
        await this.#take(bytes, path, group, act)
        this.taken++
      } catch (error) {
        this.refused++
        throw error
      }
    })
    this.#turn = turn.catch(() => undefined)
    return turn
  }

  async #take(
    bytes: Uint8Array,
    path: string,
    group: GroupSession,
    act: (value: boolean | number) => Promise<void>,
  ): Promise<void> {
    const { device, store, log, nowSeconds } = this.#options
    const now = nowSeconds()
    if (now === undefined) throw new IotchainError('device/clock', 'the device does not know the time yet')
    await this.#ensureFloor(now)
    const parsed = parseSigned(bytes)
    const { header } = parsed
    if (!equalBytes(header.gid, group.gid)) throw forbidden('the command is of another group')
    checkSession(group, header.session, now)
    const sender = await this.#sender(parsed, group)
    const segments = path.split('/').slice(1)
    verifySigned(bytes, { device, path: segments, credentials: [sender], sender: sender.address })
    if (Math.abs(now - header.iat) > COMMAND_SECONDS) throw replayed('the command is not fresh: check the clocks')
    if (header.iat <= (this.#floor as number))
      throw replayed('the command is older than the device’s memory of commands')
    const key = `c/${group.gname}/${toHex(header.sid)}`
    const known = await store.get(key)
    const highWater = known === undefined ? -1 : decodeRecord<HighWater>(known).seq
    if (header.seq <= highWater) throw replayed('a command with this or a higher number was taken before')
    const opener = new ObjectOpener(suite, ({ session }) => group.key(session))
    if (header.contentFormat !== COMMAND_CONTENT_FORMAT) {
      throw new IotchainError('object/bad-command', 'a command has content-format 112')
    }
    const value = decodeCommand(opener.open(parsed, device, segments))
    const order = { sid: header.sid, seq: header.seq }
    await store.batch(
      [
        { type: 'put', key, value: encodeRecord({ seq: header.seq } satisfies HighWater) },
        { type: 'put', key: `ca/${path}`, value: encodeRecord(order) },
      ],
      { sync: true },
    )
    this.#last.set(path, order)
    await act(value)
    log.info({ path, value, client: sender.subject, seq: header.seq }, 'command')
  }

  /** The credential of the sender: role w, this group, this Sender ID, good at the time of sealing. Asks the key server once for an unknown one. */
  async #sender(parsed: ParsedSigned, group: GroupSession): Promise<Credential> {
    const { kid, header } = parsed
    const named = (): readonly Credential[] =>
      this.#options.credentials.commanders.filter(
        (c) => equalBytes(c.kid, kid) && (c.groups.get(group.gname) ?? []).some((g) => equalBytes(g.sid, header.sid)),
      )
    // One that has ended may have been followed by another: a token was renewed.
    const covering = (): Credential | undefined => named().find((c) => coversTime(c, header.iat))
    const known = covering()
    if (known !== undefined) return known
    const { monotonicMs, fetchCredentials, log } = this.#options
    if (monotonicMs() - this.#fetchedMs >= FETCH_INTERVAL_MS) {
      this.#fetchedMs = monotonicMs()
      await fetchCredentials(group).catch((error: unknown) => {
        log.limited('command-creds', 'warn', { err: error }, 'credentials for a command could not be fetched')
      })
    }
    const fetched = covering() ?? named()[0]
    if (fetched === undefined) {
      throw new IotchainError('device/command-unsigned', 'nobody with the right to command this device signed that')
    }
    return fetched
  }

  /** After a start without the numbers of before: the time of that start, known or reckoned back. */
  async #ensureFloor(now: number): Promise<void> {
    if (this.#floor !== undefined) return
    const floor = now - Math.floor((this.#options.monotonicMs() - this.#openedMs) / 1000)
    await this.#options.store.batch([{ type: 'put', key: FLOOR_KEY, value: encodeRecord(floor) }], { sync: true })
    this.#floor = floor
  }
}

/** The current session, or one superseded at most 10 s ago. */
function checkSession(group: GroupSession, session: number, now: number): void {
  if (group.key(session) === undefined) throw forbidden('the device does not have the key of that session')
  if (group.current()?.session === session) return
  const superseded = group.supersededAt(session)
  const times = group.times(session)
  const begun = times === undefined || times.nbf <= now
  if (!begun || superseded === undefined || now - superseded > COMMAND_GRACE) {
    throw forbidden('the session of the command is over: fetch the newest broadcast and send it again')
  }
}

function forbidden(message: string): IotchainError {
  return new IotchainError('device/command-forbidden', message)
}

function replayed(message: string): IotchainError {
  return new IotchainError('device/command-replayed', message)
}
