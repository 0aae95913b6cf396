/**
 * The commands of `iotchain-device` beside run and check: the steps between a new device and a registered one, and
 * those of its operation. A running daemon loads none of what they need.
 */
import type { Command } from 'commander'

export function registerDeviceCommands(program: Command): void {
  program
    .command('init')
    .description('make the keys of a new device and the request for its certificate; never overwrites')
    .option('--dir <folder>', 'where to put them', '.')
    .option('--json', 'print one line of JSON')
    .action(async (options) => (await actions()).init(options))
  program
    .command('enroll')
    .description('get a certificate from a key server by a code; makes the keys if there are none')
    .option('--keyserver <uri>', 'coaps://host:port')
    .option(
      '--code-file <file>',
      'file with the code; else it is asked for at the terminal or read from standard input',
    )
    .option(
      '--file <file>',
      'keyserver and code from a file (iotchain-enroll.yaml of a boot partition), deleted when used',
    )
    .option('--dir <folder>', 'where the keys are, or are made', '.')
    .option('--uri <uri>', 'how clients reach the key server, for the registration (default: as given here)', '')
    .option('--registration <file>', 'write the registration to a file too')
    .option('--config <file>', 'put key server and chain into this configuration')
    .action(async (options) => (await actions()).enroll(options))
  program
    .command('doctor')
    .description('look at what may keep the device from serving; exit code 0 well, 1 to look at, 2 broken')
    .requiredOption('--config <file>', 'configuration file')
    .option('--json', 'print one line of JSON')
    .action(async (options) => (await actions()).doctor(options))
  program
    .command('forget <path>')
    .description('have everything of a resource deleted, here and at the proxy')
    .requiredOption('--config <file>', 'configuration file')
    .action(async (path, options) => (await actions()).forget(path, options))
  program
    .command('registration')
    .description('print the signed registration that the owner submits to the registry')
    .requiredOption('--owner <address>', 'Ethereum address of the owner, who alone can submit it')
    .requiredOption('--keyserver-spki <hex>', 'SHA-256 of the key server’s public key, 64 hex digits')
    .option('--config <file>', 'take keys and chain from the device’s configuration')
    .option('--dir <folder>', 'folder of the keys, without a configuration', '.')
    .option('--chain-id <n>', 'chain id, without a configuration')
    .option('--registry <address>', 'DeviceRegistry contract, without a configuration')
    .option('--nonce <n>', 'nonce of the device in the registry: 0 at first', '0')
    .option('--deadline <when>', 'how long it is good: a duration from now, or unix seconds', '30d')
    .option('--uri <uri>', 'coaps:// address of the key server, for clients (default: the configuration’s)', '')
    .option('--qr', 'print a QR code too')
    .action(async (options) => (await actions()).registration(options))
}

function actions() {
  return import('./device-actions.ts')
}
