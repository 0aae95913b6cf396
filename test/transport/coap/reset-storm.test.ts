/** A peer that answers resets, as go-coap does, must not keep us busy for ever. */
import { expect, test } from 'vitest'
import { Code } from '../../../transport/coap/codes.ts'
import { encodeMessage, MessageType } from '../../../transport/coap/message.ts'
import { Router } from '../../../transport/coap/server.ts'
import { world } from './fixtures.ts'

test('resets for messages that nobody waits for are limited, and come again after a while', async () => {
  const w = world(new Router(), { server: { limits: { resetBurst: 20, resetsPerSecond: 2 } } })
  const raw = w.raw()
  let messageId = 1
  const stray = (): void =>
    raw.sendOctets(encodeMessage({ type: MessageType.con, code: Code.notFound, messageId: messageId++ }))

  const seen = { resets: 0 }
  for (let round = 0; round < 200; round++) {
    stray()
    await w.timers.advance(10)
    seen.resets += raw.take().filter((message) => message.type === MessageType.reset).length
  }
  // 2 s of virtual time: the burst and four more
  expect(seen.resets).toBeGreaterThanOrEqual(20)
  expect(seen.resets).toBeLessThanOrEqual(25)
  await w.timers.advance(5000)
  stray()
  await w.timers.advance(10)
  expect(raw.take().map((message) => message.type)).toEqual([MessageType.reset])
  await w.close()
})
