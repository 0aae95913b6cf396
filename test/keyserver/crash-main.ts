/** `npm run test:crash -- --kills N [--seed S]`: kills a key server N times; exit code 1 at the first thing that must not be. */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { runCrashes } from './crash-run.ts'

const { values } = parseArgs({ options: { kills: { type: 'string', default: '20' }, seed: { type: 'string' } } })
const kills = Number(values.kills)
const seed = Number(values.seed ?? Date.now() % 1_000_000)
if (!Number.isInteger(kills) || kills < 1 || !Number.isInteger(seed)) {
  console.error('test:crash: --kills and --seed take whole numbers')
  process.exit(2)
}
const child = resolve(import.meta.dirname, 'crash-child.js')
const report = await runCrashes({
  child,
  kills,
  seed,
  onKill: ({ kills: done, broadcasts, joins }) => {
    if (done % 10 === 0) console.log(`${done} kills, ${broadcasts} broadcasts, ${joins} joins`)
  },
})
for (const violation of report.violations) console.log(`VIOLATION ${violation}`)
const { broadcasts, joins, early, violations } = report
console.log(
  `${report.kills} kills (${early} while loading), seed ${seed}, ${broadcasts} broadcasts, ${joins} joins, ${violations.length} violations`,
)
process.exitCode = violations.length === 0 ? 0 : 1
