/**
 * `npm run test:vm`: a real kernel, a real GPIO controller (PL061), real pulses. An arm64 virtual machine runs the device;
 * chain, key server and clients run on the host. n pulses at the line → a client with a token opens a counter of n, one
 * without cannot. Last line `N passed, N failed` or `skipped: why`.
 */
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { requestToken } from '../../chain/request.ts'
import { JsonRpc } from '../../chain/rpc.ts'
import { TransactionSender } from '../../chain/sender.ts'
import { fetchObject } from '../../client/fetch.ts'
import { startChain } from '../../demo/chain.ts'
import { ProcessTree } from '../../demo/processes.ts'
import { Reader } from '../../demo/reader.ts'
import { CONFIRMATIONS, READERS, readerOf, type Stage, setUpDaemons, setUpOwner } from '../../demo/stage.ts'
import { isIotchainError } from '../../protocol/errors.ts'
import { DebianSuite } from './debian.ts'
import { guestRoot } from './guest.ts'
import { buildInitrd, NINE_P_AND_NETWORK } from './initrd.ts'
import { Machine } from './machine.ts'
import { eventually, Report } from './report.ts'

const ROOT = resolve(import.meta.dirname, '..', '..', '..')
const QEMU = 'qemu-system-aarch64'
/** The power button's line of the PL061 on qemu's `virt` board. */
const LINE = 3
const PULSES = 7
const PATH = ['s', 'pulses']
/** How a guest names its host in qemu's user network. */
const HOST_IN_GUEST = '10.0.2.2'

const report = new Report()
const say = report.say.bind(report)

async function run(tree: ProcessTree, work: string): Promise<void> {
  const cache = join(process.env['IOTCHAIN_PEERS'] ?? join(homedir(), '.cache/iotchain-peers'), 'vm')
  const suite = new DebianSuite({ suite: 'trixie', arch: 'arm64', cache })
  await suite.update()
  const image = await suite.dependencyOf('linux-image-arm64', /linux-image-[0-9][^ ,]*/)
  const kernelRoot = await suite.unpack('kernel-arm64', [image])
  const busybox = join(await suite.unpack('busybox-arm64', ['busybox-static']), 'usr/bin/busybox')
  say(`kernel ${image.replace('linux-image-', '')}`)
  const guest = await guestRoot({ root: ROOT, arch: 'arm64', cache, suite, busybox })
  say('guest: Node, native parts and bundle are ready')

  const chain = await startChain(tree)
  const set = await setUpOwner(work, chain)
  const stage = await setUpDaemons(work, chain, set, {
    thisHost: HOST_IN_GUEST,
    listen: 'coap://0.0.0.0:5683',
    settings: {
      state: '/tmp/state',
      gpio: { chip: '9030000.pl061' },
      resources: [
        {
          path: `/${PATH.join('/')}`,
          driver: 'gpio-pulse',
          bcm: LINE,
          pulsesPerUnit: 1,
          unit: 'count',
          minPulseMs: 5,
          group: READERS,
          every: '1s',
        },
      ],
    },
  })
  await tree.daemon('iotchain-keyserver', ['run', '--config', stage.configs.keyserver])
  await tree.daemon('iotchain-proxy', ['run', '--config', stage.configs.proxy])
  await rm(join(guest, 'conf'), { recursive: true, force: true })
  await cp(join(work, 'device'), join(guest, 'conf'), { recursive: true })
  say('chain, key server and proxy are up; the device is registered')

  const machine = await boot({ guest, kernelRoot, busybox, work, stage })
  tree.add({ name: 'virtual machine', pid: 0, stop: () => machine.kill() })
  await machine.line(/"msg":"ready"/, 90_000)
  say('the device serves in the virtual machine')
  await countPulses(machine, stage)
}

