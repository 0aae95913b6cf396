/** The second implementation as a client of running daemons: it joins by itself, over DTLS, and reads. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { requestToken } from '../../chain/request.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { accountFromKey } from '../../chain/wallet.ts'
import { startChain } from '../../demo/chain.ts'
import { ProcessTree } from '../../demo/processes.ts'
import { CONFIRMATIONS, PATH, READERS, readerOf, setUpDaemons, setUpOwner, startDaemons } from '../../demo/stage.ts'
import { toHex } from '../../protocol/bytes.ts'
import type { Second } from './peer.ts'
import type { Tally } from './tally.ts'

interface Lived {
  readonly checks: number
  readonly failed: string[]
  readonly steps: string[]
}

function hostAndPort(uri: string): [string, number] {
  const { hostname, port } = new URL(uri.replace(/^coaps?:/, 'http:'))
  return [hostname, Number(port)]
}

export async function liveCells(second: Second, tally: Tally): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'iotchain-second-'))
  const tree = new ProcessTree()
  try {
    const chain = await startChain(tree)
    const stage = await setUpDaemons(folder, chain, await setUpOwner(folder, chain))
    await startDaemons(tree, stage.configs)
    const secret = chain.clientKeys[0]
    const account = accountFromKey(secret)
    await requestToken({
      reader: readerOf(stage),
      sender: new TransactionSender({
        rpc: new JsonRpc({ url: chain.url }),
        chainId: chain.chainId,
        account,
        pollMs: 200,
      }),
      contract: stage.contract,
      offer: 0,
      confirmations: CONFIRMATIONS,
    })
    const lived = await second.command<Lived>({
      op: 'live',
      registry: stage.registry.slice(2),
      chain: chain.chainId,
      device: stage.device.slice(2),
      bit: READERS,
      path: PATH,
      secret: secret.replace(/^0x/, ''),
      keyServer: toHex(stage.keyServer.spki),
      coaps: hostAndPort(stage.keyServer.uri),
      coap: hostAndPort(stage.broadcastsUri),
      deviceCoap: hostAndPort(stage.deviceUri),
      proxyCoap: hostAndPort(stage.proxyUri),
    })
    for (const what of lived.failed) tally.check('running daemons', false, () => what)
    for (let n = lived.failed.length; n < lived.checks; n++) tally.check('running daemons', true, () => '')
    return lived.steps.join(', ')
  } finally {
    await tree.stop()
    await rm(folder, { recursive: true, force: true })
  }
}
