/** The configuration file of `iotchain-keyserver`: one schema, printed with its comments by --print-config. */
import { IotchainError } from '../protocol/errors.ts'
import { type Address, parseAddress } from '../protocol/messages/address.ts'
import { commonSections, interfaceChoice } from '../runtime/common-settings.ts'
import { durationMs } from '../runtime/duration.ts'
import * as z from '../runtime/zod.ts'

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** `127.0.0.1:5684`, `[::1]:5684`, `[::]:5684`. @throws `config/invalid` */
export function parseHostPort(text: string): HostPort {
  const match = /^(?:\[([0-9a-fA-F:.%a-z]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65_535) {
    throw new IotchainError('config/invalid', `"${text}" is no address to listen on`, {
      hint: 'write HOST:PORT, for example 127.0.0.1:5684 or [::]:5684',
    })
  }
  return { host: (match[1] ?? match[2]) as string, port }
}

const hostPort = z.string().transform((text, context) => {
  try {
    return parseHostPort(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message })
    return z.NEVER
  }
})

const address = z.string().transform((text, context): Address => {
  try {
    return parseAddress(text)
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message })
    return z.NEVER
  }
})

const path = z.string().min(1)

const MAX_NODES = 9
const nodeUrl = z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' })

/** One node, or several different ones of which some agree. */
function checkNodes(
  { rpcUrl, nodes, agree }: { rpcUrl?: string | undefined; nodes: string[]; agree?: number | undefined },
  context: z.RefinementCtx,
): void {
  const fault = (setting: string, message: string): void =>
    context.addIssue({ code: 'custom', path: [setting], message })
  if (nodes.length === 0) {
    if (rpcUrl === undefined) fault('rpcUrl', 'required: the address of a node, or `nodes` for several')
    if (agree !== undefined) fault('agree', 'speaks of `nodes`, and there are none')
    return
  }
  if (rpcUrl !== undefined) fault('rpcUrl', 'cannot stand beside `nodes`: list it there')
  // the same node twice is no second opinion
  if (new Set(nodes.map((url) => new URL(url).href)).size < nodes.length) fault('nodes', 'names a node twice')
  if (agree !== undefined && agree > nodes.length) fault('agree', `is more than the ${nodes.length} nodes`)
}

