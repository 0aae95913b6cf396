/** `npm run test:fuzz -- --seconds 60 [--target NAME] [--shard I/N] [--seed N]`: each parser for so long; findings join the corpus. */
import { parseArgs } from 'node:util'
import { fuzz, loadCorpus, saveInput } from './engine.ts'
import { TARGETS } from './targets.ts'

const CORPUS = 'test/corpus'
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    target: { type: 'string' },
    shard: { type: 'string', default: '1/1' },
    seed: { type: 'string', default: String(Math.floor(Date.now() / 1000)) },
    'write-seeds': { type: 'boolean', default: false },
  },
})
const seconds = Number(values.seconds)
const seed = Number(values.seed)
const [shard, shards] = values.shard.split('/').map(Number) as [number, number]
const targets =
  values.target === undefined
    ? TARGETS.filter((_, i) => i % shards === shard - 1)
    : TARGETS.filter((t) => t.name === values.target)
if (!(seconds > 0) || !Number.isSafeInteger(seed) || targets.length === 0) {
  console.error(`--seconds and --seed take numbers, --target one of: ${TARGETS.map((t) => t.name).join(', ')}`)
  process.exit(2)
}
let inputs = 0
let findings = 0
for (const target of targets) {
  if (values['write-seeds']) for (const bytes of target.seeds()) saveInput(CORPUS, target, bytes)
  const result = fuzz(target, loadCorpus(CORPUS, target), { seed, milliseconds: seconds * 1000 })
  inputs += result.inputs
  findings += result.findings.length
  console.log(
    `${target.name}: ${(result.milliseconds / 1000).toFixed(0)} s, ${result.inputs} inputs, ${result.accepted} accepted, ${result.findings.length} findings`,
  )
  // the search ends by the wall clock, this is measured by another
  if (result.findings.length === 0 && result.milliseconds < seconds * 990) {
    console.log(`  was not searched for ${seconds} s`)
    process.exitCode = 1
  }
  for (const { input, reason } of result.findings) {
    console.log(`  ${reason}: ${input.length > 0 ? saveInput(CORPUS, target, input) : ''} (seed ${seed})`)
  }
}
console.log(`${targets.length} parsers, ${inputs} inputs, ${findings} findings`)
if (findings > 0) process.exitCode = 1
