/** An Ethereum node that says what a test wants it to say. */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Answers = Record<string, unknown | ((params: unknown[]) => unknown)>

export class RpcFault extends Error {
  readonly code: number
  readonly data: unknown
  constructor(code: number, message: string, data?: unknown) {
    super(message)
    this.code = code
    this.data = data
  }
}

export interface FakeNode {
  readonly url: string
  readonly port: number
  answers: Answers
  /** bodies received */
  readonly seen: { method: string; params: unknown[] }[]
  /** replaces whatever would be sent */
  raw: ((body: string) => { status?: number; body: string } | 'hang' | 'drop' | undefined) | undefined
  stop(): Promise<void>
}

export async function fakeNode(answers: Answers, port = 0): Promise<FakeNode> {
  const node = { answers, seen: [], raw: undefined } as unknown as { -readonly [K in keyof FakeNode]: FakeNode[K] }
  const server: Server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      const special = node.raw?.(body)
      if (special === 'hang') return
      if (special === 'drop') {
        request.socket.destroy()
        return
      }
      if (special !== undefined) {
        response.writeHead(special.status ?? 200).end(special.body)
        return
      }
      const parsed = JSON.parse(body)
      const reply = Array.isArray(parsed) ? parsed.map(one) : one(parsed)
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(reply))
    })
  })
  function one(call: { id: number; method: string; params: unknown[] }): object {
    node.seen.push({ method: call.method, params: call.params })
    try {
      if (!(call.method in node.answers)) throw new RpcFault(-32601, 'the method does not exist')
      const answer = node.answers[call.method]
      const result = typeof answer === 'function' ? answer(call.params) : answer
      return { jsonrpc: '2.0', id: call.id, result }
    } catch (error) {
      const { code = -32000, message, data } = error as RpcFault
      return { jsonrpc: '2.0', id: call.id, error: { code, message, ...(data === undefined ? {} : { data }) } }
    }
  }
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  node.port = (server.address() as AddressInfo).port
  node.url = `http://127.0.0.1:${node.port}`
  node.stop = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  return node
}

const hex = (n: number): string => `0x${n.toString(16)}`
export const hashOf = (n: number, branch = 0): `0x${string}` =>
  `0x${branch.toString(16).padStart(2, '0')}${n.toString(16).padStart(62, '0')}`

/** A healthy node on chain 7 with a registry, its newest block `number` mined at `timestamp`. */
export function healthy(number: number, timestamp: number): Answers {
  const block = (n: number) => ({
    number: hex(n),
    hash: hashOf(n),
    parentHash: hashOf(n - 1),
    timestamp: hex(timestamp),
  })
  return {
    eth_chainId: '0x7',
    eth_syncing: false,
    net_peerCount: '0x2',
    eth_getCode: '0x60',
    eth_getBlockByNumber: ([tag]: unknown[]) =>
      tag === 'latest'
        ? block(number)
        : tag === 'safe'
          ? block(number - 4)
          : tag === 'finalized'
            ? block(number - 8)
            : null,
  }
}
