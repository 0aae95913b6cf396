/** Run by sequence.test.ts: takes sequence numbers as fast as the clock allows, each printed before the next is taken. */
import { writeSync } from 'node:fs'
import { Sequence } from '../../device/sequence.ts'

const [, , path, offset, speed] = process.argv as [string, string, string, string, string]
const sequence = Sequence.open(path, 'machine')
const sid = sequence.group('0011223344556677')?.sid
if (sid === undefined) throw new Error('no Sender ID')
const name = Buffer.from(sid).toString('hex')
// The clock runs fast, so that a second passes in 20 ms; the parent says where it stands.
const startedMs = performance.now()
for (;;) {
  const step = sequence.next(Number(offset) + (performance.now() - startedMs) * Number(speed))
  if ('seq' in step) writeSync(1, `${name} ${step.seq}\n`)
}
