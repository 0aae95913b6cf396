/**
 * What every daemon's command line shares: `run --config FILE`, `check --config FILE`, `--print-config`; signals,
 * reload, systemd, watchdog, metrics, and errors as one sentence.
 */
import * as nodeModule from 'node:module'
import type { Command } from 'commander'
import type * as z from 'zod'
import type { Clock } from '../protocol/clock.ts'
import { systemClock } from './clock.ts'
import { resolvePath } from './config-path.ts'
import { createLogger, type Logger, type LogLevel } from './log.ts'
import { createMetrics, type Metrics, parseLoopback, serveMetrics } from './metrics.ts'
import { createNotifier } from './sd-notify.ts'
import { loadSettings } from './settings-cache.ts'
import { atMost, explain, runCommand, untilSignal } from './shutdown.ts'

export interface DaemonContext {
  readonly name: string
  readonly log: Logger
  readonly metrics: Metrics
  readonly clock: Clock
  /** The configuration file, as given. */
  readonly configFile: string
  /** Makes a path of the configuration absolute (relative to the file's folder; `credential:NAME` for systemd). */
  resolve(path: string): string
  /** True for `check`: load everything, bind and change nothing. */
  readonly checkOnly: boolean
}

export interface Daemon<C = unknown> {
  /** Binds sockets and begins to work. Resolves when the daemon is ready to serve. */
  start(): Promise<void>
  /** Stops within seconds; called once, also after a failed start. */
  stop(): Promise<void>
  /** Throws when the daemon is no longer doing its work: the watchdog is fed only while this resolves. */
  health?(): Promise<void> | void
  /** SIGHUP with a new configuration that has passed the schema. */
  reload?(config: C): Promise<void>
  /** What `check` prints beside "ok": advice, lines for config.txt, … */
  advice?(): Promise<readonly string[]> | readonly string[]
}

export interface DaemonSpec<S extends z.ZodType> {
  /** The command, e.g. `iotchain-device`. */
  readonly name: string
  readonly description: string
  readonly version: string
  /** Loaded where it is needed: a start from checked settings needs none. */
  schema(): Promise<S>
  /** Wires the daemon: reads keys and certificates, loads every module; opens no socket. */
  create(config: z.output<S>, context: DaemonContext): Promise<Daemon<z.output<S>>> | Daemon<z.output<S>>
  /** Adds further commands (init, doctor, …). */
  commands?(program: Command): void
  readonly clock?: Clock
}

interface CommonConfig {
  readonly log?: { readonly level?: LogLevel }
  readonly metrics?: { readonly listen?: string }
}

/** Since Node 22.10. */
const { flushCompileCache } = nodeModule as { flushCompileCache?: () => void }

const STOP_LIMIT_MS = 10_000

/** Runs the command line of a daemon to its end. Sets `process.exitCode`; prints no stack trace. */
export async function runDaemon<S extends z.ZodType>(
  spec: DaemonSpec<S>,
  argv: readonly string[] = process.argv,
): Promise<void> {
  // The usual start of a service: what only people need is not even loaded.
  if (argv.length === 5 && argv[2] === 'run' && argv[3] === '--config') {
    await runCommand(spec.name, () => runForeground(spec, argv[4] as string))
    return
  }
  const program = await commandLine(spec)
  await runCommand(spec.name, async () => {
    await program.parseAsync([...argv])
  })
}

async function commandLine<S extends z.ZodType>(spec: DaemonSpec<S>): Promise<Command> {
  const { Command } = await import('commander')
  const program = new Command(spec.name)
    .description(spec.description)
    .version(spec.version)
    .option('--print-config', 'print a commented configuration with every default')
    .showHelpAfterError('(--help lists the commands)')
    .action(async (options: { printConfig?: boolean }) => {
      if (options.printConfig !== true) program.help({ error: true })
      const { printConfig } = await import('./config-print.ts')
      process.stdout.write(printConfig(await spec.schema(), `${spec.name}: ${spec.description}`))
    })
  program
    .command('run')
    .description('run the daemon in the foreground')
    .requiredOption('--config <file>', 'configuration file (YAML)')
    .action(({ config }: { config: string }) => runForeground(spec, config))
  program
    .command('check')
    .description('load the whole daemon with a configuration, then exit')
    .requiredOption('--config <file>', 'configuration file (YAML)')
    .action(({ config }: { config: string }) => check(spec, config))
  spec.commands?.(program)
  return program
}

