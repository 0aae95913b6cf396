/** Paired ratios with a bootstrap interval: figures of one round belong together, whatever else the machine does. */

export interface Interval {
  readonly median: number
  readonly low: number
  readonly high: number
}

const RESAMPLES = 10_000

/** Median of a[i] ÷ b[i] with a bootstrap 95 % interval. */
export function pairedRatio(a: readonly number[], b: readonly number[], random: () => number = Math.random): Interval {
  const ratios = a.map((value, i) => value / (b[i] as number))
  const medians = Array.from({ length: RESAMPLES }, () =>
    median(ratios.map(() => ratios[Math.floor(random() * ratios.length)] as number)),
  ).sort((x, y) => x - y)
  return {
    median: median(ratios),
    low: medians[Math.floor(RESAMPLES * 0.025)] as number,
    high: medians[Math.floor(RESAMPLES * 0.975)] as number,
  }
}

/** A bar is missed only when the whole interval falls under it. */
export function verdict(ratio: Interval, bar: number): boolean {
  return ratio.high >= bar
}

export function formatInterval({ median: middle, low, high }: Interval): string {
  return `${middle.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((x, y) => x - y)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}
