import { defineConfig } from 'vitest/config'

/** Suites on real geth; they are slow and opt-in (`npm run test:geth`). */
export default defineConfig({
  ssr: { resolve: { conditions: ['iotchain-source'] } },
  test: {
    include: ['test/geth/**/*.geth.ts'],
    testTimeout: 120_000,
    hookTimeout: 180_000,
    fileParallelism: false,
  },
})