async function check<S extends z.ZodType>(spec: DaemonSpec<S>, file: string): Promise<void> {
  const { loadConfig } = await import('./config.ts')
  const config = loadConfig(await spec.schema(), file)
  checkCommon(config as CommonConfig)
  const log = createLogger({ name: spec.name, level: 'warn', write: (line) => void process.stderr.write(line) })
  const daemon = await spec.create(config, contextOf(spec, file, log, createMetrics(), true))
  for (const line of (await daemon.advice?.()) ?? []) console.log(line)
  await daemon.stop()
  console.log(`${file}: ok`)
}

async function runForeground<S extends z.ZodType>(spec: DaemonSpec<S>, file: string): Promise<void> {
  const config = await loadSettings(spec, file)
  const common = config as CommonConfig
  checkCommon(common)
  const log = createLogger({ name: spec.name, level: common.log?.level ?? 'info' })
  const metrics = createMetrics()
  const notifier = await createNotifier(log)
  const context = contextOf(spec, file, log, metrics, false)
  const daemon = await spec.create(config, context)
  const listen = common.metrics?.listen ?? 'off'
  let metricsServer: Awaited<ReturnType<typeof serveMetrics>> | undefined
  let watchdog: NodeJS.Timeout | undefined

  const signals = untilSignal(() => {
    reload(spec, file, daemon, log, notifier.notify).catch((error: unknown) =>
      log.error({ err: error }, 'reload failed'),
    )
  })
  const onRejection = (error: unknown): void => log.error({ err: error }, 'a fault was left unhandled')
  const onException = (error: unknown): void => {
    log.error({ err: error }, 'a fault that leaves no defined state: stopping')
    process.exit(70)
  }
  process.on('unhandledRejection', onRejection)
  process.on('uncaughtException', onException)
  try {
    if (listen !== 'off') metricsServer = await serveMetrics(metrics, listen)
    await daemon.start()
    notifier.notify('READY=1', 'STATUS=serving')
    log.info({ version: spec.version, node: process.version }, 'ready')
    // Else the compiled code would be kept at a clean stop only, which a device that is unplugged never sees.
    flushCompileCache?.()
    if (notifier.watchdogMs !== undefined) {
      const feed = async (): Promise<void> => {
        try {
          await daemon.health?.()
          notifier.notify('WATCHDOG=1')
        } catch (error) {
          log.limited('health', 'error', { err: error }, 'the health check failed; the watchdog is not fed')
        }
      }
      watchdog = setInterval(() => void feed(), notifier.watchdogMs)
    }
    const name = await signals.signal
    log.info({ signal: name }, 'stopping')
  } finally {
    notifier.notify('STOPPING=1')
    clearInterval(watchdog)
    const stopped = await atMost(STOP_LIMIT_MS, Promise.all([daemon.stop(), metricsServer?.close()])).catch(
      (error: unknown) => {
        log.error({ err: error }, 'the stop was not clean')
        return true
      },
    )
    if (!stopped) log.warn({ seconds: STOP_LIMIT_MS / 1000 }, 'the stop took too long: leaving')
    signals.dispose()
    process.off('unhandledRejection', onRejection)
    process.off('uncaughtException', onException)
    if (!stopped) process.exit(1)
  }
  log.info('stopped')
}

async function reload<S extends z.ZodType>(
  spec: DaemonSpec<S>,
  file: string,
  daemon: Daemon<z.output<S>>,
  log: Logger,
  notify: (...lines: string[]) => void,
): Promise<void> {
  notify('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
  try {
    const config = await loadSettings(spec, file)
    const level = (config as CommonConfig).log?.level
    if (level !== undefined) log.level = level
    await daemon.reload?.(config)
    log.info('configuration read again')
  } catch (error) {
    const { message, hint, code } = explain(error)
    log.error({ code, reason: message, hint }, 'the new configuration is refused; the old one stays')
  } finally {
    notify('READY=1')
  }
}

function checkCommon(config: CommonConfig): void {
  const listen = config.metrics?.listen ?? 'off'
  if (listen !== 'off') parseLoopback(listen)
}

function contextOf<S extends z.ZodType>(
  spec: DaemonSpec<S>,
  configFile: string,
  log: Logger,
  metrics: Metrics,
  checkOnly: boolean,
): DaemonContext {
  return {
    name: spec.name,
    log,
    metrics,
    clock: spec.clock ?? systemClock,
    configFile,
    resolve: (path) => resolvePath(configFile, path),
    checkOnly,
  }
}
