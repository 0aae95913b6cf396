/**
 * The frame around each subcommand: global options, one-sentence errors, exit codes, Ctrl-C.
 * Exit codes: 0 done · 1 failed · 2 wrong usage · 130 interrupted.
 */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { describeFailure, Output, type OutputStreams } from './output.ts'

export interface CommandContext {
  readonly out: Output
  /** Folder of configuration, keys and state: `--home`, $IOTCHAIN_HOME or ~/.config/iotchain. */
  readonly home: string
  /** From `--password-file` or $IOTCHAIN_PASSWORD_FILE. */
  readonly passwordFile: string | undefined
  /** Aborted by Ctrl-C or SIGTERM: long work ends cleanly. */
  readonly signal: AbortSignal
}

interface GlobalOptions {
  json?: boolean
  home?: string
  passwordFile?: string
}

/** What surrounds a run of the program: the process, or a test. */
export interface ProgramFrame {
  readonly streams: OutputStreams
  readonly env: Readonly<Record<string, string | undefined>>
}

interface Run extends ProgramFrame {
  exitCode: number
}

const runs = new WeakMap<Command, Run>()

/**
 * Wraps the work of a subcommand for commander's `.action(…)`.
 * @example program.command('ping <uri>').action(action(async (ctx, options, uri) => ctx.out.result({ uri }, `pong ${uri}`)))
 */
export function action<O, A extends unknown[]>(
  work: (context: CommandContext, options: O, ...args: A) => Promise<void>,
): (this: Command, ...all: unknown[]) => Promise<void> {
  return async (...all) => {
    const command = all.at(-1) as Command
    const args = all.slice(0, -2) as A
    const globals = command.optsWithGlobals() as GlobalOptions & O
    const run = runOf(command)
    const out = new Output({ json: globals.json === true, streams: run.streams })
    const interrupt = new AbortController()
    const onSignal = (name: NodeJS.Signals): void => {
      if (interrupt.signal.aborted) process.exit(130)
      run.exitCode = name === 'SIGINT' ? 130 : 143
      interrupt.abort()
    }
    process.on('SIGINT', onSignal)
    process.on('SIGTERM', onSignal)
    try {
      const home = homeFolder(globals.home, run.env)
      const file = globals.passwordFile ?? run.env['IOTCHAIN_PASSWORD_FILE']
      const passwordFile = file === '' ? undefined : file
      await work({ out, home, passwordFile, signal: interrupt.signal }, globals, ...args)
    } catch (error) {
      if (interrupt.signal.aborted) return
      out.failure(error)
      run.exitCode = 1
    } finally {
      process.off('SIGINT', onSignal)
      process.off('SIGTERM', onSignal)
    }
  }
}

/** The program: name, version, global options, usage errors with exit code 2. */
export function createProgram(name: string, description: string, version: string): Command {
  const program: Command = new Command(name)
  return program
    .description(description)
    .version(version)
    .option('--json', 'print results as one line of JSON')
    .option(
      '--home <folder>',
      'folder of configuration, keys and state (default: $IOTCHAIN_HOME or ~/.config/iotchain)',
    )
    .option(
      '--password-file <file>',
      'file with the password of the key (default: $IOTCHAIN_PASSWORD_FILE, else asked)',
    )
    .showHelpAfterError('(run with --help to see what can be given)')
    .configureOutput({
      writeOut: (text) => void runOf(program).streams.stdout.write(text),
      writeErr: (text) => void runOf(program).streams.stderr.write(text),
    })
    .exitOverride()
}

/** Runs the program on the arguments. Everything that goes wrong has been told when it returns. @returns the exit code */
export async function runProgram(program: Command, argv: readonly string[], frame?: ProgramFrame): Promise<number> {
  const run: Run = { ...(frame ?? processFrame()), exitCode: 0 }
  runs.set(program, run)
  try {
    await program.parseAsync([...argv])
    return run.exitCode
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    new Output({ json: false, streams: run.streams }).failure(error)
    return describeFailure(error).code === 'unexpected' ? 70 : 1
  }
}

function processFrame(): ProgramFrame {
  return { streams: { stdout: process.stdout, stderr: process.stderr }, env: process.env }
}

function runOf(command: Command): Run {
  let root = command
  while (root.parent !== null) root = root.parent
  return runs.get(root) ?? { ...processFrame(), exitCode: 0 }
}

function homeFolder(option: string | undefined, env: ProgramFrame['env']): string {
  const named = option ?? env['IOTCHAIN_HOME']
  if (named !== undefined && named !== '') return named
  const config = env['XDG_CONFIG_HOME']
  return join(config !== undefined && config !== '' ? config : join(homedir(), '.config'), 'iotchain')
}
