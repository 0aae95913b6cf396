/**
 * `npm run bench -- device`: bar P8, the footprint of the device daemon. The bundle of the package, joined to a key
 * server by DTLS and sealing, against an empty Node in the same rounds: resident memory, and CPU time until it is ready.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { initIdentity } from '../device/provision.ts'
import { createCa, issueDeviceCertificate, issueServerCertificate } from '../runtime/pki/authority.ts'
import { generateKeyPair, privateKeyPem } from '../runtime/pki/keys.ts'
import { CHAIN, KeyServerDouble } from '../test/device/key-server-double.ts'
import { bundle } from '../tools/package/bundle.ts'
import { cpuSeconds, residentOctets } from './coap-contenders.ts'
import { formatInterval, type Interval, pairedRatio } from './coap-statistics.ts'

export interface DeviceBenchOptions {
  readonly rounds?: number | undefined
  readonly log?: ((line: string) => void) | undefined
}

export interface DeviceBenchResult {
  readonly passed: boolean
  readonly resident: Interval
  readonly cpu: Interval
  readonly ethers: boolean
  readonly samples: Readonly<Record<string, readonly number[]>>
}

const RESIDENT_BAR = 1.45
const CPU_BAR = 5
/** Time for joins, first sessions and some collections of garbage. */
const SETTLE_MS = 6000
const EMPTY = `process.stdout.write('"msg":"ready"\\n'); setInterval(() => {}, 1000)`

interface Figures {
  readonly cpuToReady: number
  readonly resident: number
}

export async function benchDevice(options: DeviceBenchOptions = {}): Promise<DeviceBenchResult> {
  const { rounds = 11, log = (line: string) => void process.stdout.write(`${line}\n`) } = options
  if (process.platform !== 'linux') throw new Error('CPU time and memory are read from /proc: run this on Linux')
  const root = projectRoot()
  const folder = mkdtempSync(join(tmpdir(), 'bench-'))
  try {
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
    await bundle({ root, commands: ['iotchain-device'], out: join(folder, 'bundle') })
    const ethers = mentionsEthers(join(folder, 'bundle'))
    const scene = await makeScene(folder)
    const samples: Record<string, number[]> = { deviceCpu: [], emptyCpu: [], deviceResident: [], emptyResident: [] }
    try {
      // The first start fills the cache folder and makes the store, as it does once on a device.
      await measure(scene.command, scene.environment)
      for (let round = 0; round < rounds; round++) {
        const order = round % 2 === 0 ? ['device', 'empty'] : ['empty', 'device']
        for (const who of order) {
          const figures =
            who === 'device' ? await measure(scene.command, scene.environment) : await measure(['-e', EMPTY], {})
          samples[`${who}Cpu`]?.push(figures.cpuToReady)
          samples[`${who}Resident`]?.push(figures.resident)
        }
        const megabytes = ((samples['deviceResident']?.at(-1) ?? 0) / 1e6).toFixed(1)
        log(
          `     round ${round + 1}/${rounds}: device ${megabytes} MB, ready after ${samples['deviceCpu']?.at(-1)?.toFixed(2)} CPU seconds`,
        )
      }
    } finally {
      await scene.stop()
    }
    const resident = pairedRatio(samples['deviceResident'] ?? [], samples['emptyResident'] ?? [])
    const cpu = pairedRatio(samples['deviceCpu'] ?? [], samples['emptyCpu'] ?? [])
    const passed = resident.low <= RESIDENT_BAR && cpu.low <= CPU_BAR && !ethers
    log(
      `P8   resident ÷ empty Node: ${formatInterval(resident)}  bar ≤ ${RESIDENT_BAR}  ${resident.low <= RESIDENT_BAR ? 'holds' : 'MISSED'}`,
    )
    log(
      `P8   CPU to ready ÷ empty Node: ${formatInterval(cpu)}  bar ≤ ${CPU_BAR}  ${cpu.low <= CPU_BAR ? 'holds' : 'MISSED'}`,
    )
    log(`P8   ethers in the bundle: ${ethers ? 'yes  MISSED' : 'no  holds'}`)
    return { passed, resident, cpu, ethers, samples }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A key server with one session, and a device enrolled with it that has one simulated and one host resource. */
async function makeScene(folder: string) {
  const { address, request } = await initIdentity(folder)
  const ca = await createCa({ name: 'bench' })
  const { chain } = await issueDeviceCertificate(ca.issuing, request)
  writeFileSync(join(folder, 'device.crt'), chain)
  writeFileSync(join(folder, 'ca.crt'), ca.root.certificate)
  const { privateKey, publicKey } = generateKeyPair()
  const server = await issueServerCertificate(ca.root, { publicKey, names: ['127.0.0.1'] })
  const keyServer = new KeyServerDouble({ device: address })
  await keyServer.start()
  const port = await keyServer.startDtls({
    cert: server.chain,
    key: privateKeyPem(privateKey),
    ca: ca.issuing.certificate,
  })
  keyServer.publish(1, 86_400)
  const config = join(folder, 'device.yaml')
  const cache = join(folder, 'cache')
  mkdirSync(cache)
  writeFileSync(
    config,
    JSON.stringify({
      device: { listen: 'coap://127.0.0.1:0' },
      keyserver: `coaps://127.0.0.1:${port}`,
      chain: { id: CHAIN.id, registry: CHAIN.registry },
      time: { trust: 'always' },
      resources: [
        { path: '/s/demo', driver: 'simulated', group: 1, every: '1s' },
        { path: '/s/load', driver: 'file', file: '/proc/uptime-is-not-json', group: 1, every: '60s' },
      ],
    }),
  )
  return {
    command: [join(folder, 'bundle/iotchain-device.mjs'), 'run', '--config', config],
    // As systemd/iotchain-device.service starts it, with its CacheDirectory=. The empty Node has no options at all.
    environment: {
      NODE_OPTIONS: '--max-semi-space-size=1',
      CACHE_DIRECTORY: cache,
      NODE_COMPILE_CACHE: join(cache, 'code'),
    },
    stop: () => keyServer.stop(),
  }
}

/** Starts a program, waits until it says that it is ready, lets it settle, and looks at /proc. */
async function measure(args: readonly string[], environment: Record<string, string>): Promise<Figures> {
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...environment },
  })
  const pid = child.pid as number
  try {
    await readyLine(child)
    const cpuToReady = cpuSeconds(pid)
    await new Promise((done) => setTimeout(done, SETTLE_MS))
    return { cpuToReady, resident: residentOctets(pid) }
  } finally {
    const gone = new Promise((done) => child.once('exit', done))
    child.kill('SIGTERM')
    await gone
  }
}

function readyLine(child: ChildProcess): Promise<void> {
  let output = ''
  return new Promise((done, fail) => {
    child.once('exit', () => fail(new Error(`the daemon ended before it was ready: ${output.slice(0, 500)}`)))
    child.stdout?.on('data', (data: Buffer) => {
      output += data.toString()
      if (output.includes('"msg":"ready"')) done()
    })
  })
}

function mentionsEthers(folder: string): boolean {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.mjs') || file.endsWith('.js'))
    .some((file) => /ethers\/|JsonRpcProvider/.test(readFileSync(join(folder, file), 'utf8')))
}

function projectRoot(): string {
  return resolve(import.meta.dirname, import.meta.dirname.includes('/dist/') ? '../..' : '..')
}
