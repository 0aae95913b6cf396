import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, test } from 'vitest'
// @ts-expect-error: a tool that runs before the build has no declarations
import { outcome, SUITES } from '../../tools/test-all.mjs'

test.each([
  [0, ['ok', '12 passed, 0 failed'], 'passed'],
  [1, ['12 passed, 1 failed'], 'failed'],
  [null, ['12 passed, 0 failed'], 'failed'],
  [1, ['skipped: no qemu'], 'failed'],
  [0, ['skipped: qemu-system-x86_64 is not on this host', ''], 'skipped'],
  [0, ['skipped: no Go', 'skipped: no Java', '0 passed, 0 failed, 2 skipped'], 'skipped'],
  [0, ['skipped: no Go', '10 passed, 0 failed, 1 skipped'], 'passed'],
  [0, ['      Tests  2100 passed | 3 skipped (2103)'], 'passed'],
  [0, [], 'passed'],
])('exit code %s and %j: %s', (status, lines, result) => {
  expect(outcome(status, lines).result).toBe(result)
})

test('every suite is a script of package.json', () => {
  const { scripts } = JSON.parse(readFileSync(resolve(import.meta.dirname, '../../package.json'), 'utf8'))
  for (const script of Object.values(SUITES as Record<string, string>)) expect(scripts).toHaveProperty([script])
})
