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
    const out = new Output({ json: globals.json === true })
    const interrupt = new AbortController()
    const onSignal = (name: NodeJS.Signals): void => {
      if (interrupt.signal.aborted) process.exit(130)
      process.exitCode = name === 'SIGINT' ? 130 : 143
      interrupt.abort()
    }
    process.on('SIGINT', onSignal)
    process.on('SIGTERM', onSignal)
    try {
      await work(
        {
          out,
          home: homeFolder(globals.home),
          passwordFile: passwordFile(globals.passwordFile),
          signal: interrupt.signal,
        },
        globals,
        ...args,
      )
    } catch (error) {
      if (interrupt.signal.aborted) return
      out.failure(error)
      process.exitCode = 1
    } finally {
      process.off('SIGINT', onSignal)
      process.off('SIGTERM', onSignal)
    }
  }
}

/** The program's frame: name, version, global options, usage errors with exit code 2. */
export function createProgram(name: string, description: string, version: string): Command {
  return new Command(name)
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
    .exitOverride()
}

/** Runs the program on the arguments; usage errors have been printed by commander and set the exit code 2. */
export async function runProgram(program: Command, argv: readonly string[], streams?: OutputStreams): Promise<void> {
  try {
    await program.parseAsync([...argv])
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : 2
      return
    }
    const out = new Output({ json: false, streams })
    out.failure(error)
    process.exitCode = describeFailure(error).code === 'unexpected' ? 70 : 1
  }
}

function homeFolder(option: string | undefined): string {
  const fromEnvironment = process.env['IOTCHAIN_HOME']
  if (option !== undefined && option !== '') return option
  if (fromEnvironment !== undefined && fromEnvironment !== '') return fromEnvironment
  const config = process.env['XDG_CONFIG_HOME']
  return join(config !== undefined && config !== '' ? config : join(homedir(), '.config'), 'iotchain')
}

function passwordFile(option: string | undefined): string | undefined {
  const file = option ?? process.env['IOTCHAIN_PASSWORD_FILE']
  return file === '' ? undefined : file
}
