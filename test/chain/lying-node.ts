/** A node between a key server and a real node, over HTTP: it repeats what the real one says, but for the lies a test puts in. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

type Answer = { id: number; result?: unknown; error?: unknown }
/** What it says instead of `result`; throw a string to refuse with it. */
export type Lie = (result: unknown, params: readonly unknown[]) => unknown

export interface LyingNode {
  readonly url: string
  readonly asked: Map<string, number>
  lies: Record<string, Lie>
  /** ms that each answer takes longer; Infinity: none comes */
  delayMs: number
  away: boolean
  stop(): Promise<void>
}

export async function lyingNode(realUrl: string, lies: Record<string, Lie> = {}): Promise<LyingNode> {
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', async () => {
      if (node.away) {
        request.socket.destroy()
        return
      }
      try {
        const body = Buffer.concat(parts).toString()
        const text = JSON.stringify(await answer(JSON.parse(body)))
        if (node.delayMs === Number.POSITIVE_INFINITY) return
        setTimeout(() => response.writeHead(200).end(text), node.delayMs)
      } catch {
        request.socket.destroy()
      }
    })
  })

  async function answer(calls: unknown): Promise<unknown> {
    const real = await fetch(realUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(calls),
    })
    const answers = (await real.json()) as Answer | Answer[]
    if (!Array.isArray(calls)) return twisted(calls as never, answers as Answer)
    const byId = new Map((answers as Answer[]).map((a) => [a.id, a]))
    return (calls as { id: number }[]).map((c) => twisted(c as never, byId.get(c.id) as Answer))
  }

  function twisted(call: { id: number; method: string; params: unknown[] }, real: Answer): Answer {
    node.asked.set(call.method, (node.asked.get(call.method) ?? 0) + 1)
    const lie = node.lies[call.method]
    if (lie === undefined) return real
    try {
      return { ...real, error: undefined, result: lie(real.result, call.params) }
    } catch (words) {
      const code = words === 'unknown' ? -32601 : -32000
      return { ...real, result: undefined, error: { code, message: String(words) } }
    }
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const node: LyingNode = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: new Map(),
    lies,
    delayMs: 0,
    away: false,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return node
}
