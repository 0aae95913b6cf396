/** Maintainer scripts of a daemon's package, after what debhelper writes for a unit (deb-systemd-helper(1p)). */

/**
 * Installs: users, rules, enable. Starts only once the units' conditions hold (an unenrolled device stays off).
 * Removal keeps configuration, keys and state; a purge removes them.
 * @param state folder below /var/lib
 * @param keys folder below /etc/iotchain
 */
export function daemonScripts(units: readonly string[], state: string, keys: string): Record<string, string> {
  const all = units.join(' ')
  return {
    postinst: `#!/bin/sh
set -e
if [ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-deconfigure ] || [ "$1" = abort-remove ]; then
  if [ -x "$(command -v systemd-sysusers)" ]; then systemd-sysusers || true; fi
  if [ -x "$(command -v udevadm)" ]; then
    udevadm control --reload || true
    # Lines and controllers that were there before the rule.
    udevadm trigger --subsystem-match=gpio --action=add || true
  fi
  for unit in ${all}; do
    deb-systemd-helper unmask $unit >/dev/null || true
    if deb-systemd-helper --quiet was-enabled $unit; then
      deb-systemd-helper enable $unit >/dev/null || true
    else
      deb-systemd-helper update-state $unit >/dev/null || true
    fi
  done
  if [ -d /run/systemd/system ]; then
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
  rm -rf /var/lib/private/${state}
  if [ -L /var/lib/${state} ]; then rm -f /var/lib/${state}; else rm -rf /var/lib/${state}; fi
  rm -rf /etc/iotchain/${keys}
  rmdir --ignore-fail-on-non-empty /etc/iotchain 2>/dev/null || true
fi
`,
  }
}
