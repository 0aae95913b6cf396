/** `npm run -s vectors -- FILE`: replays a file of vectors against both crypto suites. */
import { suite as noble } from '../protocol/crypto/noble.ts'
import { suite as node } from '../protocol/crypto/node.ts'
import { isIotchainError } from '../protocol/errors.ts'
import { readVectorFile } from './vector-file.ts'
import { replay } from './vector-replay.ts'

const [path, ...rest] = process.argv.slice(2)
if (path === undefined || rest.length > 0) {
  console.error('usage: npm run -s vectors -- FILE')
  process.exitCode = 2
} else {
  try {
    const file = readVectorFile(path)
    let passed = 0
    let failed = 0
    for (const suite of [node, noble]) {
      const result = replay(file, suite)
      for (const line of result.failures) console.log(line)
      passed += result.passed
      failed += result.failures.length
    }
    console.log(`${passed} passed, ${failed} failed`)
    if (failed > 0) process.exitCode = 1
  } catch (error) {
    if (!isIotchainError(error)) throw error
    console.error(error.message)
    process.exitCode = 2
  }
}
