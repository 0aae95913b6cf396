/** The Ethereum nodes of the configuration: one, or several of which so many have to agree; each held against what it should be. */
import { AgreeingRpc, type NodeFault } from '../chain/agreement.ts'
import { FailoverRpc } from '../chain/failover.ts'
import { JsonRpc, type Rpc } from '../chain/rpc.ts'
import { type Expectations, VettedRpc, vetNode } from '../chain/vetting.ts'
import { isIotchainError } from '../protocol/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Metrics } from '../runtime/metrics.ts'
import type { KeyServerConfig } from './config.ts'

export interface ChainNodes {
  /** what decisions are read from */
  readonly rpc: Rpc
  /** what transactions are sent to */
  readonly sending: Rpc
  /** What has to hold of `rpc` before it is believed; undefined: each of its nodes is looked at by itself. */
  readonly verify: ((rpc: Rpc) => Promise<void>) | undefined
  /** Of a node that answers and is no use: the first that an operator has to look at. */
  configurationError(): unknown
}

const WORDS: Readonly<Record<NodeFault['kind'], string>> = {
  unreachable: 'an Ethereum node does not answer',
  slow: 'an Ethereum node keeps the others waiting: it is not waited for until it is in time again',
  behind: 'an Ethereum node lacks what the others have',
  differs: 'an Ethereum node contradicts the others and was outvoted: it is broken, on another fork, or lies',
  'bad-proof': 'an Ethereum node shows what does not hash to what it should: it is broken or lies',
  unfit: 'an Ethereum node is not the one that it should be: its word does not count',
}
const GRAVE: readonly NodeFault['kind'][] = ['differs', 'bad-proof', 'unfit']

/** @throws `chain/bad-url`, `chain/bad-agreement` */
export function openNodes(
  config: KeyServerConfig['chain'],
  expected: Expectations,
  log: Logger,
  metrics: Metrics,
): ChainNodes {
  if (config.nodes.length === 0) {
    const rpc = new JsonRpc({ url: config.rpcUrl as string })
    // the chain's id and the registry are looked at with each first head
    const needed = expected.descriptor !== undefined || expected.proofs === true
    const verify = needed ? (node: Rpc) => vetNode(node, expected) : undefined
    return { rpc, sending: rpc, verify, configurationError: () => undefined }
  }
  const nodes = named(config.nodes.map((url) => new JsonRpc({ url }))).map(
    ({ rpc, name }) => new VettedRpc(rpc, (node) => vetNode(node, expected), name),
  )
  const faults = metrics.counter(
    'iotchain_keyserver_node_faults_total',
    'Ethereum nodes that failed, lagged, or said otherwise than agreed upon, by node and kind.',
  )
  const rpc = new AgreeingRpc({
    nodes,
    agree: agreeOf(config),
    checkHeaders: config.proofs,
    onfault: ({ node, kind, method, error }) => {
      faults.inc({ node, kind })
      const level = GRAVE.includes(kind) ? 'error' : kind === 'unreachable' ? 'warn' : 'info'
      log.limited(
        `node/${node}/${kind}`,
        level,
        { node, kind, method, ...(error !== undefined && { err: error }) },
        WORDS[kind],
      )
    },
  })
  return {
    rpc,
    sending: new FailoverRpc(nodes),
    verify: undefined,
    configurationError: () =>
      nodes.map((n) => n.refusal).find((e) => isIotchainError(e) && e.code === 'chain/no-proofs'),
  }
}

/** More than half, unless it is said. */
export function agreeOf({ nodes, agree }: Pick<KeyServerConfig['chain'], 'nodes' | 'agree'>): number {
  return agree ?? Math.floor(nodes.length / 2) + 1
}

/** Two nodes at one host are told apart by a number; what else stands in their URLs may be a secret. */
function named<R extends Rpc>(nodes: readonly R[]): { rpc: R; name: string }[] {
  const seen = new Map<string, number>()
  return nodes.map((rpc) => {
    const nth = (seen.get(rpc.name) ?? 0) + 1
    seen.set(rpc.name, nth)
    return { rpc, name: nth === 1 ? rpc.name : `${rpc.name}#${nth}` }
  })
}
