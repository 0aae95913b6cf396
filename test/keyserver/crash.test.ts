import { beforeAll, expect, test } from 'vitest'
import { bundleProgram } from '../child-program.ts'
import { runCrashes } from './crash-run.ts'

let child: string
beforeAll(async () => {
  child = await bundleProgram('test/keyserver/crash-child.ts')
})

test('20 kills: never two bodies for a session, no member lost, no leaf used twice', async () => {
  const report = await runCrashes({ child, kills: 20, seed: 4711 })
  expect(report.violations).toEqual([])
  expect(report.kills).toBe(20)
  expect(report.broadcasts).toBeGreaterThan(20)
  expect(report.joins).toBeGreaterThan(20)
}, 120_000)

test('a disk that says "written" too early is found out', async () => {
  const report = await runCrashes({ child, kills: 3, seed: 1, disk: 'lying' })
  expect(report.violations).not.toEqual([])
}, 60_000)