async function boot(o: {
  guest: string
  kernelRoot: string
  busybox: string
  work: string
  stage: Stage
}): Promise<Machine> {
  const initrd = await buildInitrd({
    ...o,
    modules: NINE_P_AND_NETWORK,
    now: Math.floor(Date.now() / 1000),
    script: `export PATH=/bin HOME=/tmp
mkdir -p /tmp/state
cd /conf
exec /app/node /app/iotchain-device/iotchain-device.mjs run --config /conf/device.yaml`,
  })
  const boots = await readdir(join(o.kernelRoot, 'boot'))
  const kernel = join(o.kernelRoot, 'boot', boots.find((f) => f.startsWith('vmlinuz')) as string)
  const port = new URL(o.stage.deviceUri.replace('coap:', 'http:')).port
  return new Machine({
    program: QEMU,
    work: o.work,
    ...(process.env['IOTCHAIN_VM_CONSOLE'] === '1' ? { onLine: (line: string) => console.log(`  | ${line}`) } : {}),
    args: [
      ...['-M', 'virt', '-cpu', 'cortex-a72', '-smp', '2', '-m', '1024', '-accel', 'tcg,thread=multi'],
      ...['-kernel', kernel, '-initrd', initrd],
      ...['-append', 'console=ttyAMA0 quiet panic=-1'],
      ...['-fsdev', `local,id=share,path=${o.guest},security_model=none,multidevs=remap`],
      ...['-device', 'virtio-9p-pci,fsdev=share,mount_tag=share'],
      ...['-netdev', `user,id=net,hostfwd=udp:127.0.0.1:${port}-:5683`],
      ...['-device', 'virtio-net-pci,netdev=net,romfile='],
    ],
  })
}

async function countPulses(machine: Machine, stage: Stage): Promise<void> {
  const view = readerOf(stage)
  const [keyA, keyB] = stage.chain.clientKeys
  const a = new Reader('client A', keyA, stage, view, PATH)
  const b = new Reader('client B', keyB, stage, view, PATH)
  try {
    const sender = new TransactionSender({
      rpc: new JsonRpc({ url: stage.chain.url }),
      chainId: stage.chain.chainId,
      account: a.account,
    })
    await requestToken({ reader: view, sender, contract: stage.contract, offer: 0, confirmations: CONFIRMATIONS })
    say('client A holds a token')
    await eventually(30_000, () => a.join())
    await a.listen()
    const before = await counter(a)
    say(`${PULSES} pulses at line ${LINE} of the PL061, the counter stands at ${before}`)
    await machine.pulses(PULSES)
    const after = await eventually(30_000, async () => {
      const value = await counter(a)
      if (value < before + PULSES) throw new Error(`still ${value}`)
      return value
    })
    await sleep(3000)
    const settled = await counter(a)
    report.check(
      'a client with a token opens a counter of n',
      after - before === PULSES && settled === after,
      `${settled - before} of ${PULSES} pulses`,
    )
    const bytes = (await fetchObject(await b.atDevice())) as Uint8Array
    await b.lookOn()
    const refusal = await b.library.open(bytes, { device: stage.device, path: PATH, form: 'signed' }).then(
      () => 'opened',
      (error: unknown) => (isIotchainError(error) ? error.code : String(error)),
    )
    report.check('a client without one fetches the object and cannot open it', refusal === 'object/no-access', refusal)
  } finally {
    await a.close()
    await b.close()
  }
}

/** The counter as client A reads it from the device, in pulses. */
async function counter(a: Reader): Promise<number> {
  const reading = await eventually(30_000, async () => a.library.read(await a.atDevice()))
  const value = reading.records.find((r) => typeof r.value === 'number')?.value
  return Math.round(Number(value))
}

const work = await mkdtemp(join(tmpdir(), 'iotchain-vm-'))
const tree = new ProcessTree()
const status = await report.run(
  [QEMU, 'cpio', 'xz', 'apt-get', 'dpkg', 'aarch64-linux-gnu-gcc', 'aarch64-linux-gnu-g++'],
  () => run(tree, work),
)
await tree.stop()
await rm(work, { recursive: true, force: true })
process.exit(status)
