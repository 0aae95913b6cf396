/**
 * Structured logs: one JSON object a line, made for journald. No octet strings ever reach a line, and fields whose name
 * speaks of a secret are blanked, so that a careless call leaks nothing. Our own forty lines instead of pino, which
 * brings worker threads along: 4 MB of a small device's memory.
 */
import { writeSync } from 'node:fs'
import { isIotchainError } from '../protocol/errors.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

export interface LogFunction {
  (message: string): void
  (fields: Record<string, unknown>, message: string): void
}

export interface Logger {
  readonly debug: LogFunction
  readonly info: LogFunction
  readonly warn: LogFunction
  readonly error: LogFunction
  /**
   * At most one line per `key` in `intervalMs`; the next line says how many were left out. For whatever a stranger
   * can cause.
   */
  limited(
    key: string,
    level: 'debug' | 'info' | 'warn' | 'error',
    fields: Record<string, unknown>,
    message: string,
  ): void
  /** A logger that adds fields to each line. */
  child(fields: Record<string, unknown>): Logger
  level: LogLevel
}

export interface LoggerOptions {
  readonly name: string
  readonly level?: LogLevel
  /** Where lines go; standard output by default. */
  readonly write?: (line: string) => void
  /** Interval of `limited`. */
  readonly intervalMs?: number
  readonly monotonicMs?: () => number
}

const SECRET =
  /(^|[^a-z])(key|secret|password|passphrase|seed|code|psk|token|private)s?$|[a-z](Key|Secret|Password|Passphrase|Seed|Psk)s?$/
const PUBLIC = new Set(['signingKeyThumbprint', 'publicKey', 'errorCode', 'code'])
const MAX_LIMITED_KEYS = 1000

export function createLogger(options: LoggerOptions): Logger {
  const limiter = createLimiter(options.intervalMs ?? 10_000, options.monotonicMs ?? (() => performance.now()))
  const sink: Sink = { level: options.level ?? 'info', write: options.write ?? writeStandardOutput }
  return makeLogger(sink, limiter, { name: options.name })
}

/** A logger that writes nothing: the default of library parts. */
export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  limited() {},
  child() {
    return silentLogger
  },
  level: 'silent',
}

type Limiter = (key: string) => number | undefined

/** Answers how many lines were left out since the last one, or undefined when this one is to be left out too. */
function createLimiter(intervalMs: number, monotonicMs: () => number): Limiter {
  const seen = new Map<string, { sinceMs: number; left: number }>()
  return (key) => {
    const nowMs = monotonicMs()
    const entry = seen.get(key)
    if (entry !== undefined && nowMs - entry.sinceMs < intervalMs) {
      entry.left++
      return undefined
    }
    seen.delete(key)
    if (seen.size >= MAX_LIMITED_KEYS) seen.delete(seen.keys().next().value as string)
    seen.set(key, { sinceMs: nowMs, left: 0 })
    return entry?.left ?? 0
  }
}

/** Shared by a logger and its children. */
interface Sink {
  level: LogLevel
  readonly write: (line: string) => void
}

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3, silent: 4 }

function makeLogger(sink: Sink, limiter: Limiter, base: Record<string, unknown>): Logger {
  const line =
    (level: Exclude<LogLevel, 'silent'>): LogFunction =>
    (a: string | Record<string, unknown>, message?: string) => {
      if (RANK[level] < RANK[sink.level]) return
      const [fields, msg] = typeof a === 'string' ? [{}, a] : [plain(a, 0) as Record<string, unknown>, message]
      sink.write(`${JSON.stringify({ level, time: new Date().toISOString(), ...base, ...fields, msg })}\n`)
    }
  const logger: Logger = {
    debug: line('debug'),
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
    limited(key, level, fields, message) {
      if (RANK[level] < RANK[sink.level]) return
      const left = limiter(key)
      if (left !== undefined) logger[level](left === 0 ? fields : { ...fields, leftOut: left }, message)
    },
    child: (fields) => makeLogger(sink, limiter, { ...base, ...(plain(fields, 0) as Record<string, unknown>) }),
    get level() {
      return sink.level
    },
    set level(level) {
      sink.level = level
    },
  }
  return logger
}

/** What may stand in a line: no octets, no secrets, no stack of an expected error. */
function plain(value: unknown, depth: number): unknown {
  if (value === null || typeof value !== 'object') return typeof value === 'bigint' ? value.toString() : value
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `(${value.byteLength} octets)`
  if (value instanceof Error) return describeError(value)
  if (value instanceof Date) return value.toISOString()
  if (depth >= 4) return '(…)'
  if (Array.isArray(value)) return value.slice(0, 20).map((v) => plain(v, depth + 1))
  if (value instanceof Map) return plain(Object.fromEntries(value), depth)
  const out: Record<string, unknown> = {}
  for (const [name, v] of Object.entries(value)) {
    out[name] = !PUBLIC.has(name) && SECRET.test(name) ? '(hidden)' : plain(v, depth + 1)
  }
  return out
}

function describeError(error: Error): Record<string, unknown> {
  const cause = error.cause instanceof Error ? { cause: error.cause.message } : {}
  if (isIotchainError(error)) {
    return {
      code: error.code,
      message: error.message,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...cause,
    }
  }
  return { type: error.name, message: error.message, stack: error.stack, ...cause }
}

/** A full disk or a closed pipe behind standard output loses lines, never the daemon. */
function writeStandardOutput(line: string): void {
  const bytes = Buffer.from(line)
  let tries = 0
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || ++tries > 20) return
      Atomics.wait(pause, 0, 0, 1)
    }
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4))
