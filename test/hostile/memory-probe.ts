/**
 * Loaded before a daemon (NODE_OPTIONS --import): at SIGUSR2 it collects garbage and writes what is then alive, in
 * octets, to the file that IOTCHAIN_MEMORY_PROBE names. Resident memory alone cannot tell what is kept from what V8 has
 * not given back.
 */
import { renameSync, writeFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

const file = process.env['IOTCHAIN_MEMORY_PROBE']
if (file !== undefined) {
  setFlagsFromString('--expose_gc')
  const collect = runInNewContext('gc') as () => void
  process.on('SIGUSR2', () => {
    collect()
    // finalizers and weak references let go of more
    setImmediate(() => {
      collect()
      const { heapUsed, external } = process.memoryUsage()
      writeFileSync(`${file}.new`, String(heapUsed + external))
      renameSync(`${file}.new`, file)
    })
  })
}
