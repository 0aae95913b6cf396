import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import * as abis from '../../chain/abi.ts'
import * as codes from '../../chain/bytecode.ts'

const ROOT = resolve(import.meta.dirname, '../..')

describe('what TypeScript has of the contracts', () => {
  test('is what the sources compile to', () => {
    // exit code 1 and a sentence if not
    execFileSync(process.execPath, [join(ROOT, 'tools/contracts.mjs'), '--check'], { stdio: 'pipe' })
  }, 180_000)

  test('has no immutables: creation code of one release ends in one runtime code', () => {
    const names = Object.keys(codes).filter((name) => name.endsWith('Code'))
    expect(names.length).toBe(12)
    for (const name of names) {
      const { creation, codeHash } = (codes as unknown as Record<string, codes.ContractCode>)[
        name
      ] as codes.ContractCode
      expect(creation).toMatch(/^0x[0-9a-f]{200,}$/)
      expect(codeHash).toMatch(/^0x[0-9a-f]{64}$/)
    }
  })

  test('uses no instruction that came after Paris', () => {
    for (const [name, code] of Object.entries(codes)) {
      if (typeof code === 'number') continue
      expect([name, opcodesOf(code.creation).filter((op) => op >= 0x5c && op <= 0x5f)]).toEqual([name, []])
      expect([name, opcodesOf(code.creation).filter((op) => op === 0x49 || op === 0x4a)]).toEqual([name, []])
    }
  })

  test('every function is documented by a typed ABI', () => {
    const functions = abis.accessTokenAbi.filter((item) => item.type === 'function').map((item) => item.name)
    for (const name of ['addToken', 'getToken', 'deleteToken', 'tokenOf', 'tokensOf', 'isValid', 'requestTokenFor']) {
      expect(functions).toContain(name)
    }
  })

  test('the compiler settings are those that forge tests', () => {
    const toml = readFileSync(join(ROOT, 'foundry.toml'), 'utf8')
    const tool = readFileSync(join(ROOT, 'tools/contracts.mjs'), 'utf8')
    expect(/optimizer_runs = (\d+)/.exec(toml)?.[1]).toBe(/runs: (\d+)/.exec(tool)?.[1])
    expect(/evm_version = "(\w+)"/.exec(toml)?.[1]).toBe(/evmVersion: '(\w+)'/.exec(tool)?.[1])
  })
})

/** Instructions in order, data of PUSH left out; the metadata at the end is cut off. */
function opcodesOf(hex: string): number[] {
  const octets = Buffer.from(hex.slice(2), 'hex')
  const metadata = octets.readUInt16BE(octets.length - 2) + 2
  const code = octets.subarray(0, octets.length - metadata)
  const found: number[] = []
  for (let at = 0; at < code.length; at++) {
    const op = code[at] as number
    found.push(op)
    if (op >= 0x60 && op <= 0x7f) at += op - 0x5f
  }
  return found
}
