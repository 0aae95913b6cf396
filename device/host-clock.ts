/** Whether this host's clock can be believed: a Raspberry Pi starts with the time of its last shutdown, or 1970. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** No release of this program is older. */
const PROGRAM_SECONDS = Date.UTC(2025, 0, 1) / 1000

export interface HostClockPaths {
  /** Written by systemd-timesyncd once it has set the clock. */
  readonly synchronized: string
  readonly rtc: string
  /** There only when systemd runs the machine. */
  readonly systemd: string
}

const PATHS: HostClockPaths = {
  synchronized: '/run/systemd/timesync/synchronized',
  rtc: '/sys/class/rtc',
  systemd: '/run/systemd/system',
}

/**
 * True when the clock was set from the network or from a clock chip. In a container, or under another init system,
 * nobody says so: there the clock is believed as soon as it is not absurd.
 */
export async function hostClockIsRight(
  nowSeconds: number,
  paths: HostClockPaths = PATHS,
  askTimedate: () => Promise<boolean> = timedatectl,
): Promise<boolean> {
  if (nowSeconds < PROGRAM_SECONDS) return false
  if (existsSync(paths.synchronized)) return true
  if (wasSetFromChip(paths.rtc)) return true
  if (!existsSync(paths.systemd)) return true
  return askTimedate()
}

/** `hctosys` is 1 on the clock chip from which the kernel set the time at boot. */
function wasSetFromChip(rtc: string): boolean {
  try {
    return readdirSync(rtc).some((chip) => readFileSync(join(rtc, chip, 'hctosys'), 'utf8').trim() === '1')
  } catch {
    return false
  }
}

/** The kernel's synchronized flag, also when chrony or ntpd set the clock. */
async function timedatectl(): Promise<boolean> {
  const { execFile } = await import('node:child_process')
  return new Promise((resolve) => {
    execFile('timedatectl', ['show', '-p', 'NTPSynchronized', '--value'], { timeout: 5000 }, (error, stdout) => {
      resolve(error === null && stdout.trim() === 'yes')
    })
  })
}
