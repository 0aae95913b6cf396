/** Maintainer scripts of a daemon's package, after what debhelper writes for a unit (deb-systemd-helper(1p)). */

export interface DaemonPlaces {
  /** folder below /var/lib */
  readonly state: string
  /** folder below /etc/iotchain */
  readonly keys: string
  /** file below /etc/iotchain */
  readonly config: string
}

/**
 * Installs: configuration, users, rules, enable. Starts only once the units' conditions hold (an unenrolled device stays
 * off). Removal keeps configuration, keys and state; a purge removes them.
 *
 * The configuration is no conffile: `enroll` writes into it, so that dpkg would ask at each upgrade with another default,
 * and an upgrade that nobody watches would stop there. It is made at the first installation and then the user's.
 */
export function daemonScripts(units: readonly string[], { state, keys, config }: DaemonPlaces): Record<string, string> {
  const all = units.join(' ')
  return {
    postinst: `#!/bin/sh
set -e
if [ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-deconfigure ] || [ "$1" = abort-remove ]; then
  if [ -z "$2" ] && [ ! -e /etc/iotchain/${config} ]; then
    mkdir -p /etc/iotchain
    cp /usr/share/iotchain/${config} /etc/iotchain/${config}
    chmod 0644 /etc/iotchain/${config}
  fi
  if [ -x "$(command -v systemd-sysusers)" ]; then systemd-sysusers || true; fi
  if [ -x "$(command -v udevadm)" ]; then
    udevadm control --reload || true
    # Lines and controllers that were there before the rule.
    udevadm trigger --subsystem-match=gpio --action=add || true
  fi
  # Code of the version before is of no use to this one.
  rm -rf /var/cache/private/${state}/code
  for unit in ${all}; do
    deb-systemd-helper unmask $unit >/dev/null || true
    if deb-systemd-helper --quiet was-enabled $unit; then
      deb-systemd-helper enable $unit >/dev/null || true
    else
      deb-systemd-helper update-state $unit >/dev/null || true
    fi
  done
  if [ -d /run/systemd/system ]; then
    # At the next boot systemd-sysctl does it; never less than what is set. Not while an image is put together, whose
    # /proc is the builder's.
    if [ -w /proc/sys/net/core/rmem_max ] && [ "$(cat /proc/sys/net/core/rmem_max)" -lt 1048576 ]; then
      echo 1048576 >/proc/sys/net/core/rmem_max || true
    fi
    systemctl --system daemon-reload >/dev/null || true
    if [ -n "$2" ]; then action=restart; else action=start; fi
    deb-systemd-invoke $action ${all} >/dev/null || true
  fi
fi
`,
    prerm: `#!/bin/sh
set -e
if [ -d /run/systemd/system ] && [ "$1" = remove ]; then
  deb-systemd-invoke stop ${all} >/dev/null || true
fi
`,
    postrm: `#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = remove ] && [ -x /usr/bin/deb-systemd-helper ]; then
  deb-systemd-helper mask ${all} >/dev/null || true
fi
if [ "$1" = purge ]; then
  if [ -x /usr/bin/deb-systemd-helper ]; then
    deb-systemd-helper purge ${all} >/dev/null || true
    deb-systemd-helper unmask ${all} >/dev/null || true
  fi
  rm -rf /var/lib/private/${state} /var/cache/private/${state}
  rm -f /var/cache/${state}
  if [ -L /var/lib/${state} ]; then rm -f /var/lib/${state}; else rm -rf /var/lib/${state}; fi
  rm -rf /etc/iotchain/${keys}
  rm -f /etc/iotchain/${config}
  rmdir --ignore-fail-on-non-empty /etc/iotchain 2>/dev/null || true
fi
`,
  }
}
