/**
 * Two ends of the binding without sockets: datagrams pass through a function that may lose, repeat, reorder and change
 * them, and the API is called at moments that nobody intended.
 */
import {
  ACCEPTED,
  type Binding,
  CLOSED,
  FAILED,
  type NativeAssociation,
  type NativeContext,
  type NativeFacts,
  OPENED,
} from '../../../transport/dtls/binding.ts'
import { mutate } from './relay.ts'

export interface PairOptions {
  readonly dtls: Binding
  readonly random: () => number
  readonly client: NativeContext
  readonly server: NativeContext
  readonly pin?: Uint8Array | undefined
  readonly session?: Uint8Array | undefined
  readonly lookup?: ((identity: string) => Uint8Array | undefined) | undefined
  /** Probability that a datagram is changed; half of it again lost, repeated or late. */
  readonly mutation: number
  /** Probability of an untimely call per datagram. */
  readonly mischief: number
}

export interface PairResult {
  readonly clientOpen: boolean
  readonly serverOpen: boolean
  readonly serverFacts: NativeFacts | undefined
  readonly session: Buffer | undefined
  /** Both ends open, and their exporters agree. */
  readonly agree: boolean
  readonly delivered: number
}

const REMOTE = Buffer.from('127.0.0.1|40000')
const LABEL = Buffer.from('EXPORTER-Channel-Binding')
const MESSAGE = Buffer.from('a reading, or what is taken for one')

export function runPair(options: PairOptions): PairResult {
  const { dtls, random } = options
  const shape = { mtu: 300 + Math.floor(random() * 1100), retransmitInitial: 20 }
  const client = dtls.createAssociation(options.client, {
    ...shape,
    ...(options.pin === undefined ? {} : { pin: options.pin }),
    ...(options.session === undefined ? {} : { session: options.session }),
  })
  const server = dtls.createAssociation(options.server, shape)
  const up: Buffer[] = []
  const down: Buffer[] = []
  let accepted = false
  let clientState = 0
  let serverState = 0
  let delivered = 0
  let retransmissions = 0

  const collect = (from: NativeAssociation, into: Buffer[]): void => {
    for (let out = dtls.takeOutgoing(from); out !== undefined; out = dtls.takeOutgoing(from)) {
      const chance = random()
      const changed = random() < options.mutation ? mutate(out, random) : out
      if (chance < options.mutation / 6) continue
      if (chance < options.mutation / 3) into.push(changed)
      if (chance < options.mutation / 2) into.unshift(changed)
      else into.push(changed)
    }
  }
  const drain = (from: NativeAssociation): void => {
    for (let data = dtls.takeIncoming(from); data !== undefined; data = dtls.takeIncoming(from)) {
      if (data.equals(MESSAGE)) delivered++
    }
  }
  const toServer = (datagram: Buffer): void => {
    const happened = accepted
      ? dtls.receive(server, datagram, options.lookup)
      : dtls.accept(server, datagram, options.lookup, REMOTE, false)
    accepted ||= (happened & ACCEPTED) !== 0
    serverState |= happened
    collect(server, down)
    drain(server)
  }
  const toClient = (datagram?: Buffer): void => {
    clientState |= dtls.receive(client, datagram)
    collect(client, up)
    drain(client)
  }
  const untimely = (): void => {
    const [association, out] = random() < 0.5 ? ([client, up] as const) : ([server, down] as const)
    switch (Math.floor(random() * 9)) {
      case 0:
        dtls.send(association, MESSAGE)
        break
      case 1:
        dtls.facts(association)
        break
      case 2:
        dtls.session(association)
        break
      case 3:
        dtls.standing(association, options.server)
        break
      case 4:
        dtls.timeLeft(association)
        break
      case 5:
        dtls.failure(association)
        break
      case 6:
        swallow(() => dtls.exportKey(association, 32, LABEL))
        break
      case 7:
        if (random() < 0.1) dtls.shut(association)
        break
      default:
        if (random() < 0.05) dtls.dispose(association)
    }
    swallow(() => collect(association, out))
  }

  swallow(() => {
    toClient()
    for (let step = 0; step < 60; step++) {
      if (random() < options.mischief) untimely()
      const datagram = up.shift()
      if (datagram !== undefined) toServer(datagram)
      const answer = down.shift()
      if (answer !== undefined) toClient(answer)
      if (clientState & OPENED && serverState & OPENED && step % 7 === 0) {
        dtls.send(client, MESSAGE)
        collect(client, up)
        dtls.send(server, MESSAGE)
        collect(server, down)
      }
      if (up.length + down.length === 0) {
        if ((clientState | serverState) & (FAILED | CLOSED) || (clientState & serverState & OPENED && step > 30)) break
        if (retransmissions++ === 2) break
        sleep(6) // OpenSSL takes a timer with less than 15 ms to go for expired
        dtls.expire(client)
        collect(client, up)
        if (accepted) dtls.expire(server)
        collect(server, down)
      }
    }
  })
  const facts = attempt(() => dtls.facts(server))
  const [there, here] = [server, client].map((end) => attempt(() => dtls.exportKey(end, 32, LABEL)))
  const result: PairResult = {
    clientOpen: (clientState & OPENED) !== 0,
    serverOpen: (serverState & OPENED) !== 0,
    serverFacts: facts,
    session: attempt(() => dtls.session(client)),
    agree: there !== undefined && here !== undefined && there.equals(here),
    delivered,
  }
  // Some are left to the collector.
  if (random() < 0.8) dtls.dispose(client)
  if (random() < 0.8) dtls.dispose(server)
  if (random() < 0.2) dtls.dispose(server)
  return result
}

const pause = new Int32Array(new SharedArrayBuffer(4))

/** OpenSSL's timers follow the clock of the machine. */
function sleep(ms: number): void {
  Atomics.wait(pause, 0, 0, ms)
}

/** An association that was disposed of throws, as it should. */
function swallow(action: () => void): void {
  try {
    action()
  } catch (error) {
    if (!(error instanceof Error)) throw error
  }
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action()
  } catch {
    return undefined
  }
}
