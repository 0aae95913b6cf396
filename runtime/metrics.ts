/**
 * Counters and gauges for Prometheus. Values live in plain maps; prom-client is loaded at the first scrape, so that a
 * daemon that nobody scrapes does not carry it.
 */
import { IotchainError } from '../protocol/errors.ts'

export type Labels = Readonly<Record<string, string>>

export interface Counter {
  inc(labels?: Labels, by?: number): void
}

export interface Gauge {
  set(value: number, labels?: Labels): void
}

export interface Metrics {
  /** Same name, same counter. Names are `iotchain_…_total`; labels must come from a small fixed set. */
  counter(name: string, help: string): Counter
  /** A gauge that is set, or, with `read`, asked at each scrape. */
  gauge(name: string, help: string, read?: () => number): Gauge
  /** The text exposition format, with the process' own figures. */
  render(): Promise<string>
}

interface Series {
  readonly type: 'counter' | 'gauge'
  readonly name: string
  readonly help: string
  readonly values: Map<string, { labels: Labels; value: number }>
  read: (() => number) | undefined
}

/** Beyond so many label combinations of one metric new ones are dropped: strangers must not grow the table. */
const MAX_SERIES = 500

export function createMetrics(): Metrics {
  const series = new Map<string, Series>()

  function get(type: 'counter' | 'gauge', name: string, help: string): Series {
    let entry = series.get(name)
    if (entry === undefined) {
      entry = { type, name, help, values: new Map(), read: undefined }
      series.set(name, entry)
    }
    return entry
  }

  return {
    counter(name, help) {
      const { values } = get('counter', name, help)
      return { inc: (labels = {}, by = 1) => update(values, labels, (old) => old + by) }
    },
    gauge(name, help, read) {
      const entry = get('gauge', name, help)
      if (read !== undefined) entry.read = read
      return { set: (value, labels = {}) => update(entry.values, labels, () => value) }
    },
    async render() {
      const loaded = await import('prom-client')
      // In a bundle a CommonJS package has its exports under default alone.
      const prom = loaded.Registry === undefined ? (loaded as unknown as { default: typeof loaded }).default : loaded
      const registry = new prom.Registry()
      prom.collectDefaultMetrics({ register: registry })
      for (const { type, name, help, values, read } of series.values()) {
        const labelNames = [...new Set([...values.values()].flatMap((v) => Object.keys(v.labels)))]
        const options = { name, help, labelNames, registers: [registry] }
        if (type === 'counter') {
          const counter = new prom.Counter(options)
          for (const { labels, value } of values.values()) counter.inc({ ...labels }, value)
        } else {
          const gauge = new prom.Gauge(options)
          for (const { labels, value } of values.values()) gauge.set({ ...labels }, value)
          if (read !== undefined) gauge.set(read())
        }
      }
      const text = await registry.metrics()
      registry.clear()
      return text
    },
  }
}

function update(values: Series['values'], labels: Labels, change: (old: number) => number): void {
  const key = Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([k, v]) => `${k}=${v}`)
    .join(',')
  const old = values.get(key)
  if (old !== undefined) old.value = change(old.value)
  else if (values.size < MAX_SERIES) values.set(key, { labels, value: change(0) })
}

/**
 * Serves `GET /metrics` on a loopback address.
 * @param listen `127.0.0.1:9464` or `[::1]:9464`
 * @throws `config/invalid` for an address that others can reach, `runtime/port-busy`
 */
export async function serveMetrics(
  metrics: Metrics,
  listen: string,
): Promise<{ port: number; close(): Promise<void> }> {
  const { host, port } = parseLoopback(listen)
  const { createServer } = await import('node:http')
  const server = createServer((request, response) => {
    if (request.method !== 'GET' || request.url !== '/metrics') {
      response.writeHead(404).end()
      return
    }
    metrics.render().then(
      (text) => response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text),
      () => response.writeHead(500).end(),
    )
  })
  server.maxConnections = 20
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(
        new IotchainError(
          'runtime/port-busy',
          `the metrics address ${listen} cannot be used: ${cause.code ?? cause.message}`,
          {
            cause,
            hint: 'choose another metrics.listen, or "off"',
          },
        ),
      )
    })
    server.listen(port, host, resolve)
  })
  server.unref()
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

export function parseLoopback(listen: string): { host: string; port: number } {
  const match = /^(127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})$/.exec(listen)
  const port = Number(match?.[2])
  if (match === null || port > 65_535) {
    throw new IotchainError('config/invalid', `metrics.listen: "${listen}" is no loopback address with a port`, {
      hint: 'write for example 127.0.0.1:9464; metrics are for this host only',
    })
  }
  return { host: (match[1] as string).replace(/[[\]]/g, ''), port }
}
