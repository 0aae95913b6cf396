/** Maintainer scripts of a daemon's package, after what debhelper writes for a unit (deb-systemd-helper(1p)). */

/**
 * Installs: users, rules, enable. Starts only once the unit's conditions hold (an unenrolled device stays off).
 * Removal keeps configuration and state; a purge removes both.
 */
export function daemonScripts(unit: string, state: string): Record<string, string> {
  return {
    postinst: `#!/bin/sh
set -e
if [ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-deconfigure ] || [ "$1" = abort-remove ]; then
  if [ -x "$(command -v systemd-sysusers)" ]; then systemd-sysusers || true; fi
  if [ -x "$(command -v udevadm)" ]; then udevadm control --reload || true; fi
  deb-systemd-helper unmask ${unit} >/dev/null || true
  if deb-systemd-helper --quiet was-enabled ${unit}; then
    deb-systemd-helper enable ${unit} >/dev/null || true
  else
    deb-systemd-helper update-state ${unit} >/dev/null || true
  fi
  if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
    if [ -n "$2" ]; then action=restart; else action=start; fi
    deb-systemd-invoke $action ${unit} >/dev/null || true
  fi
fi
`,
    prerm: `#!/bin/sh
set -e
if [ -d /run/systemd/system ] && [ "$1" = remove ]; then
  deb-systemd-invoke stop ${unit} >/dev/null || true
fi
`,
    postrm: `#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = remove ] && [ -x /usr/bin/deb-systemd-helper ]; then
  deb-systemd-helper mask ${unit} >/dev/null || true
fi
if [ "$1" = purge ]; then
  if [ -x /usr/bin/deb-systemd-helper ]; then
    deb-systemd-helper purge ${unit} >/dev/null || true
    deb-systemd-helper unmask ${unit} >/dev/null || true
  fi
  rm -rf /var/lib/private/${state}
  if [ -L /var/lib/${state} ]; then rm -f /var/lib/${state}; else rm -rf /var/lib/${state}; fi
  rmdir --ignore-fail-on-non-empty /etc/iotchain 2>/dev/null || true
fi
`,
  }
}
