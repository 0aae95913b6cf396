import { readFileSync } from 'node:fs'

/** Datagrams that this namespace's sockets took, and those that found the buffer full. */
export function udpCounters(): { taken: number; full: number } {
  const [names, values] = readFileSync('/proc/net/snmp', 'latin1')
    .split('\n')
    .filter((line) => line.startsWith('Udp: '))
    .map((line) => line.split(' '))
  const of = (name: string): number => Number(values?.[names?.indexOf(name) ?? -1] ?? 0)
  return { taken: of('InDatagrams'), full: of('RcvbufErrors') }
}
