/**
 * zod without its compiler: each schema checks a handful of values in the life of a process, and functions made for it
 * from text cost more than they save. Must be loaded before the first schema is made, so schemas import this.
 */
import { config } from 'zod'

config({ jitless: true })

export * from 'zod'
