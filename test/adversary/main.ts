/** `npm run test:adversary -- --schedules N --seed S` */
import { parseArgs } from 'node:util'
import { suite } from '../../protocol/crypto/node.ts'
import { campaign, caughtMutants } from './campaign.ts'

const whole = (text: string | undefined, name: string): number => {
  const value = Number(text)
  if (text === undefined || !Number.isSafeInteger(value) || value < 0) {
    console.error(`--${name} takes a whole number`)
    process.exit(2)
  }
  return value
}

const { values } = parseArgs({
  options: { schedules: { type: 'string', default: '200' }, seed: { type: 'string', default: '1' } },
})
const schedules = whole(values.schedules, 'schedules')
const seed = whole(values.seed, 'seed')
const started = Date.now()
const result = campaign(suite, {
  schedules,
  seed,
  mutantSchedules: Math.min(Math.max(schedules, 5), 50),
  progress: (done) => {
    if (process.stderr.isTTY && done % 10 === 0) process.stderr.write(`\r${done} of ${schedules} schedules`)
  },
})
if (process.stderr.isTTY) process.stderr.write('\r')
for (const line of result.violations.slice(0, 20)) console.log(line)
if (result.violations.length > 20) console.log(`… and ${result.violations.length - 20} more`)
for (const [name, { caught, of }] of result.mutants)
  console.log(`mutant "${name}": caught in ${caught} of ${of} schedules`)
console.log(`${result.coalitions} coalitions, ${result.exactness} exactness checks, ${result.recoveries} recoveries`)
console.log(`${((Date.now() - started) / 1000).toFixed(1)} s`)
const caught = caughtMutants(result)
const total = result.mutants.size
console.log(
  `${result.schedules} schedules, ${result.broadcasts} broadcasts, ${result.violations.length} violations, ` +
    `${caught} of ${total} mutants caught`,
)
if (result.violations.length > 0 || caught < total) process.exitCode = 1
