#!/bin/sh
# install-gateway.sh: make this machine a site of idf-compute's broker. Run by root on the login node; read it first.
#
#   install-gateway.sh --key broker.pub [--accounts 20] [--uid 47000] [--homes /home] [--into /opt/idf-compute]
#                      [--slurm-conf /etc/slurm/slurm.conf] [--slurm-path /usr/bin:/bin] [--places FILE]
#                      [--token-user slurm] [--pyslurm /opt/pyslurm/bin/python] [--check]
#   install-gateway.sh --node [--accounts 20] [--uid 47000] [--homes /home] [--check]
#
# What it makes, each thing only where it is missing, so that it may be run again at any time:
#   1. the group idf-projects, the pool of project accounts idf001, idf002, … with homes that are closed to others, and
#      the broker's login account idf-broker; none has a password
#   2. the login account's one key, which runs the gateway and nothing else
#   3. the gateway with its settings, owned by root, in --into
#   4. a sudoers file: the login account may run the gateway as a project account, and idf-wipe for each of them;
#      with --token-user and --pyslurm what these need
#   5. in Slurm: the account idf, with the login account as its coordinator
# --node makes only the first: for compute nodes and the hosts of slurmctld and slurmdbd, where accounts do not come
# from a directory; the numbers must be the same everywhere. With --check nothing is changed: it says what is missing,
# and ends with 1 if anything is.
#
# --places names a file with further folders that idf-wipe looks into, one a line, such as where PAM keeps each account's
# temporary files. --token-user is the SlurmUser, where the broker uses slurmrestd: the login account may then have the
# gateway mint tokens of 15 minutes for project accounts. --pyslurm is a Python with pyslurm, where the broker itself
# runs here, as the login account. Leave both out otherwise.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 022

LOGIN=idf-broker GROUP=idf-projects
accounts=20 first_uid=47000 homes=/home into=/opt/idf-compute key= places=
slurm_conf=/etc/slurm/slurm.conf slurm_path=/usr/bin:/bin token_user= pyslurm=
check=no node=no missing=0
from=$(dirname "$(readlink -f "$0")")

fail() {
    echo "install-gateway: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --check) check=yes; shift; continue ;;
        --node) node=yes; shift; continue ;;
    esac
    [ $# -ge 2 ] || fail "$1 needs a value"
    case $1 in
        --key) key=$2 ;;
        --accounts) accounts=$2 ;;
        --uid) first_uid=$2 ;;
        --homes) homes=$2 ;;
        --into) into=$2 ;;
        --slurm-conf) slurm_conf=$2 ;;
        --slurm-path) slurm_path=$2 ;;
        --places) places=$2 ;;
        --token-user) token_user=$2 ;;
        --pyslurm) pyslurm=$2 ;;
        *) fail "no option $1; see the head of this file" ;;
    esac
    shift 2
done
[ "$(id -u)" -eq 0 ] || fail "only root can do this"
case $accounts$first_uid in *[!0-9]*) fail "--accounts and --uid are numbers" ;; esac
[ "$accounts" -ge 2 ] && [ "$accounts" -le 900 ] || fail "--accounts is 2 to 900: two are needed to prove isolation"
[ "$first_uid" -ge 1000 ] || fail "--uid is 1000 or more: below are the system's own accounts"
[ "$node" = yes ] || [ -r "$key" ] || fail "--key names the file with the broker's public key"
case $token_user in -* | *[!a-z0-9_-]*) fail "--token-user is the name of an account" ;; esac
[ -z "$token_user" ] || id "$token_user" >/dev/null 2>&1 || fail "--token-user: there is no account $token_user"
[ -z "$pyslurm" ] || [ -x "$pyslurm" ] || fail "--pyslurm: there is no program $pyslurm"
case $homes$into$slurm_conf$slurm_path$pyslurm in *[!A-Za-z0-9/._:-]*) fail "a path may hold A-Z a-z 0-9 / . _ : - only" ;; esac

# must WHAT TEST FIX: where TEST fails, FIX, and TEST again; with --check only say so.
must() {
    if "$2"; then return; fi
    missing=1
    if [ "$check" = yes ]; then
        echo "missing: $1"
        return
    fi
    echo "making: $1"
    "$3"
    "$2" || fail "$1 was made, and still is not as it should be"
}

