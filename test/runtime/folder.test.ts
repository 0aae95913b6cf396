import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { makeFolder } from '../../runtime/folder.ts'

function somewhere(): string {
  const folder = mkdtempSync(join(tmpdir(), 'iotchain-folder-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return folder
}

test('a folder is made with those above it, for this user alone, and may be there', () => {
  const path = join(somewhere(), 'a', 'b')
  makeFolder(path)
  makeFolder(path)
  expect([path, join(path, '..')].map((each) => statSync(each).mode & 0o777)).toEqual([0o700, 0o700])
})

test('where none can be made, that is said', () => {
  const file = join(somewhere(), 'file')
  writeFileSync(file, '')
  const said = expect.objectContaining({ code: 'runtime/cannot-write', hint: expect.stringContaining('folder above') })
  expect(() => makeFolder(join(file, 'a', 'b'))).toThrow(said)
  expect(() => makeFolder(file, 'state folder')).toThrow(`the state folder ${file} cannot be made`)
})

test.runIf(process.platform === 'linux')('where the system takes no folder at all, too, and at once', () => {
  const said = expect.objectContaining({ code: 'runtime/cannot-write' })
  expect(() => makeFolder('/proc/iotchain/device')).toThrow(said)
})
