/** Commands of `iotchain-keyserver` beside run and check: init, spki. */
import type { Command } from 'commander'
import { suite } from '#crypto'
import { keyServerSchema } from '../../keyserver/config.ts'
import { initKeyServer } from '../../keyserver/init.ts'
import { toHex } from '../../protocol/bytes.ts'
import { IotchainError } from '../../protocol/errors.ts'
import { readFileOrExplain } from '../../runtime/atomic-file.ts'
import { loadConfig, resolvePath } from '../../runtime/config.ts'
import { spkiSha256 } from '../../runtime/pki/certificate.ts'

interface InitOptions {
  readonly config: string
  readonly name?: string[]
  readonly caCertificate?: string
  readonly caKey?: string
  readonly caPasswordFile?: string
  readonly days?: string
}

export function registerKeyServerCommands(program: Command): void {
  program
    .command('init')
    .description('make the broadcast key and the DTLS key, and with the root CA at hand the certificate')
    .requiredOption('--config <file>', 'configuration file that names the files to make')
    .option('--name <host...>', 'DNS names and IP addresses for the certificate')
    .option('--ca-certificate <file>', 'certificate of the root CA, PEM')
    .option('--ca-key <file>', 'its private key, PEM')
    .option('--ca-password-file <file>', 'file with the password of that key')
    .option('--days <n>', 'life of the certificate in days', '398')
    .action(init)
  program
    .command('spki')
    .description('print the SHA-256 of the public key: how the registry names this key server')
    .requiredOption('--config <file>', 'configuration file')
    .action(({ config: file }: { config: string }) => {
      const config = loadConfig(keyServerSchema, file)
      const certificate = readFileOrExplain(resolvePath(file, config.keys.certificate), 'certificate')
      console.log(`0x${toHex(spkiSha256(certificate.toString('latin1')))}`)
    })
}

async function init(options: InitOptions): Promise<void> {
  const config = loadConfig(keyServerSchema, options.config)
  const path = (file: string): string => resolvePath(options.config, file)
  const { certificate, key, broadcast } = config.keys
  const { caCertificate, caKey } = options
  if ((caCertificate === undefined) !== (caKey === undefined)) {
    throw new IotchainError('config/invalid', '--ca-certificate and --ca-key go together')
  }
  if (caCertificate !== undefined && (options.name ?? []).length === 0) {
    throw new IotchainError('config/invalid', 'the certificate needs --name with the host name or IP address')
  }
  const ca =
    caCertificate === undefined || caKey === undefined
      ? undefined
      : {
          certificate: caCertificate,
          key: caKey,
          passphrase: options.caPasswordFile && readPassword(options.caPasswordFile),
          names: options.name ?? [],
          days: Number(options.days),
        }
  const files = { certificate: path(certificate), key: path(key), broadcast: path(broadcast) }
  const { made, kept, spki } = await initKeyServer(suite, files, ca)
  for (const file of made) console.log(`made  ${file}`)
  for (const file of kept) console.log(`kept  ${file}`)
  console.log(`keyServer for the registry: 0x${toHex(spki)}`)
  if (ca === undefined && !made.concat(kept).includes(files.certificate)) {
    console.log(`next: have the root CA sign ${files.key} into ${files.certificate}, or repeat with --ca-certificate`)
  }
}

function readPassword(file: string): string {
  return readFileOrExplain(file, 'password file')
    .toString('utf8')
    .replace(/\r?\n$/, '')
}
