/** Map labels of RFC 9594 §8 ("ACE Groupcomm Parameters") that IoTChain uses, and the values that are private to it. */
export const Label = {
  gid: 0,
  gname: 1,
  guri: 2,
  scope: 3,
  getCreds: 4,
  clientCred: 5,
  gkty: 7,
  key: 8,
  num: 9,
  exp: 11,
  exi: 12,
  creds: 13,
  peerIdentifiers: 15,
  groupPolicies: 16,
  kdcCred: 17,
  rekeyingScheme: 20,
  /** group_SenderId of the Group OSCORE profile: the joiner's own Sender ID */
  senderId: 21,
  clientCredVerify: 24,
  controlUri: 26,
  mgtKeyMaterial: 27,
  controlGroupUri: 28,
  kdcchallenge: 30,
  /** private use (RFC 9594 §11.6: below −65536): the key server's clock, unix seconds */
  serverTime: -70002,
} as const

/** `gkty` and `rekeying_scheme`: the group keys of IoTChain, scheme SD-SH. Private use. */
export const SD_SH = -70001

/** content-format of every message of `/ace-group/…` and `/authz-info`: application/ace-groupcomm+cbor */
export const ACE_GROUPCOMM = 261
