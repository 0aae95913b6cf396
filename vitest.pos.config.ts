import { defineConfig } from 'vitest/config'

/** The key server on a proof-of-stake network; takes minutes, opt-in (`npm run test:pos`). */
export default defineConfig({
  ssr: { resolve: { conditions: ['iotchain-source'] } },
  test: {
    include: ['test/pos/**/*.pos.ts'],
    testTimeout: 600_000,
    hookTimeout: 300_000,
    fileParallelism: false,
  },
})
