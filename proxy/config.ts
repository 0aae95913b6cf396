/** The proxy's configuration: the only description of its settings; `--print-config` and docs/configuration.md come from it. */
import { commonSections, interfaceChoice } from '../runtime/common-settings.ts'
import { durationMs } from '../runtime/duration.ts'
import * as z from '../runtime/zod.ts'

const HEX32 = /^(0x)?[0-9a-fA-F]{64}$/

const keyServer = z
  .strictObject({
    uri: z
      .string()
      .regex(/^coaps:\/\//, 'must begin with coaps://')
      .describe('The key server over DTLS: vouches for the key that signs credentials and broadcasts.')
      .meta({ examples: ['coaps://keyserver.example:5684'] }),
    plain: z
      .string()
      .regex(/^coap:\/\//, 'must begin with coap://')
      .optional()
      .describe('Its public CoAP address, for credentials and broadcasts; else the same host at port 5683.')
      .meta({ examples: ['coap://keyserver.example:5683'] }),
    spki: z
      .string()
      .regex(HEX32, 'must be 64 hexadecimal digits')
      .optional()
      .describe('SHA-256 of its public key (SubjectPublicKeyInfo), as in the device registry. This or ca is needed.')
      .meta({ examples: ['0000000000000000000000000000000000000000000000000000000000000000'] }),
    ca: z
      .string()
      .optional()
      .describe('File with the CA certificates that vouch for it (PEM).')
      .meta({ examples: ['ca.pem'] }),
  })
  .refine((k) => k.spki !== undefined || k.ca !== undefined, { error: 'needs spki or ca, to know the key server by' })

const count = (least: number, most: number, standard: number) => z.number().int().min(least).max(most).default(standard)

export const proxySchema = z.strictObject({
  ...commonSections,
  state: z.string().default('/var/lib/iotchain-proxy').describe('Folder of the stored objects; relative to this file.'),
  keyservers: z
    .array(keyServer)
    .min(1, 'needs at least one key server')
    .max(64)
    .describe('Whose devices are served: the key servers that issue their credentials.')
    .meta({ examples: [[{ uri: 'coaps://keyserver.example:5684', ca: 'ca.pem' }]] }),
  coap: z
    .strictObject({
      host: z.string().default('::').describe('Address to listen at; "::" is every IPv6 and IPv4 address.'),
      port: count(0, 65_535, 5683).describe('UDP port; 0 takes a free one.'),
      receiveBufferBytes: count(4096, 64 * 1024 * 1024, 1024 * 1024).describe(
        'Receive buffer of the socket; net.core.rmem_max caps it.',
      ),
      trustedPrefixes: z
        .array(z.string())
        .default([])
        .describe('Networks whose source addresses cannot be forged: no Echo round trip there.')
        .meta({ examples: [['192.168.0.0/16']] }),
      multicast: interfaceChoice
        .default('all')
        .describe(
          'Network interfaces on which the proxy can be discovered, and asked for broadcasts by neighbours (ff02::fd, 224.0.1.187): all, off, or their names.',
        ),
    })
    .prefault({})
    .describe('CoAP over UDP.'),
  http: z
    .strictObject({
      listen: z.string().default('off').describe('Address of the HTTP gateway, e.g. 127.0.0.1:8080; off: none.'),
      origins: z
        .array(z.string())
        .default(['*'])
        .describe('Web origins that may read (CORS); objects are sealed, so that "*" gives nothing away.'),
      maxStreams: count(1, 100_000, 256).describe('Open server-sent event streams at once.'),
    })
    .prefault({})
    .describe('HTTP for browsers (RFC 8075): objects, broadcasts and their streams, read only.'),
  accept: z
    .strictObject({
      maxSkew: durationMs({ min: '1s', max: '1h' })
        .prefault('5m')
        .describe('How far the time of sealing of a newest object may be from now.'),
      objectBytes: count(128, 60_000, 16_384).describe('Largest object; larger ones get 4.13.'),
      devices: count(1, 1_000_000, 1000).describe('Devices served at most.'),
      resourcesPerDevice: count(1, 1024, 64).describe('Resources of one device at most.'),
      putsPerSecond: z
        .number()
        .min(0.1)
        .max(10_000)
        .default(20)
        .describe('Objects of one device a second in the long run; above: 4.29.'),
      putBurst: count(1, 100_000, 2048).describe('Objects of one device at once, for backlogs.'),
    })
    .prefault({})
    .describe('What is taken from devices.'),
  history: z
    .strictObject({
      keep: durationMs({ min: '0s', max: '3650d' }).prefault('30d').describe('How long past objects stay.'),
      bytesPerDevice: count(0, 1e12, 64 * 1024 * 1024).describe('Past objects of one device; the oldest go first.'),
    })
    .prefault({})
    .describe('Past objects: packs, backlog and superseded ones.'),
  credentials: z
    .strictObject({
      refetch: durationMs({ min: '1s', max: '1h' })
        .prefault('10s')
        .describe('A group is asked for credentials at most this often.'),
      unknownPerMinute: count(1, 10_000, 60).describe(
        'Questions a minute about groups that no key server has claimed.',
      ),
    })
    .prefault({})
    .describe('Device credentials, fetched from the key servers and kept until they expire.'),
  broadcasts: z
    .strictObject({
      groups: count(1, 1_000_000, 4096).describe('Groups mirrored at most.'),
      archive: count(0, 100_000, 256).describe('Broadcasts kept per group.'),
    })
    .prefault({})
    .describe('The mirror of session broadcasts under /bc.'),
  forward: z
    .strictObject({
      allow: z
        .array(z.string())
        .default([])
        .describe(
          'Hosts, with or without a port, that requests with Proxy-Uri or Proxy-Scheme are forwarded to; none: off.',
        )
        .meta({ examples: [['[fd00::7]:5683']] }),
    })
    .prefault({})
    .describe('Forward proxying (RFC 7252 §5.7).'),
  directory: z
    .strictObject({
      enabled: z.boolean().default(true).describe('Resource directory /rd and /rd-lookup (RFC 9176).'),
      endpoints: count(1, 1_000_000, 1000).describe('Registrations at most.'),
    })
    .prefault({})
    .describe('Where devices tell their address and clients find them.'),
})

export type ProxyConfig = z.output<typeof proxySchema>
