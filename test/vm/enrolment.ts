/**
 * A device that nobody has typed at: a file with a code on the boot partition, the keys made in the guest, the
 * registration found on the partition and submitted by the owner.
 */
import { readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runToEnd } from '../../demo/processes.ts'
import { PUZZLE_BITS, READERS, type Stage } from '../../demo/stage.ts'
import { registerDevice, setOffer } from '../../owner/actions.ts'
import { parsePolicy } from '../../owner/policy-text.ts'
import { decodeRegistrationTicket } from '../../protocol/messages/registration.ts'
import { member } from './member.ts'
import { BOOT, ENROL_UNIT, type Guest, type Scene, START_MS, show, UNIT } from './scene.ts'

/** Gives the key server of a stage the authority to enrol; before it starts. */
export async function letEnrol(stage: Stage): Promise<void> {
  const file = stage.configs.keyserver
  const chain = join(stage.folder, 'keyserver', 'issuing-chain.crt')
  await writeFile(chain, readFileSync(stage.ca.issuing, 'utf8') + readFileSync(stage.ca.root, 'utf8'))
  const password = join(stage.folder, 'keyserver', 'issuing.password')
  await writeFile(password, `${stage.password}\n`, { mode: 0o600 })
  const enrolment = { certificate: chain, key: stage.ca.issuing.replace(/\.crt$/, '.key'), passwordFile: password }
  const config = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>
  await writeFile(file, JSON.stringify({ ...config, enrolment }))
}

/** The two lines that a person writes, with a code from the key server. */
export async function enrolFile(stage: Stage): Promise<string> {
  const owner = stage.owner.account.address
  const said = await runToEnd('iotchain-keyserver', [
    ...['code', '--config', stage.configs.keyserver, '--owner', owner, '--json'],
  ])
  const { code } = JSON.parse(said) as { code: string }
  const device = JSON.parse(await readFile(stage.configs.device, 'utf8')) as { keyserver: string }
  return `keyserver: "${device.keyserver}"\ncode: "${code}"\nuri: "${stage.keyServer.uri}"\n`
}

/** From the file on the boot partition to a client that may read. */
export async function enrolled(guest: Guest, file: string): Promise<Scene> {
  const { report, shell, stage } = guest
  await shell.run(`cat > ${BOOT}/iotchain-enroll.yaml <<'FILE'\n${file}FILE\nsync`)
  // What the next start of the machine does.
  await shell.run(`systemctl start ${ENROL_UNIT}`, START_MS)
  const unit = await show(shell, ENROL_UNIT, 'Result', 'ExecMainStatus')
  const left = await shell.run(`ls ${BOOT}; stat -c '%a %U %n' /etc/iotchain/device.yaml /etc/iotchain/device/*`)
  const modes = ['644 root /etc/iotchain/device.yaml', '600 root /etc/iotchain/device/device.key']
  report.check(
    'a file on the FAT boot partition enrols the device once, and the code is gone from it',
    unit['Result'] === 'success' &&
      !left.includes('iotchain-enroll.yaml') &&
      left.includes('iotchain-registration.json') &&
      modes.every((line) => left.includes(line)),
    `${unit['Result']}; ${left
      .split('\n')
      .filter((line) => !line.includes('/'))
      .join(' ')} on the partition`,
  )
  const config = await shell.run(`cat /etc/iotchain/device.yaml`)
  report.check(
    'key server and chain are in the configuration, beside what its user wrote',
    config.includes(stage.registry) && config.includes('pulsesPerUnit'),
    stage.registry,
  )
  const ticket = decodeRegistrationTicket(await shell.run(`cat ${BOOT}/iotchain-registration.json`))
  await registerDevice(stage.owner, ticket, [stage.contract], stage.keyServer.uri)
  const { offer } = await setOffer(stage.owner, {
    contract: stage.contract,
    plan: parsePolicy(`puzzle(${PUZZLE_BITS})`, stage.owner.account.address),
    device: ticket.device,
    claims: 1 << READERS,
    maxTtlSeconds: 3600,
  })
  const reader = await member({ ...stage, device: ticket.device }, offer)
  report.say(`${ticket.device} is registered; its service was started by the enrolment: ${UNIT}`)
  return { ...guest, reader }
}
