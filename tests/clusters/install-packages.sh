#!/bin/sh
# Install what the test clusters need, by apt, and only what is missing.
#
#   install-packages.sh GROUP...      GROUP is one of: slurm postgres python
#
# Debian starts a service as soon as it is installed. The clusters start daemons of their own, so that is
# denied meanwhile by policy-rc.d, and what stood in its place is put back afterwards, whatever happens.
set -eu

policy=/usr/sbin/policy-rc.d

fail() {
    echo "install-packages: $*" >&2
    exit 1
}

packages_of() {
    case $1 in
        slurm)
            echo slurmctld slurmd slurmdbd slurmrestd slurm-client slurm-wlm-jwt-plugin
            echo mariadb-server munge openssh-server openssh-client sudo util-linux procps python3 libfaketime
            ;;
        postgres) echo postgresql ;;
        python) echo python3 python3-venv ;;
        *) fail "no group is called '$1': there are slurm, postgres and python" ;;
    esac
}

installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

deny_services() {
    kept=
    if as_root test -e "$policy" || as_root test -L "$policy"; then
        kept=$policy.kept-by-idf-compute
        as_root test ! -e "$kept" || fail "$kept is left from an interrupted run: put it back as $policy"
        as_root mv "$policy" "$kept"
    fi
    trap restore_services EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

restore_services() {
    as_root rm -f "$policy"
    if [ -n "$kept" ]; then as_root mv "$kept" "$policy"; fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"
}

[ $# -gt 0 ] || fail "name what is needed: slurm, postgres, python"
wanted=$(for group in "$@"; do packages_of "$group"; done)
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    fail "this machine has no apt. Install by its own means: $(echo $wanted)"
fi
missing=$(for package in $wanted; do installed "$package" || echo "$package"; done | sort -u)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
    fail "installing needs root, or sudo without a password. Ask for: apt-get install $(echo $missing)"
fi

echo "installing" $missing
deny_services
log=$(mktemp)
if ! { apt_get update && apt_get install --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt could not install them"
fi
rm -f "$log"
