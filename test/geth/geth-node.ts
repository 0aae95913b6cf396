/** A real geth of one's own, in a folder of its own, on ports of its own choice. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { createWriteStream, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { JsonRpc } from '../../chain/rpc.ts'

export { findGeth, writeGenesis } from '../../tools/geth-dev.ts'

export const JWT_SECRET = '77'.repeat(32)

export interface GethNode {
  readonly name: string
  readonly url: string
  readonly wsUrl: string
  readonly ipcPath: string
  readonly enode: string
  readonly rpc: JsonRpc
  readonly process: ChildProcess
  engine<T>(method: string, params: readonly unknown[]): Promise<T>
  /** SIGTERM, or SIGKILL as a power cut would. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

export interface GethOptions {
  readonly geth: string
  readonly name: string
  readonly folder: string
  readonly genesis: string
  readonly chainId: number
  /** ports of an earlier life, to come back at the same address */
  readonly ports?: { readonly http: number; readonly ws: number; readonly engine: number; readonly p2p: number }
}

/** Starts a node; initialises its folder at the first time. */
export async function startGeth(o: GethOptions): Promise<GethNode> {
  const data = join(o.folder, o.name)
  if (!existsSync(join(data, 'geth'))) {
    mkdirSync(data, { recursive: true })
    execFileSync(o.geth, ['--datadir', data, 'init', o.genesis], { stdio: 'ignore' })
  }
  writeFileSync(join(data, 'jwt.hex'), JWT_SECRET)
  const ports = o.ports ?? { http: 0, ws: 0, engine: 0, p2p: 0 }
  // a path of a socket has 107 octets at most
  const ipcPath = join(data, 'i')
  const child = spawn(
    o.geth,
    [
      ...['--datadir', data, '--networkid', String(o.chainId), '--syncmode', 'full', '--nodiscover', '--nat', 'none'],
      ...['--netrestrict', '127.0.0.0/8', '--port', String(ports.p2p), '--maxpeers', '8', '--cache', '64'],
      ...['--http', '--http.port', String(ports.http), '--http.api', 'eth,net,web3,admin,debug,txpool'],
      ...['--ws', '--ws.port', String(ports.ws), '--ws.api', 'eth,net,web3'],
      ...['--authrpc.port', String(ports.engine), '--authrpc.jwtsecret', join(data, 'jwt.hex')],
      ...['--ipcpath', ipcPath, '--miner.gasprice', '1', '--verbosity', '3'],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  )
  const onExit = (): void => {
    child.kill('SIGKILL')
  }
  process.once('exit', onExit)
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const said = await listening(child, join(o.folder, `${o.name}.log`))
  const url = `http://127.0.0.1:${said.http}`
  const engineRpc = engineClient(`http://127.0.0.1:${said.engine}`)
  return {
    name: o.name,
    url,
    wsUrl: `ws://127.0.0.1:${said.ws}`,
    ipcPath,
    enode: said.enode,
    rpc: new JsonRpc({ url }),
    process: child,
    engine: engineRpc,
    async stop(signal = 'SIGTERM') {
      process.off('exit', onExit)
      child.kill(signal)
      const timer = setTimeout(() => child.kill('SIGKILL'), 15_000)
      await gone
      clearTimeout(timer)
    },
  }
}

interface Said {
  readonly http: number
  readonly ws: number
  readonly engine: number
  readonly enode: string
}

function listening(child: ChildProcess, logFile: string): Promise<Said> {
  const log = createWriteStream(logFile, { flags: 'a' })
  return new Promise((resolve, reject) => {
    let text = ''
    const timer = setTimeout(() => reject(new Error(`geth did not come up:\n${text.slice(-2000)}`)), 60_000)
    child.once('close', () => reject(new Error(`geth ended:\n${text.slice(-2000)}`)))
    child.stderr?.on('data', (chunk) => {
      log.write(chunk)
      if (text.length > 1_000_000) return
      text += chunk
      const servers = [...text.matchAll(/HTTP server started\s+endpoint=\S+?:(\d+)\s+auth=(\w+)/g)]
      const http = servers.find((m) => m[2] === 'false')?.[1]
      const engine = servers.find((m) => m[2] === 'true')?.[1]
      const ws = [...text.matchAll(/WebSocket enabled\s+url=ws:\/\/\S+?:(\d+)/g)]
        .map((m) => m[1])
        .find((p) => p !== engine)
      const enode = /Started P2P networking\s+self="?(enode:\/\/[^"\s]+)/.exec(text)?.[1]
      if (http && engine && ws && enode) {
        clearTimeout(timer)
        resolve({ http: Number(http), ws: Number(ws), engine: Number(engine), enode })
      }
    })
  })
}

/** The Engine API wants a fresh HS256 token for each request. */
function engineClient(url: string) {
  let id = 1
  return async <T>(method: string, params: readonly unknown[]): Promise<T> => {
    const part = (o: object): string => Buffer.from(JSON.stringify(o)).toString('base64url')
    const claims = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iat: Math.floor(Date.now() / 1000) })}`
    const signature = createHmac('sha256', Buffer.from(JWT_SECRET, 'hex')).update(claims).digest('base64url')
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${claims}.${signature}` },
      body: JSON.stringify({ jsonrpc: '2.0', id: id++, method, params }),
      signal: AbortSignal.timeout(20_000),
    })
    const answer = (await response.json()) as { result?: T; error?: { message: string } }
    if (answer.error !== undefined) throw new Error(`${method}: ${answer.error.message}`)
    return answer.result as T
  }
}
