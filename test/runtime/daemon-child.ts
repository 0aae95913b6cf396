/** A small daemon for daemon.test.ts. */
import { z } from 'zod'
import { IotchainError } from '../../protocol/errors.ts'
import { commonSections } from '../../runtime/common-settings.ts'
import { runDaemon } from '../../runtime/daemon.ts'

const schema = z.strictObject({
  ...commonSections,
  word: z.string().default('hello').describe('A word.'),
  fault: z.string().optional(),
})

await runDaemon({
  name: 'iotchain-test',
  description: 'a daemon for tests',
  version: '1.2.3',
  schema: async () => schema,
  create(config, { log }) {
    const timer = setInterval(() => {}, 1000)
    return {
      async start() {
        if (config.fault === 'coded')
          throw new IotchainError('device/clock', 'the clock is wrong', { hint: 'set the clock' })
        if (config.fault === 'busy') throw Object.assign(new Error('x'), { code: 'EADDRINUSE', port: 5683 })
        if (config.fault === 'rejection') void Promise.reject(new Error('left alone'))
        log.info({ word: config.word }, 'started')
      },
      async stop() {
        clearInterval(timer)
        log.info('parts stopped')
      },
      async reload(next) {
        log.info({ word: next.word }, 'reloaded')
      },
      advice: () => ['advice: none'],
    }
  },
})
