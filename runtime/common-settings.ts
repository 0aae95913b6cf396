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
