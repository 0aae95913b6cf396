import { defineConfig } from 'vitest/config'

export default defineConfig({
  ssr: { resolve: { conditions: ['iotchain-source'] } },
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 20_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    // Shared build machines stall for seconds; a test that waits for a process gets a second chance there, and vitest says so.
    retry: process.env['CI'] === undefined ? 0 : 1,
    coverage: { provider: 'v8', include: ['protocol/**/*.ts'], reporter: ['text-summary', 'text'] },
  },
})
