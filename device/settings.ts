/** The configuration of the device daemon: the only source of defaults, checks and documentation. */
import { commonSections, interfaceChoice } from '../runtime/common-settings.ts'
import { durationMs } from '../runtime/duration.ts'
import * as z from '../runtime/zod.ts'
import { HEADER_HIGHEST } from './drivers/gpio-header.ts'
import { resourceSettings } from './resource-settings.ts'

const address = z.string().regex(/^0x[0-9a-fA-F]{40}$/, 'must be 0x and 40 hexadecimal digits')
/** @param leastPort 0 where any free port will do */
const coapUri = (scheme: 'coap' | 'coaps', leastPort = 1) =>
  z
    .string()
    .regex(
      new RegExp(`^${scheme}://(\\[[0-9a-fA-F:.%]+\\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?$`),
      `must look like ${scheme}://host:port`,
    )
    .refine((uri) => {
      const port = Number(/:(\d+)\/?$/.exec(uri)?.[1] ?? leastPort)
      return port >= leastPort && port <= 65535
    }, `the port must be ${leastPort} to 65535`)

export const deviceSettings = z
  .strictObject({
    device: z
      .strictObject({
        name: z
          .string()
          .regex(/^[A-Za-z0-9._-]{1,63}$/, 'letters, digits, ".", "_", "-", at most 63')
          .default('device')
          .describe('A name for logs and for the resource directory.'),
        listen: coapUri('coap', 0).default('coap://[::]:5683').describe('Where the device serves CoAP.'),
        proxy: coapUri('coap')
          .optional()
          .describe('Where sealed objects are uploaded; without it clients come to the device.')
          .meta({ example: 'coap://proxy.example:5683' }),
        multicast: interfaceChoice
          .default('all')
          .describe(
            'Network interfaces on which the device can be discovered, takes broadcasts sent to ff02::fd and 224.0.1.187, and asks neighbours for them: all, off, or their names.',
          ),
      })
      .prefault({})
      .describe('The device and its surroundings.'),
    identity: z
      .strictObject({
        address: address
          .optional()
          .describe('The device’s address on chain; must agree with the certificate.')
          .meta({ example: '0x00112233445566778899aabbccddeeff01020304' }),
        accountKey: z
          .string()
          .default('account.key')
          .describe('secp256k1 key behind the address; signs enrolment and registration only.'),
        certificate: z.string().default('device.crt').describe('X.509 certificate, with the issuing CA behind it.'),
        request: z
          .string()
          .default('device.csr')
          .describe('Certificate request (CSR); sent again to renew the certificate in time.'),
        key: z.string().default('device.key').describe('Private key of the certificate (P-256).'),
        ca: z.string().default('ca.crt').describe('Root certificate that the key server’s certificate must chain to.'),
        signingKey: z.string().default('signing.key').describe('Ed25519 key that signs sealed objects.'),
      })
      .prefault({})
      .describe('Key files, relative to this file; credential:NAME takes a systemd credential.'),
    keyserver: coapUri('coaps')
      .describe('The key server; it alone may be asked for group keys.')
      .meta({ example: 'coaps://keys.example:5684' }),
    chain: z
      .strictObject({
        id: z.number().int().min(0).describe('Chain id.').meta({ example: 20180415 }),
        registry: address
          .describe('Address of the DeviceRegistry contract.')
          .meta({ example: '0x1111111111111111111111111111111111111111' }),
      })
      .describe('Numbers that name the groups; the device never speaks to a node.'),
    state: z
      .string()
      .default('state')
      .describe('Folder for sequence numbers, group keys and sealed objects. Never copy it to another device.'),
    time: z
      .strictObject({
        trust: z
          .enum(['auto', 'always'])
          .default('auto')
          .describe(
            'auto: wait until the clock is known to be right (NTP, clock chip, or the key server). always: believe the clock at once.',
          ),
      })
      .prefault({})
      .describe('A Raspberry Pi has no clock chip: nothing is sealed before the time is known.'),
    buffer: z
      .strictObject({
        waiting: z
          .number()
          .int()
          .min(1)
          .max(100_000)
          .default(1024)
          .describe('Readings in memory that wait for a session key; the oldest go first.'),
        objects: z
          .number()
          .int()
          .min(10)
          .max(10_000_000)
          .default(100_000)
          .describe('Sealed objects on disk that wait for the proxy; the oldest go first.'),
        durability: z
          .enum(['group', 'strict'])
          .default('group')
          .describe(
            'group: written together each 5 s or 64 KiB, gentle to SD cards. strict: each one before it is served.',
          ),
        history: z
          .number()
          .int()
          .min(0)
          .max(100_000)
          .default(256)
          .describe('Packs of past readings kept for each resource; 0: none.'),
      })
      .prefault({})
      .describe('What is kept while key server or proxy are away.'),
    retry: z
      .strictObject({
        initial: durationMs({ min: '100ms' }).prefault('1s').describe('First wait after a failure.'),
        max: durationMs({ min: '1s' }).prefault('60s').describe('Longest wait; it doubles until then.'),
      })
      .prefault({})
      .describe('Waits before key server and proxy are tried again.'),
    gpio: z
      .strictObject({
        chip: z.string().default('auto').describe('Label of the GPIO controller; auto takes the Raspberry Pi’s.'),
        allowInternal: z.boolean().default(false).describe('Allow BCM numbers above 27, which are not on the header.'),
      })
      .prefault({})
      .describe('The GPIO lines.'),
    sysfsRoot: z.string().default('/sys').describe('Where the kernel’s files are; another place for tests.'),
    resources: z
      .array(resourceSettings)
      .min(1)
      .max(64)
      .describe('What the device measures and switches; "driver" decides which settings there are.')
      .meta({
        example: [
          { path: '/s/system', driver: 'host', fields: ['cpuTemperature', 'load', 'memory'], group: 0, every: '60s' },
          { path: '/s/demo', driver: 'simulated', seed: 7, unit: 'Cel', group: 1, every: '10s' },
        ],
      }),
    ...commonSections,
  })
  .superRefine((settings, context) => {
    const seen = new Set<string>()
    const lines = new Map<number, string>()
    settings.resources.forEach((resource, i) => {
      if (seen.has(resource.path)) {
        context.addIssue({
          code: 'custom',
          path: ['resources', i, 'path'],
          message: `"${resource.path}" is there twice`,
        })
      }
      seen.add(resource.path)
      if ('bcm' in resource) {
        const at = ['resources', i, 'bcm']
        if (resource.bcm > HEADER_HIGHEST && !settings.gpio.allowInternal) {
          const message = `BCM ${resource.bcm} is not on the header; gpio.allowInternal: true if you know what you do`
          context.addIssue({ code: 'custom', path: at, message })
        }
        const other = lines.get(resource.bcm)
        if (other !== undefined) {
          context.addIssue({ code: 'custom', path: at, message: `BCM ${resource.bcm} is the line of ${other} already` })
        }
        lines.set(resource.bcm, resource.path)
      }
      const actuator = resource.driver === 'gpio-out' || resource.driver === 'simulated-out'
      if (actuator !== resource.path.startsWith('/a/')) {
        const message = actuator ? 'an actuator’s path begins with /a/' : 'a sensor’s path begins with /s/'
        context.addIssue({ code: 'custom', path: ['resources', i, 'path'], message })
      }
      if (actuator && 'commandGroup' in resource && resource.commandGroup === resource.group) {
        const message = 'must differ from group: reading and commanding are different rights'
        context.addIssue({ code: 'custom', path: ['resources', i, 'commandGroup'], message })
      }
    })
  })

export type DeviceSettings = z.output<typeof deviceSettings>