# ── 1. the accounts ──

has_group() { getent group "$GROUP" >/dev/null; }
make_group() { groupadd --gid "$((first_uid + 999))" "$GROUP"; }

has_account() {
    [ "$(id -u "$name" 2>/dev/null)" = "$uid" ] || return 1
    case " $(id -nG "$name") " in *" $GROUP "*) ;; *) return 1 ;; esac
    [ "$(stat -c '%U %a' "$homes/$name" 2>/dev/null)" = "$name 700" ]
}
make_account() { # `*` is no password and no lock: sshd refuses locked accounts
    if ! id "$name" >/dev/null 2>&1; then
        getent group "$name" >/dev/null || groupadd --gid "$uid" "$name"
        useradd --uid "$uid" --gid "$uid" --groups "$GROUP" --no-create-home --home-dir "$homes/$name" \
            --password '*' --comment "idf-compute" --shell /bin/bash "$name"
    fi
    case " $(id -nG "$name") " in *" $GROUP "*) ;; *) usermod --append --groups "$GROUP" "$name" ;; esac
    mkdir -p "$homes"
    [ -d "$homes/$name" ] || mkdir -m 0700 "$homes/$name"
    chown "$name:" "$homes/$name"
    chmod 0700 "$homes/$name"
}

pool() {
    number=1
    while [ "$number" -le "$accounts" ]; do
        printf 'idf%03d\n' "$number"
        number=$((number + 1))
    done
}

must "the group $GROUP" has_group make_group
uid=$first_uid
for name in $(pool); do
    uid=$((uid + 1))
    must "the account $name ($uid) with its home" has_account make_account
done

# The login account's home belongs to root, so that nobody can leave a profile there.
has_login() {
    [ "$(id -u "$LOGIN" 2>/dev/null)" = "$first_uid" ] || return 1
    [ "$(stat -c '%U %a' "$homes/$LOGIN" 2>/dev/null)" = "root 755" ]
}
make_login() {
    if ! id "$LOGIN" >/dev/null 2>&1; then
        getent group "$LOGIN" >/dev/null || groupadd --gid "$first_uid" "$LOGIN"
        useradd --uid "$first_uid" --gid "$first_uid" --no-create-home --home-dir "$homes/$LOGIN" \
            --password '*' --comment "idf-compute's broker" --shell /bin/sh "$LOGIN"
    fi
    mkdir -p "$homes/$LOGIN"
    chown root:root "$homes/$LOGIN"
    chmod 0755 "$homes/$LOGIN"
}
must "the login account $LOGIN ($first_uid)" has_login make_login
if [ "$node" = yes ]; then exit "$([ "$check" = yes ] && echo "$missing" || echo 0)"; fi

# ── 2. the key of the login account, which belongs to root ──

keys=$homes/$LOGIN/.ssh/authorized_keys
key_line() { printf 'restrict,command="%s/idf-gateway" %s\n' "$into" "$(cut -d' ' -f1,2 "$key")"; }
has_key() { [ "$(stat -c '%U %a' "$keys" 2>/dev/null)" = "root 644" ] && [ "$(cat "$keys")" = "$(key_line)" ]; }
make_key() {
    mkdir -p "$(dirname "$keys")"
    key_line | install -o root -g root -m 0644 /dev/stdin "$keys"
}
must "its key, bound to the gateway" has_key make_key

# ── 3. the gateway, and what it needs beside it ──

