/**
 * The parameters of a group (protocol.md §3.10). Times in seconds. Kept apart from the manager because device,
 * client and proxy know some of them too: the key server hands them out in its join response.
 */
import { IotchainError } from '../errors.ts'

/** How far back one broadcast heals: a count of sessions, or the sessions begun in the last `seconds`, at least `min`. */
export type WindowPolicy = number | { readonly seconds: number; readonly min: number }

export interface GroupPolicy {
  /** Time from one session's nbf to the next one's. */
  readonly sessionSeconds: number
  /** Two sessions never begin closer together than this. */
  readonly minSessionSeconds: number
  /** Life of a key tree. */
  readonly epochSeconds: number
  readonly window: WindowPolicy
  /** Least depth of a key tree, 1 to 18. */
  readonly dMin: number
  /** A broadcast is published up to this long before its session begins. */
  readonly leadSeconds: number
  /** How long after an early rekey clients still take objects of the session before. */
  readonly graceSeconds: number
  /** The next epoch's personal keys are handed out this long before the border. */
  readonly refreshLeadSeconds: number
  /** exp of a session = nbf of the next one + this. */
  readonly overrunSeconds: number
  /** Leaves that one address may use up in one epoch. */
  readonly leavesPerMemberAndEpoch: number
  /** Joins of addresses that were members before, in the whole group and hour. */
  readonly rejoinsPerHour: number
  /** The window is cut until a broadcast has at most this many octets. */
  readonly broadcastOctets: number
  /** A cover of more octets than this is worth a new epoch if that halves it. */
  readonly compactionOctets: number
  /** Begin a session where a membership ends, instead of letting it run to the end of the session. */
  readonly strictExpiry: boolean
  /** Ended epochs whose personal keys can still be asked for, beyond those in the window. */
  readonly retainEpochs: number
}

export const DEFAULT_POLICY: GroupPolicy = {
  sessionSeconds: 900,
  minSessionSeconds: 60,
  epochSeconds: 86_400,
  window: { seconds: 86_400, min: 96 },
  dMin: 8,
  leadSeconds: 30,
  graceSeconds: 60,
  refreshLeadSeconds: 3_600,
  overrunSeconds: 0,
  leavesPerMemberAndEpoch: 4,
  rejoinsPerHour: 32,
  broadcastOctets: 32_768,
  compactionOctets: 1_024,
  strictExpiry: false,
  retainEpochs: 2,
}

/** A window never shrinks below this when broadcasts grow too long. */
export const LEAST_WINDOW = 96
/** Receivers refuse a cohort that starts further back than this. */
export const GREATEST_WINDOW = 65_535
/** The most octets of a broadcast that receivers look at. */
export const BROADCAST_LIMIT = 65_536
/** The deepest key tree, and with it the most memberships at the start of an epoch. */
export const GREATEST_DEPTH = 18
export const GREATEST_GROUP = 131_071

/**
 * Fills in the defaults and binds the lengths to each other: the minimum session never above the session, the
 * lead at most a quarter of it, the refresh lead at most a quarter of the epoch.
 * @throws `group/bad-policy` for a value that no group can live with
 */
export function groupPolicy(wishes: Partial<GroupPolicy> = {}): GroupPolicy {
  const policy = { ...DEFAULT_POLICY, ...wishes }
  const whole = (value: number, least: number, most: number, name: string): void => {
    if (!Number.isSafeInteger(value) || value < least || value > most) {
      throw new IotchainError('group/bad-policy', `${name} is a whole number from ${least} to ${most}`)
    }
  }
  const { window } = policy
  whole(policy.sessionSeconds, 1, 2 ** 31, 'sessionSeconds')
  whole(policy.minSessionSeconds, 1, 2 ** 31, 'minSessionSeconds')
  whole(policy.epochSeconds, policy.sessionSeconds, 2 ** 31, 'epochSeconds')
  if (typeof window === 'number') whole(window, 1, GREATEST_WINDOW, 'window')
  else {
    whole(window.seconds, 0, 2 ** 31, 'window.seconds')
    whole(window.min, 1, GREATEST_WINDOW, 'window.min')
  }
  whole(policy.dMin, 1, GREATEST_DEPTH, 'dMin')
  whole(policy.leadSeconds, 0, 2 ** 31, 'leadSeconds')
  whole(policy.graceSeconds, 0, 2 ** 31, 'graceSeconds')
  whole(policy.refreshLeadSeconds, 0, 2 ** 31, 'refreshLeadSeconds')
  whole(policy.overrunSeconds, 0, 2 ** 31, 'overrunSeconds')
  whole(policy.leavesPerMemberAndEpoch, 1, Number.MAX_SAFE_INTEGER, 'leavesPerMemberAndEpoch')
  whole(policy.rejoinsPerHour, 1, Number.MAX_SAFE_INTEGER, 'rejoinsPerHour')
  whole(policy.broadcastOctets, 512, BROADCAST_LIMIT, 'broadcastOctets')
  whole(policy.compactionOctets, 1, BROADCAST_LIMIT, 'compactionOctets')
  whole(policy.retainEpochs, 0, 1_024, 'retainEpochs')
  return {
    ...policy,
    minSessionSeconds: Math.min(policy.minSessionSeconds, policy.sessionSeconds),
    leadSeconds: Math.min(policy.leadSeconds, Math.floor(policy.sessionSeconds / 4)),
    refreshLeadSeconds: Math.min(policy.refreshLeadSeconds, Math.floor(policy.epochSeconds / 4)),
  }
}