export const keyServerSchema = z.strictObject({
  state: path.describe(
    'Folder of the store and of the epoch secrets; must survive reboots. Made when it is not there.',
  ),
  listen: z
    .strictObject({
      coaps: hostPort.prefault('[::]:5684').describe('Where devices and clients join, over DTLS.'),
      coap: hostPort.prefault('[::]:5683').describe('Where broadcasts and credentials are read in the open.'),
      publicUri: z
        .string()
        .regex(/^coap:\/\/[^/\s]+$/, 'must look like coap://HOST or coap://HOST:PORT')
        .optional()
        .describe(
          'How others reach the plain CoAP port, told to joiners. Default: the listening address, or the name in the certificate.',
        ),
      multicast: interfaceChoice
        .default('off')
        .describe(
          'Network interfaces on which the key server can be discovered (ff02::fd, 224.0.1.187): all, off, or their names.',
        ),
    })
    .prefault({})
    .describe('UDP addresses.'),
  keys: z
    .strictObject({
      certificate: path.describe('X.509 certificate of the key server (EKU serverAuth), PEM, leaf first.'),
      key: path.describe('Its private key, PEM. `credential:NAME` names a systemd credential.'),
      passphraseFile: path.optional().describe('File with the passphrase of the private key, where it has one.'),
      broadcast: path.describe('Ed25519 key that signs broadcasts and credentials, PEM; `init` makes it.'),
    })
    .describe('Who this key server is.'),
  issuers: z
    .array(path)
    .min(1)
    .describe('PEM files of the CAs whose device certificates are accepted (issuing CA, then its root).'),
  crl: z.array(path).default([]).describe('PEM files of revocation lists of those CAs; read again at SIGHUP.'),
  owners: z
    .array(address)
    .default([])
    .describe(
      'Resource owners whose devices are served. Devices enrolled here are served for the owner of their code.',
    ),
  chain: z
    .strictObject({
      rpcUrl: nodeUrl.optional().describe('JSON-RPC of the node, http:// or https://. Either this or `nodes`.'),
      nodes: z
        .array(nodeUrl)
        .max(MAX_NODES)
        .default([])
        .describe('JSON-RPC of several nodes that have to agree, at most 9, instead of `rpcUrl`.'),
      agree: z
        .number()
        .int()
        .min(1)
        .optional()
        .describe('How many of `nodes` have to agree before anything is decided. Default: more than half.'),
      proofs: z
        .boolean()
        .default(false)
        .describe(
          'Verify tokens, registry entries and contract codes by storage proofs (eth_getProof) against the state root of the block.',
        ),
      id: z.number().int().positive().describe('Chain id that the node must have.'),
      registry: address.describe('Address of the DeviceRegistry contract.'),
      confirmations: z
        .union([z.number().int().min(0).max(100_000), z.enum(['safe', 'finalized'])])
        .default(12)
        .describe('Blocks on top of a grant before it counts, or the tag that has to cover it.'),
      maxHeadAge: durationMs({ min: '1s' })
        .prefault('180s')
        .describe('An older newest block means that the node has lost the network: nobody is admitted.'),
      expectPeers: z
        .number()
        .int()
        .min(0)
        .default(0)
        .describe('Fewer peers of the node: nobody is admitted. 0: not asked.'),
      grace: durationMs()
        .prefault('1h')
        .describe('How long the last good reading of the chain is acted on; then token holders are suspended.'),
      poll: durationMs({ min: '100ms', max: '5m' }).prefault('2s').describe('How often the newest block is looked at.'),
      allowContracts: z
        .array(address)
        .default([])
        .describe('AccessToken contracts trusted whatever their code. Others must have a code hash of the descriptor.'),
      descriptor: path
        .optional()
        .describe('Signed chain descriptor: genesis, checkpoint and code hashes that the node must agree with.'),
    })
    .superRefine(checkNodes)
    .describe('The authorization chain.'),
  sessions: z
    .strictObject({
      length: durationMs({ min: '1s' }).prefault('15m').describe('Life of one group key.'),
      minimum: durationMs({ min: '1s' })
        .prefault('60s')
        .describe('Two sessions never begin closer together; never above the length.'),
      lead: durationMs()
        .prefault('30s')
        .describe('How long before its session a broadcast is out; at most a quarter of the length.'),
      grace: durationMs()
        .prefault('60s')
        .describe('How long clients take objects of a session that was superseded early.'),
      overrun: durationMs().prefault('0s').describe('How much longer than until the next session a key may seal.'),
      epoch: durationMs({ min: '10s' })
        .prefault('24h')
        .describe('Life of one key tree; then members fetch new personal keys.'),
      refreshLead: durationMs()
        .prefault('1h')
        .describe('How long before the border new personal keys are handed out; at most a quarter of the epoch.'),
      window: durationMs().prefault('24h').describe('How far back one broadcast heals, in time.'),
      windowSessions: z.number().int().min(1).max(65_535).default(96).describe('And at least so many sessions.'),
      joins: z
        .enum(['current', 'next'])
        .default('current')
        .describe('current: a joiner may read the running session; next: only from the next one on.'),
      strictExpiry: z.boolean().default(false).describe('Cut a session at the second in which a token ends.'),
      retainEpochs: z
        .number()
        .int()
        .min(0)
        .max(64)
        .default(2)
        .describe('Ended epochs whose personal keys can still be fetched.'),
    })
    .prefault({})
    .describe('Group keys.'),
  objects: z
    .strictObject({
      aead: z
        .enum(['chacha20-poly1305', 'aes-ccm-16-64-128', 'aes-128-gcm'])
        .default('chacha20-poly1305')
        .describe('Content encryption of new groups.'),
      maxAge: durationMs({ min: '1s' }).prefault('5m').describe('Age at which clients call a reading stale.'),
      acceptClockSkew: durationMs().prefault('60s').describe("How far a client's clock may be off in a key request."),
    })
    .prefault({})
    .describe('What is sealed under the group keys.'),
  enrolment: z
    .strictObject({
      certificate: path.describe('Certificate of the issuing CA for devices, PEM, then the chain up to the root.'),
      key: path.describe('Its private key, PEM.'),
      passwordFile: path.optional().describe('File with the password of that key, where it has one.'),
      days: z.number().min(0.01).max(3650).default(365).describe('Life of a device certificate in days.'),
    })
    .optional()
    .describe('Lets new devices enrol with a code. Without it certificates come from `iotchain owner ca`.'),
  relay: z
    .strictObject({
      keystore: path.describe('Encrypted Ethereum keystore file of the account that pays.'),
      passwordFile: path.describe('File with its password.'),
      offers: z
        .array(z.strictObject({ contract: address, offer: z.number().int().min(0) }))
        .min(1)
        .describe('Offers that requests are paid for.'),
      dailyEther: z.number().positive().default(0.1).describe('Ether that is spent in 24 hours at most.'),
      difficulty: z
        .number()
        .int()
        .min(1)
        .max(40)
        .default(18)
        .describe('Leading zero bits of the puzzle that a request has to solve.'),
    })
    .optional()
    .describe('Pays the transaction of token requests of fresh addresses.'),
  multicast: z
    .strictObject({
      group: hostPort.prefault('[ff02::fd]:5683').describe('Multicast group and port.'),
      interface: z.string().optional().describe('Name of the network interface; default: each one.'),
    })
    .optional()
    .describe('Sends each broadcast to the local network too.'),
  limits: z
    .strictObject({
      groups: z.number().int().min(1).default(10_000).describe('Groups in all.'),
      associations: z.number().int().min(1).default(1024).describe('DTLS associations at once.'),
      associationsPerHost: z.number().int().min(1).default(256).describe('DTLS associations at once from one host.'),
      leavesPerMember: z.number().int().min(1).default(4).describe('Leaves that one address uses up in one epoch.'),
      rejoinsPerHour: z.number().int().min(1).default(32).describe('Rejoins to one group in an hour.'),
      archiveMiB: z
        .number()
        .min(0)
        .default(64)
        .describe('MiB of old broadcasts kept for each group beyond the window.'),
      verifications: z.number().int().min(1).max(256).default(8).describe('Signatures of clients checked at once.'),
    })
    .prefault({})
    .describe('Bounds on what strangers can make grow.'),
  ...commonSections,
})

export type KeyServerConfig = z.output<typeof keyServerSchema>