settings() {
    printf '{"isolation": "accounts", "slurm_conf": "%s", "path": "%s", "slurm_user": "%s", "accounts": [%s]}\n' \
        "$slurm_conf" "$slurm_path" "${token_user:-slurm}" "$(pool | sed 's/.*/"&"/' | paste -sd, - | sed 's/,/, /g')"
}
same() { [ "$(stat -c '%U %a' "$2" 2>/dev/null)" = "root $3" ] && cmp -s "$1" "$2"; }
has_files() {
    same "$from/../gateway.py" "$into/idf-gateway" 755 && same "$from/idf-wipe" "$into/idf-wipe" 755 &&
        same "$from/idf-upkeep.py" "$into/idf-upkeep.py" 644 &&
        { [ -z "$pyslurm" ] || same "$from/../pyslurm_child.py" "$into/idf-pyslurm" 755; } &&
        { [ -z "$places" ] || same "$places" "$into/idf-wipe.places" 644; }
}
make_files() {
    install -d -o root -g root -m 0755 "$into"
    install -o root -g root -m 0755 "$from/../gateway.py" "$into/idf-gateway"
    install -o root -g root -m 0755 "$from/idf-wipe" "$into/idf-wipe"
    install -o root -g root -m 0644 "$from/idf-upkeep.py" "$into/idf-upkeep.py"
    [ -z "$pyslurm" ] || install -o root -g root -m 0755 "$from/../pyslurm_child.py" "$into/idf-pyslurm"
    [ -z "$places" ] || install -o root -g root -m 0644 "$places" "$into/idf-wipe.places"
}
has_settings() { settings | cmp -s - "$into/idf-gateway.json" && [ "$(stat -c %U "$into/idf-gateway.json")" = root ]; }
make_settings() { settings | install -o root -g root -m 0644 /dev/stdin "$into/idf-gateway.json"; }
is_safe() { # a folder above that others may write to would let them put the gateway aside
    path=$into
    while [ "$(stat -c %u "$path")" = 0 ] && [ -z "$(find "$path" -maxdepth 0 -perm /022)" ]; do
        [ "$path" != / ] || return 0
        path=$(dirname "$path")
    done
    return 1
}
cannot() { fail "$into: every folder down to it must be root's, and writable to nobody else"; }
must "the gateway in $into" has_files make_files
[ ! -d "$into" ] || must "a path to it that only root can change" is_safe cannot
must "its settings" has_settings make_settings

# ── 4. what the login account may do through sudo ──

sudoers=/etc/sudoers.d/idf-compute
rules() {
    cat <<END
# idf-compute: the broker's login account; written by install-gateway.sh
Defaults:$LOGIN env_reset, secure_path="/usr/sbin:/usr/bin:/sbin:/bin", !use_pty, !requiretty, lecture=never
$LOGIN ALL=(%$GROUP) NOPASSWD: $into/idf-gateway account
END
    [ -z "$token_user" ] || echo "$LOGIN ALL=($token_user) NOPASSWD: $into/idf-gateway token"
    [ -z "$pyslurm" ] || echo "$LOGIN ALL=(%$GROUP) NOPASSWD: $pyslurm -I $into/idf-pyslurm account"
    pool | sed "s|.*|$LOGIN ALL=(root) NOPASSWD: $into/idf-wipe &|"
}
has_rules() { [ "$(stat -c '%U %a' "$sudoers" 2>/dev/null)" = "root 440" ] && rules | cmp -s - "$sudoers"; }
make_rules() {
    rules >"$sudoers.new"
    visudo -cqf "$sudoers.new" || fail "sudo does not understand $sudoers.new"
    chmod 0440 "$sudoers.new"
    mv "$sudoers.new" "$sudoers"
}
must "the sudo rules of $LOGIN" has_rules make_rules

# ── 5. Slurm's account, below which the broker makes one for each project ──

PATH=$slurm_path:$PATH SLURM_CONF=$slurm_conf
export SLURM_CONF
has_coordinator() {
    case ",$(sacctmgr --noheader --parsable2 show user "$LOGIN" withcoord format=coordinators)," in
        *,idf,*) ;;
        *) return 1 ;;
    esac
}
make_coordinator() {
    sacctmgr --immediate --quiet add account idf description=idf-compute organization=idf-compute || true
    sacctmgr --immediate --quiet add user "$LOGIN" account=idf defaultaccount=idf || true
    sacctmgr --immediate --quiet add coordinator account=idf names="$LOGIN"
}
must "Slurm's account idf, with $LOGIN as its coordinator" has_coordinator make_coordinator

if [ "$check" = yes ] && [ "$missing" -eq 1 ]; then exit 1; fi
echo "this machine is as it should be"
