/** What to type while the demo stays up: the same system by hand, with a client and the owner ready in folders of their own. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Narrator } from './narrator.ts'
import { runToEnd } from './processes.ts'
import { CONFIRMATIONS, PATH, type Stage } from './stage.ts'

export async function tellHowToPlay(narrator: Narrator, stage: Stage): Promise<void> {
  const { folder, chain, device, registry, owner } = stage
  const passwordFile = join(folder, 'password')
  const home = join(folder, 'carol')
  const keyFile = join(folder, 'carol.key')
  await writeFile(passwordFile, stage.password, { mode: 0o600 })
  await writeFile(keyFile, chain.spareKey, { mode: 0o600 })
  // Keystores of a throw-away chain: little is spent on encrypting them.
  await writeFile(owner.folder.keyFile, await owner.account.encrypt(stage.password, true), { mode: 0o600 })
  const init = ['--rpc', chain.url, '--chain-id', String(chain.chainId), '--registry', registry]
  await runToEnd('iotchain', ['--home', home, 'init', ...init, '--confirmations', String(CONFIRMATIONS)])
  const login = ['--home', home, '--password-file', passwordFile]
  const imported = await runToEnd('iotchain', [...login, '--json', 'wallet', 'import', '--light', keyFile])
  const { address } = JSON.parse(imported) as { address: string }

  const path = PATH.join('/')
  const object = `${stage.proxyUri}/d/${device}/${path}`
  const say = (what: string, command: string): void => {
    narrator.line(what)
    narrator.plain(`             ${command}`)
  }
  narrator.heading('To play with: in another terminal, in this folder')
  say(
    'one word for the command, and its password:',
    `alias iotchain="node dist/bin/iotchain.js"; export IOTCHAIN_PASSWORD_FILE=${passwordFile}`,
  )
  say('anybody may have the sealed octets:', `curl -s ${stage.httpUri}/d/${device}/${path} | od -c | head -4`)
  say(`Carol (${address}) holds no token, and cannot open them:`, `iotchain --home ${home} read ${object}`)
  say('she asks for one:', `iotchain --home ${home} request ${device}`)
  say(
    'and reads, from the device and through the proxy:',
    `iotchain --home ${home} read ${stage.deviceUri}/${path} --device ${device} --mac`,
  )
  narrator.plain(`             iotchain --home ${home} watch ${object}`)
  const ownerHome = join(folder, 'owner')
  say('the owner looks, and bars her:', `iotchain --home ${ownerHome} owner audit`)
  narrator.plain(`             iotchain --home ${ownerHome} owner bar ${address} --device ${device} --for 1d`)
  say('configurations, keys and states of all daemons:', `ls ${folder}/*`)
}
