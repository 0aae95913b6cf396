/** The configuration in the units of the protocol: seconds, octets, COSE numbers. */
import type { AeadAlgorithm } from '../protocol/crypto/suite.ts'
import { type GroupPolicy, groupPolicy } from '../protocol/groups/policy.ts'
import type { GroupPolicies } from '../protocol/messages/policies.ts'
import type { KeyServerConfig } from './config.ts'

const AEAD: Record<KeyServerConfig['objects']['aead'], AeadAlgorithm> = {
  'chacha20-poly1305': 24,
  'aes-ccm-16-64-128': 10,
  'aes-128-gcm': 1,
}

const seconds = (ms: number): number => Math.max(0, Math.round(ms / 1000))

/** @throws `group/bad-policy` */
export function groupPolicyOf(config: KeyServerConfig): GroupPolicy {
  const { sessions: s, limits } = config
  return groupPolicy({
    sessionSeconds: seconds(s.length),
    minSessionSeconds: seconds(s.minimum),
    leadSeconds: seconds(s.lead),
    graceSeconds: seconds(s.grace),
    overrunSeconds: seconds(s.overrun),
    epochSeconds: Math.max(seconds(s.epoch), seconds(s.length)),
    refreshLeadSeconds: seconds(s.refreshLead),
    window: { seconds: seconds(s.window), min: s.windowSessions },
    leavesPerMemberAndEpoch: limits.leavesPerMember,
    rejoinsPerHour: limits.rejoinsPerHour,
    retainEpochs: s.retainEpochs,
    strictExpiry: s.strictExpiry,
  })
}

/** Content encryption of new groups. */
export function aeadOf(config: KeyServerConfig): AeadAlgorithm {
  return AEAD[config.objects.aead]
}

/** What joiners of a group are told. */
export function policiesOf(config: KeyServerConfig, policy: GroupPolicy, aead: AeadAlgorithm): GroupPolicies {
  return {
    sessionSeconds: policy.sessionSeconds,
    graceSeconds: policy.graceSeconds,
    aead,
    window: typeof policy.window === 'number' ? policy.window : policy.window.min,
    epochSeconds: policy.epochSeconds,
    maxAgeSeconds: seconds(config.objects.maxAge),
    confirmations: config.chain.confirmations,
  }
}

/** How long old broadcasts, and the credentials of their time, are of use: the window and the epochs kept. */
export function archiveSeconds(policy: GroupPolicy): number {
  const { window, sessionSeconds, epochSeconds, retainEpochs } = policy
  const windowSeconds =
    typeof window === 'number' ? window * sessionSeconds : Math.max(window.seconds, window.min * sessionSeconds)
  return windowSeconds + retainEpochs * epochSeconds
}
