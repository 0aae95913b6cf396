/** Commands in a running guest, through a folder that both sides see: no login, no network. */
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** The guest's side: takes /ctl/in.N one after the other, leaves /ctl/out.N with the output and a last line `exit CODE`. */
export const SHELL_LOOP = `mkdir -p /ctl
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none ctl /ctl
n=1
echo 'GUEST shell'
while :; do
  if [ -f /ctl/in.$n ]; then
    sh /ctl/in.$n > /ctl/out.$n.part 2>&1
    echo "exit $?" >> /ctl/out.$n.part
    mv /ctl/out.$n.part /ctl/out.$n
    n=$((n + 1))
  else
    sleep 0.1
  fi
done`

export class GuestShell {
  readonly #folder: string
  #next = 1

  /** @param folder shared as `ctl`, empty at the start of the machine */
  constructor(folder: string) {
    this.#folder = folder
  }

  /** @returns the output @throws Error for an exit code that is not 0, or after `limitMs` */
  async run(script: string, limitMs = 300_000): Promise<string> {
    const n = this.#next++
    const into = join(this.#folder, `in.${n}`)
    await writeFile(`${into}.part`, `${script}\n`)
    await rename(`${into}.part`, into)
    const out = join(this.#folder, `out.${n}`)
    const until = Date.now() + limitMs
    for (;;) {
      const text = await readFile(out, 'utf8').catch(() => undefined)
      if (text !== undefined) {
        await rm(out)
        const [, body, code] = text.match(/^([\s\S]*?)exit (\d+)\n$/) ?? ['', text, '1']
        if (code !== '0') throw new Error(`the guest's command ended with ${code}: ${body?.trim()}\n${script}`)
        return (body as string).trim()
      }
      if (Date.now() > until) throw new Error(`the guest did not finish within ${limitMs / 1000} s: ${script}`)
      await sleep(50)
    }
  }
}
