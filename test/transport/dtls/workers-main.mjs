/**
 * node workers-main.mjs: handshakes in workers that end while others go on, then in the main thread, which has not loaded
 * the binding before. On standard input {binding, server, device, ca, rounds, atOnce}; tells what it found as JSON.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

if (isMainThread) {
  const work = JSON.parse(readFileSync(0, 'utf8'))
  const first = await round(work)
  const still = mapped()
  for (let i = 1; i < work.rounds; i++) await round(work)
  const main = handshakes(work, 3)
  console.log(JSON.stringify({ workers: first, mapped: still, main }))
} else {
  parentPort?.postMessage(handshakes(workerData.work, workerData.count))
}

/** Workers of different lengths. @returns resumptions of each */
function round(work) {
  const ended = (count) =>
    new Promise((resolve, reject) => {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { work, count } })
      let said
      worker.on('message', (message) => {
        said = message
      })
      worker.on('error', reject)
      worker.on('exit', () => resolve(said))
    })
  return Promise.all(Array.from({ length: work.atOnce }, (_, i) => ended(3 + 10 * i)))
}

/** Whether the binding lies in memory. */
function mapped() {
  return /dtls[^/]*\.node/.test(readFileSync('/proc/self/maps', 'latin1'))
}

/** Mutual handshakes of both ends in one thread, with tickets. @returns how many were resumed */
function handshakes({ binding, server: serverPems, device, ca }, count) {
  const b = createRequire(import.meta.url)(binding)
  const pems = ({ cert, key }) => ({ cert: Buffer.from(cert), key: Buffer.from(key), ca: Buffer.from(ca) })
  const tickets = { sessionIdContext: Buffer.from('workers'), ticketKeys: Buffer.alloc(80, 7) }
  const serving = b.createContext({ server: 1, ...pems(serverPems), clientAuth: 2, ...tickets })
  const asking = b.createContext({ server: 0, ...pems(device) })
  let session
  let resumed = 0
  for (let n = 0; n < count; n++) {
    const client = b.createAssociation(asking, { mtu: 4000, retransmitInitial: 1000, ...(session && { session }) })
    const server = b.createAssociation(serving, { mtu: 4000, retransmitInitial: 1000 })
    let open = 0
    let accepted = false
    const step = (association, bits) => {
      if (bits & 16) throw new Error(b.failure(association))
      if (bits & 32) accepted = true
      if (bits & 1) open++
    }
    step(client, b.receive(client))
    for (let turn = 0; turn < 10 && open < 2; turn++) {
      for (const datagram of outgoing(b, client)) {
        const remote = Buffer.from('127.0.0.1:1')
        step(server, accepted ? b.receive(server, datagram) : b.accept(server, datagram, undefined, remote, false))
      }
      for (const datagram of outgoing(b, server)) step(client, b.receive(client, datagram))
    }
    if (open !== 2) throw new Error('the handshake did not come to its end')
    if (b.facts(server).reused) resumed++
    session = b.session(client)
    b.exportKey(client, 32, Buffer.from('EXPORTER-test'))
    b.dispose(client)
    b.dispose(server)
  }
  return resumed
}

function* outgoing(b, association) {
  for (;;) {
    const datagram = b.takeOutgoing(association)
    if (datagram === undefined) return
    yield datagram
  }
}
