/**
 * Which machine this is: the state of a device must never come to life on a second one (a cloned card), because both
 * would seal under the same keys and numbers.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/**
 * The first that is there counts. A Raspberry Pi's board has a serial number, which a cloned card does not carry
 * along; elsewhere systemd's machine id has to do.
 */
const SOURCES = ['/proc/device-tree/serial-number', '/sys/class/dmi/id/product_uuid', '/etc/machine-id']

/** 32 hex digits that stand for this machine and tell nothing about it; `none` where nothing tells machines apart. */
export function machineId(sources: readonly string[] = SOURCES): string {
  for (const source of sources) {
    try {
      const text = readFileSync(source, 'utf8').replaceAll('\0', '').trim()
      if (text.length >= 8) return createHash('sha256').update(`iotc1 machine ${text}`).digest('hex').slice(0, 32)
    } catch {
      // Not on this kind of machine, or not readable by this user.
    }
  }
  return 'none'
}
