/** How often a resource is read where its settings say nothing. */
export const DEFAULT_PERIOD_MS = 60_000
