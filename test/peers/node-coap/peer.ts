/**
 * A CoAP server and client on npm coap, driven over standard input and output (../protocol.ts says how).
 *
 *   node peer.js server HOST PORT
 *   node peer.js client HOST PORT
 */
import { createInterface } from 'node:readline'
import {
  Agent,
  createServer,
  type IncomingMessage,
  type ObserveReadStream,
  ObserveWriteStream,
  type OutgoingMessage,
} from 'coap'
import { parseCommandLine, pattern, SMALL_BODY } from '../protocol.ts'

const PATIENCE_MS = 8000
const SUCCESS_TAG = Buffer.from('653031', 'hex')
const GUARD_TAG = Buffer.from('653032', 'hex')

// ------------------------------------------------------------------ server

function optionsOf(message: IncomingMessage, name: string): Buffer[] {
  const options = message._packet.options ?? []
  return options.filter((option) => option.name === name).map((option) => Buffer.from(option.value ?? ''))
}

async function serve(host: string, port: number): Promise<void> {
  let ticks = 0
  let largeTicks = 0
  let store = Buffer.alloc(0)
  const observers = new Set<ObserveWriteStream>()
  const largeObservers = new Set<ObserveWriteStream>()
  const watch = (set: Set<ObserveWriteStream>, response: OutgoingMessage | ObserveWriteStream, body: Buffer): void => {
    if (!(response instanceof ObserveWriteStream)) {
      response.end(body)
      return
    }
    set.add(response)
    response.on('finish', () => set.delete(response))
    response.on('error', () => set.delete(response)) // npm coap 1.5 throws without a listener
    response.write(body)
  }
  const server = createServer((request, response) => {
    const { method, url } = request
    switch (url) {
      case '/small':
      case '/critical':
        response.setOption('Content-Format', 'text/plain')
        response.end(SMALL_BODY)
        return
      case '/reading':
        response.end(pattern(175, 3))
        return
      case '/large':
        response.end(pattern(10_240, 1))
        return
      case '/slow':
        setTimeout(() => response.end('late'), 500)
        return
      case '/obs':
        watch(observers, response, Buffer.from(`tick ${ticks}`))
        return
      case '/obslarge':
        watch(largeObservers, response, pattern(10_240, largeTicks & 255))
        return
      case '/store':
        if (method === 'GET') {
          response.end(store)
          return
        }
        store = Buffer.from(request.payload)
        response.code = '2.04'
        response.end()
        return
      case '/etag': {
        const known = optionsOf(request, 'ETag').some((tag) => tag.equals(SUCCESS_TAG))
        response.setOption('ETag', SUCCESS_TAG)
        response.code = known ? '2.03' : '2.05'
        response.end(known ? undefined : 'tagged body')
        return
      }
      case '/accept':
        if (request.headers['Accept'] !== undefined && request.headers['Accept'] !== 'text/plain')
          response.code = '4.06'
        else response.setOption('Content-Format', 'text/plain')
        response.end(response.code === '4.06' ? undefined : 'plain')
        return
      case '/ifmatch': {
        const matches = optionsOf(request, 'If-Match')
        const guarded = matches.length > 0 && !matches.some((tag) => tag.equals(GUARD_TAG))
        response.code = guarded || optionsOf(request, 'If-None-Match').length > 0 ? '4.12' : '2.04'
        response.end()
        return
      }
      default:
        response.code = '4.04'
        response.end()
    }
  })
  setInterval(() => {
    ticks++
    for (const each of observers) each.write(`tick ${ticks}`)
  }, 50)
  setInterval(() => {
    largeTicks++
    for (const each of largeObservers) each.write(pattern(10_240, largeTicks & 255))
  }, 400)
  await new Promise<void>((resolve) => server.listen(port, host, () => resolve()))
  process.stdout.write(`${JSON.stringify({ ready: true, port })}\n`)
  process.stdin.on('end', () => process.exit(0)).resume()
}

