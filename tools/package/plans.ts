/** What each Debian package holds. */
export interface PackagePlan {
  readonly name: string
  /** the command, and the name of its source in bin/ */
  readonly command: string
  readonly summary: string
  readonly description: string
  /** systemd units; absent for a program that is no daemon */
  readonly units?: readonly string[]
  /** file name below /etc/iotchain; what it begins with lies in /usr/share/iotchain */
  readonly config?: string
  /** folder below /var/lib that a purge removes */
  readonly state?: string
  /** folder below /etc/iotchain with the keys, which a purge removes */
  readonly keys?: string
  /** from the checkout → below / */
  readonly files: readonly (readonly [string, string])[]
}

export const RUNTIME_SUMMARY = 'private Node and native parts of IoTChain'

const PRODUCT = `IoTChain serves sensor readings in the open as encrypted and signed
objects; tokens in an Ethereum contract decide who may open them.`

function daemon(
  role: 'device' | 'keyserver' | 'proxy',
  summary: string,
  about: string,
  extra: PackagePlan['files'] = [],
  extraUnits: readonly string[] = [],
): PackagePlan {
  const name = `iotchain-${role}`
  const units = [`${name}.service`, ...extraUnits]
  return {
    name,
    command: name,
    summary,
    description: `${about}\n\n${PRODUCT}`,
    units,
    config: `${role}.yaml`,
    state: name,
    keys: role,
    files: [
      ...units.map((unit) => [`systemd/${unit}`, `usr/lib/systemd/system/${unit}`] as const),
      ['systemd/sysctl.d/10-iotchain.conf', `usr/lib/sysctl.d/10-${name}.conf`],
      [`deploy/debian/${role}.yaml`, `usr/share/iotchain/${role}.yaml`],
      [`docs/${role}.md`, `usr/share/doc/${name}/README.md`],
      ...extra,
    ],
  }
}

export const DAEMONS: readonly PackagePlan[] = [
  daemon(
    'device',
    'IoTChain device: sensors as sealed objects over CoAP',
    'Reads sensors by kernel drivers and GPIO, seals each reading and serves it.',
    [
      ['systemd/sysusers.d/iotchain-device.conf', 'usr/lib/sysusers.d/iotchain-device.conf'],
      ['systemd/udev/60-iotchain-gpio.rules', 'usr/lib/udev/rules.d/60-iotchain-gpio.rules'],
    ],
    ['iotchain-device-enroll.service'],
  ),
  daemon(
    'keyserver',
    'IoTChain key server: group keys for holders of tokens',
    'Checks tokens on chain, issues personal keys, publishes session broadcasts.',
  ),
  daemon(
    'proxy',
    'IoTChain proxy: stores and serves objects that it cannot read',
    'Verifies, stores and serves sealed objects over CoAP and HTTP.',
  ),
]

export const CLIENT: PackagePlan = {
  name: 'iotchain-client',
  command: 'iotchain',
  summary: 'IoTChain command for owners of sensors and their readers',
  description: `Registers devices, grants and revokes; requests tokens, reads and watches.\n\n${PRODUCT}`,
  files: [['docs/client.md', 'usr/share/doc/iotchain-client/README.md']],
}
