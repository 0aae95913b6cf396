/** Whether this host can run an amd64 guest on its own processor. */
import { access, constants, readFile } from 'node:fs/promises'

const TCG = ['-accel', 'tcg,thread=multi']

/**
 * What qemu is told. /dev/kvm alone proves nothing: a host that is a virtual machine itself may offer one by kvm_pvm,
 * on which stock kernels do not boot.
 */
export async function accelerator(): Promise<string[]> {
  if (process.arch !== 'x64' || (await there('/sys/module/kvm_pvm', constants.F_OK))) return TCG
  const flags = await readFile('/proc/cpuinfo', 'utf8').catch(() => '')
  const usable = /^flags\s*:.*\b(vmx|svm)\b/m.test(flags) && (await there('/dev/kvm', constants.R_OK | constants.W_OK))
  return usable ? ['-accel', 'kvm', ...TCG] : TCG
}

function there(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  )
}
