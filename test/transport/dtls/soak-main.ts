/**
 * npm run test:soak -- [--handshakes N] [--at-once N]: many handshakes of every kind in one process, both ends in it.
 * Fails if one is lost, or if memory grows from the tenth part of the way to its end.
 */
import { parseArgs } from 'node:util'
import { connect } from '../../../transport/dtls/connect.ts'
import type { ConnectOptions } from '../../../transport/dtls/types.ts'
import { createWorld, startServer } from './authority.ts'

const { values } = parseArgs({
  options: { handshakes: { type: 'string', default: '20000' }, 'at-once': { type: 'string', default: '16' } },
})
const total = Number(values.handshakes)
const atOnce = Number(values['at-once'])
/** After this part the process has its working size. */
const WARM = 0.1
const MOST_GROWTH = 1.1

const world = await createWorld()
const { cert, key } = world.server
const limits = { maxAssociations: 4096, maxAssociationsPerHost: 4096 }
const serving = { cert, key, ca: world.ca, clientAuth: 'optional', ...limits } as const
// Short, so that what the clients abandon is gone at the end.
const server = await startServer({ ...serving, handshakeTimeout: 5000 })
const device = { cert: world.device.cert, key: world.device.key }

await thousand()
let session: Buffer | undefined
let begun = 0
let done = 0
let warm: number | undefined
const started = performance.now()
await Promise.all(Array.from({ length: atOnce }, () => worker()))
const end = memory()
const { accepted, resumed, refused } = server.endpoint.stats
console.log(`${done} handshakes, ${resumed} resumed, ${refused} abandoned; RSS ${mb(warm ?? 0)} → ${mb(end)} MB`)
await server.endpoint.close()
if (end > MOST_GROWTH * (warm ?? 0)) {
  console.error(`failed: memory grew by more than ${Math.round((MOST_GROWTH - 1) * 100)} %`)
  process.exitCode = 1
} else if (accepted < done) {
  console.error(`failed: the server counts ${accepted} of ${done}`)
  process.exitCode = 1
} else console.log('passed: memory is flat')

async function worker(): Promise<void> {
  while (begun < total) {
    const n = begun++
    const kinds: ConnectOptions[] = [{}, device, device, { ...device, ...(session === undefined ? {} : { session }) }]
    const association = connect('127.0.0.1', server.port, { ca: world.ca, ...kinds[n % 4] })
    // One in fifty gives up in the middle, and the server waits for it in vain.
    if (n % 50 === 49) {
      const before = server.endpoint.stats.associations
      while (server.endpoint.stats.associations <= before && !association.protocol) await turn()
      association.destroy()
      continue
    }
    await association.opened
    const answer = new Promise<Buffer>((resolve) => {
      association.onmessage = resolve
    })
    association.send(Buffer.from(`handshake ${n}`))
    await answer
    session = association.session ?? session
    association.close()
    done++
    server.associations.length = 0
    if (warm === undefined && done >= total * WARM) warm = memory()
    if (done % 2000 === 0) {
      const rate = Math.round(done / ((performance.now() - started) / 1000))
      console.log(`${done} of ${total}, ${rate} a second, RSS ${mb(memory())} MB`)
    }
  }
}

/** 1 000 clients that all begin in the same moment, at a server with the time-outs that it has by default. */
async function thousand(): Promise<void> {
  const { endpoint, port } = await startServer(serving)
  const from = performance.now()
  const clients = Array.from({ length: 1000 }, () => connect('127.0.0.1', port, { ca: world.ca, ...device }))
  const results = await Promise.allSettled(clients.map((client) => client.opened))
  const lost = results.filter((result) => result.status === 'rejected').length
  const seconds = ((performance.now() - from) / 1000).toFixed(1)
  console.log(`1000 at once: ${1000 - lost} open after ${seconds} s, RSS ${mb(process.memoryUsage().rss)} MB`)
  for (const client of clients) client.close()
  await Promise.all(clients.map((client) => client.closed))
  await endpoint.close()
  if (lost > 0) {
    console.error(`failed: ${lost} of 1000 were lost`)
    process.exit(1)
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

function memory(): number {
  globalThis.gc?.()
  return process.memoryUsage().rss
}

function mb(octets: number): string {
  return (octets / 1e6).toFixed(0)
}