// ------------------------------------------------------------------ client

function outcomeOf(message: IncomingMessage, payload: Buffer): Record<string, unknown> {
  const [etag] = optionsOf(message, 'ETag')
  return {
    code: message.code,
    payload: payload.toString('hex'),
    ...(etag === undefined ? {} : { etag: etag.toString('hex') }),
  }
}

function requestOf(agent: Agent, host: string, port: number, fields: Record<string, string>): OutgoingMessage {
  const method = (fields['method'] ?? 'GET') as 'GET' | 'PUT' | 'POST'
  const request = agent.request({
    host,
    port,
    method,
    pathname: fields['path'] ?? '/',
    confirmable: fields['type'] !== 'NON',
    ...(fields['count'] === undefined ? {} : { observe: true }),
  })
  if (fields['etag'] !== undefined) request.setOption('ETag', Buffer.from(fields['etag'], 'hex'))
  if (fields['ifmatch'] !== undefined) request.setOption('If-Match', Buffer.from(fields['ifmatch'], 'hex'))
  if (fields['ifnonematch'] !== undefined) request.setOption('If-None-Match', Buffer.alloc(0))
  if (fields['accept'] !== undefined) request.setOption('Accept', Buffer.from([Number(fields['accept'])]))
  if (fields['format'] !== undefined) request.setOption('Content-Format', Buffer.from([Number(fields['format'])]))
  if (fields['critical'] !== undefined) request.setOption(fields['critical'], Buffer.from('x'))
  const size = Number(fields['size'] ?? 0)
  // npm coap sends a body in blocks only when told to
  if (size > 1024) request.setOption('Block1', Buffer.of(6))
  request.end(size > 0 ? pattern(size, Number(fields['seed'] ?? 0)) : undefined)
  return request
}

function run(agent: Agent, host: string, port: number, line: string): Promise<Record<string, unknown>> {
  const { op, fields } = parseCommandLine(line)
  return new Promise((resolve) => {
    const notifications: Record<string, unknown>[] = []
    const wanted = Number(fields['count'] ?? 1)
    const giveUp = setTimeout(
      () => resolve({ error: op === 'observe' ? `${notifications.length} of ${wanted} notifications` : 'no answer' }),
      PATIENCE_MS,
    )
    const settle = (result: Record<string, unknown>): void => {
      clearTimeout(giveUp)
      resolve(result)
    }
    const request = requestOf(agent, host, port, fields)
    request.on('error', (error: Error) => settle({ error: error.message }))
    request.on('response', (response: IncomingMessage | ObserveReadStream) => {
      if (op !== 'observe') {
        settle(outcomeOf(response, Buffer.from(response.payload)))
        return
      }
      response.on('data', (chunk: Buffer) => {
        if (notifications.length === wanted) return
        notifications.push({ ...outcomeOf(response, chunk), observe: response.headers['Observe'] !== undefined })
        if (notifications.length < wanted) return
        ;(response as ObserveReadStream).close(fields['cancel'] === 'deregister')
        settle({ notifications })
      })
    })
  })
}

async function drive(host: string, port: number): Promise<void> {
  // an agent closes its socket after its last request: one that lives answers late messages
  const agent = new Agent({ type: host.includes(':') ? 'udp6' : 'udp4' })
  ;(agent as unknown as { _cleanUp(): void })._cleanUp = () => {}
  for await (const line of createInterface({ input: process.stdin })) {
    const { fields } = parseCommandLine(line)
    const result = await run(agent, host, port, line)
    process.stdout.write(`${JSON.stringify({ id: Number(fields['id']), ...result })}\n`)
  }
  process.exit(0)
}

const [, , mode, host, port] = process.argv
if (mode === 'server' && host && port) await serve(host, Number(port))
else if (mode === 'client' && host && port) await drive(host, Number(port))
else {
  process.stderr.write('usage: peer server|client HOST PORT\n')
  process.exit(2)
}
