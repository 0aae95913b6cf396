/** Passwords come from a file, from the environment's file, or from the terminal without echo; never from an argument. */
import { readFile } from 'node:fs/promises'
import { IotchainError } from '../../protocol/errors.ts'

export interface PasswordTerminal {
  readonly input: NodeJS.ReadStream
  readonly output: { write(text: string): unknown }
}

/**
 * @param file the file whose first line is the password, or undefined to ask
 * @param prompt what to ask for, e.g. "Password of 0x12…"
 * @throws `wallet/no-password` when there is neither a file nor a terminal, or the password is empty
 */
export async function readPassword(
  file: string | undefined,
  prompt: string,
  terminal: PasswordTerminal = { input: process.stdin, output: process.stderr },
): Promise<string> {
  const password = file === undefined ? await ask(prompt, terminal) : await firstLineOf(file)
  if (password === '') {
    throw new IotchainError('wallet/no-password', 'the password is empty', {
      hint: file === undefined ? 'type the password of the key' : `put the password on the first line of ${file}`,
    })
  }
  return password
}

/** Asks twice, for a key that is about to be made. */
export async function readNewPassword(file: string | undefined, prompt: string): Promise<string> {
  const password = await readPassword(file, prompt)
  if (file !== undefined) return password
  if ((await readPassword(undefined, 'The same again')) !== password) {
    throw new IotchainError('wallet/password-mismatch', 'the two passwords differ', { hint: 'run the command again' })
  }
  return password
}

async function firstLineOf(file: string): Promise<string> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    throw new IotchainError('wallet/no-password', `the password file ${file} cannot be read`, {
      hint: 'check the path given by --password-file or $IOTCHAIN_PASSWORD_FILE',
      cause,
    })
  }
  return (text.split('\n', 1)[0] as string).replace(/\r$/, '')
}

function ask(prompt: string, { input, output }: PasswordTerminal): Promise<string> {
  if (input.isTTY !== true) {
    return Promise.reject(
      new IotchainError('wallet/no-password', 'a password is needed and there is no terminal to ask at', {
        hint: 'give --password-file FILE or set $IOTCHAIN_PASSWORD_FILE',
      }),
    )
  }
  output.write(`${prompt}: `)
  return new Promise((resolve, reject) => {
    let typed = ''
    const finish = (outcome: () => void): void => {
      input.off('data', onData)
      input.setRawMode(false)
      input.pause()
      output.write('\n')
      outcome()
    }
    const onData = (chunk: Buffer | string): void => {
      for (const character of String(chunk)) {
        if (character === '\r' || character === '\n' || character === '\u0004') {
          finish(() => resolve(typed))
          return
        }
        if (character === '\u0003') {
          finish(() => reject(new IotchainError('wallet/no-password', 'interrupted at the password')))
          return
        }
        if (character === '\u007f' || character === '\b') typed = [...typed].slice(0, -1).join('')
        else if (character >= ' ') typed += character
      }
    }
    input.setRawMode(true)
    input.resume()
    input.on('data', onData)
  })
}
