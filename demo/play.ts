/** What to type while the demo stays up: the same system by hand. */
import type { Narrator } from './narrator.ts'
import { PATH, type Stage } from './stage.ts'

export async function tellHowToPlay(narrator: Narrator, stage: Stage): Promise<void> {
  const path = PATH.join('/')
  narrator.heading('To play with (in another terminal, in this folder)')
  narrator.line(`anybody may fetch the sealed octets:  curl -s ${stage.httpUri}/d/${stage.device}/${path} | xxd | head`)
  narrator.line(`configurations, keys and logs are below ${stage.folder}`)
}
