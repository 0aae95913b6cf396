/** An ERC-20 currency for tests: all of it belongs to who deploys it. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { Intent } from '../../chain/transaction.ts'
import type { Hex } from '../../chain/types.ts'

const require = createRequire(import.meta.url)
const MODULES = join(dirname(require.resolve('@openzeppelin/contracts/package.json')), '../..')
const SOURCE = `
pragma solidity ^0.8.28;
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
contract Coin is ERC20 { constructor() ERC20("Coin", "COIN") { _mint(msg.sender, 1000000); } }`

export function deployCoinIntent(): Intent {
  const solc = require('solc') as {
    compile(input: string, callbacks: { import(path: string): { contents: string } }): string
  }
  const input = {
    language: 'Solidity',
    sources: { 'Coin.sol': { content: SOURCE } },
    settings: { evmVersion: 'paris', outputSelection: { '*': { Coin: ['evm.bytecode.object'] } } },
  }
  const read = (path: string) => ({ contents: readFileSync(join(MODULES, path), 'utf8') })
  const { contracts } = JSON.parse(solc.compile(JSON.stringify(input), { import: read })) as {
    contracts: { 'Coin.sol': { Coin: { evm: { bytecode: { object: string } } } } }
  }
  const data: Hex = `0x${contracts['Coin.sol'].Coin.evm.bytecode.object}`
  return { what: 'deployment of a coin', to: undefined, data }
}
