/**
 * `npm run bench -- chain`: bar P9. A key server's re-check of its members against the usual way of asking, an ethers
 * Contract called once for each client; both on anvil, in alternating order, by CPU seconds of this process. And the
 * number of calls that 100 000 members take.
 */
import { Contract, JsonRpcProvider } from 'ethers'
import { accessTokenAbi } from '../chain/abi.ts'
import { deployIntent } from '../chain/deployments.ts'
import { grantIntent } from '../chain/intents.ts'
import { ChainReader } from '../chain/reader.ts'
import { JsonRpc, type Rpc } from '../chain/rpc.ts'
import { TransactionSender } from '../chain/sender.ts'
import type { Head } from '../chain/types.ts'
import { accountFromKey } from '../chain/wallet.ts'
import type { Address } from '../protocol/messages/address.ts'
import { startAnvil } from '../tools/anvil.ts'
import { formatInterval, type Interval, pairedRatio, verdict } from './coap-statistics.ts'

export interface ChainBenchOptions {
  readonly rounds?: number | undefined
  readonly log?: ((line: string) => void) | undefined
}

export interface ChainBenchResult {
  readonly passed: boolean
  readonly ratio: Interval
  /** eth_call requests for 100 000 members */
  readonly calls: number
  /** tokens per second of wall time, all 100 000 */
  readonly tokensPerSecond: number
  readonly samples: { readonly ours: readonly number[]; readonly ethers: readonly number[] }
}

const RATIO_BAR = 40
const CALLS_BAR = 201
const OUR_CLIENTS = 20_000
const ETHERS_CLIENTS = 250
const MEMBERS = 100_000

export async function benchChain(options: ChainBenchOptions = {}): Promise<ChainBenchResult> {
  const { rounds = 11, log = (line) => process.stdout.write(`${line}\n`) } = options
  const anvil = await startAnvil()
  try {
    const { chainId, url } = anvil
    const owner = accountFromKey(anvil.keys[0] as string)
    const device: Address = `0x${'dd'.repeat(20)}`
    const sender = new TransactionSender({ rpc: new JsonRpc({ url }), chainId, account: owner, pollMs: 10 })
    const registry = (await sender.send(deployIntent({ kind: 'registry' }))).contract as Address
    const token = deployIntent({ kind: 'access-token', owner: owner.address, resource: device })
    const contract = (await sender.send(token)).contract as Address
    const clients = Array.from({ length: MEMBERS }, (_, i) => `0x${(i + 1).toString(16).padStart(40, '1')}` as Address)
    await sender.send(grantIntent(contract, clients.slice(0, 200), device, 3600, 1))

    const counted = countCalls(new JsonRpc({ url }))
    const reader = new ChainReader({ rpc: counted.rpc, chainId, registry, confirmations: 0 })
    const head = await reader.head()
    const provider = new JsonRpcProvider(url, chainId, { staticNetwork: true, batchMaxCount: 1 })
    const rival = new Contract(contract, accessTokenAbi as never, provider)

    const ours: number[] = []
    const ethers: number[] = []
    const askOurs = () => reader.tokensOf(contract, device, clients.slice(0, OUR_CLIENTS), head)
    const askEthers = () => askOneByOne(rival, device, clients.slice(0, ETHERS_CLIENTS), head)
    await askOurs()
    await askEthers()
    for (let round = 0; round < rounds; round++) {
      // A B B A, so that a machine that slows down slows both
      const first = await rate(OUR_CLIENTS, askOurs)
      const second = await rate(ETHERS_CLIENTS, askEthers)
      const third = await rate(ETHERS_CLIENTS, askEthers)
      const fourth = await rate(OUR_CLIENTS, askOurs)
      ours.push((first + fourth) / 2)
      ethers.push((second + third) / 2)
      log(
        `round ${round + 1} of ${rounds}: ${Math.round(ours.at(-1) as number)} and ${Math.round(ethers.at(-1) as number)} tokens per CPU second`,
      )
    }
    provider.destroy()

    const before = counted.calls()
    const began = performance.now()
    await reader.tokensOf(contract, device, clients, head)
    const tokensPerSecond = MEMBERS / ((performance.now() - began) / 1000)
    const calls = counted.calls() - before
    const ratio = pairedRatio(ours, ethers)
    const passed = verdict(ratio, RATIO_BAR) && calls <= CALLS_BAR
    log(
      `P9   tokens/CPU-s ÷ ethers' Contract: ${formatInterval(ratio)}  bar ≥ ${RATIO_BAR}  ${verdict(ratio, RATIO_BAR) ? 'holds' : 'MISSED'}`,
    )
    log(`P9   calls for ${MEMBERS} members: ${calls}  bar ≤ ${CALLS_BAR}  ${calls <= CALLS_BAR ? 'holds' : 'MISSED'}`)
    log(`     ${Math.round(tokensPerSecond)} tokens per second, anvil on the same machine`)
    return { passed, ratio, calls, tokensPerSecond, samples: { ours, ethers } }
  } finally {
    await anvil.stop()
  }
}

async function askOneByOne(
  contract: Contract,
  device: Address,
  clients: readonly Address[],
  head: Head,
): Promise<void> {
  for (const client of clients) await contract['tokenOf']?.(client, device, { blockTag: head.hash })
}

/** Things done for each CPU second of this process. */
async function rate(count: number, work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return count / ((user + system) / 1e6)
}

function countCalls(rpc: Rpc): { rpc: Rpc; calls: () => number } {
  let calls = 0
  return {
    calls: () => calls,
    rpc: {
      name: rpc.name,
      call: (method, params) => {
        if (method === 'eth_call') calls++
        return rpc.call(method, params)
      },
    },
  }
}
