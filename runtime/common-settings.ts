/** What every daemon's configuration has. */
import * as z from './zod.ts'

/** Sections that every daemon's schema has: spread them into its `z.strictObject({...})`. */
export const commonSections = {
  log: z
    .strictObject({
      level: z
        .enum(['debug', 'info', 'warn', 'error'])
        .default('info')
        .describe('Least level of the lines that are written.'),
    })
    .prefault({})
    .describe('Logs: JSON lines on standard output.'),
  metrics: z
    .strictObject({
      listen: z
        .string()
        .default('off')
        .describe('Loopback address of the Prometheus page /metrics, e.g. 127.0.0.1:9464; off: none.'),
    })
    .prefault({})
    .describe('Figures for monitoring, for this host only.'),
}

/** On which network interfaces something happens: `all`, `off`, or their names as the kernel has them. */
export const interfaceChoice = z.union([
  z.enum(['all', 'off']),
  z
    .array(z.string().regex(/^[A-Za-z0-9._-]{1,15}$/))
    .min(1)
    .max(64),
])
