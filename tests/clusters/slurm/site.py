"""What is laid into a cluster's folder before its first daemon starts: keys, configuration, the gateway."""

import json
import secrets
import shutil
import subprocess
from pathlib import Path

from clusters.slurm import accounts, daemons
from clusters.slurm.configuration import Configuration
from clusters.slurm.layout import ClusterError, Layout

REPOSITORY = Path(__file__).resolve().parents[3]
GATEWAY = REPOSITORY / "adapters" / "slurm" / "gateway.py"
PYSLURM_CHILD = GATEWAY.with_name("pyslurm_child.py")
STAND_IN = """\
#!/bin/sh
# Stands in for adapters/slurm/gateway.py where that is missing: says whom it runs as, here and behind sudo.
id -un
[ "$1" = account ] || exec sudo -n -u {account} {gateway} account
"""


def lay(layout: Layout, configuration: Configuration, isolation: str, projects: tuple[str, ...]) -> str:
    """Write all files; return sshd's host key as a `known_hosts` line without a host."""
    layout.make()
    if isolation == "accounts":
        accounts.write_files(layout, configuration.user)
        accounts.write_pam(layout)
        accounts.make_homes(layout)
    elif configuration.user == "root":
        # The only thing made outside the folder: root's sshd does not start without it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    _write_secrets(layout)
    layout.write("etc/slurm.conf", configuration.slurm_conf())
    layout.write("etc/gres.conf", configuration.gres_conf())
    if daemons.SLURM:  # built without control groups, and older releases do not know this word
        layout.write("etc/cgroup.conf", "CgroupPlugin=disabled\n")
    layout.write("etc/slurmdbd.conf", configuration.slurmdbd_conf(), 0o600)
    layout.write("etc/associations.cfg", configuration.associations(projects))
    layout.write("etc/database.sql", configuration.database_sql(), 0o600)
    layout.write("etc/ssh/sshd_config", configuration.sshd_config())
    host_key = _key_pair(layout.folder / "etc/ssh/host_key")
    client_key = _key_pair(layout.folder / "client/id_ed25519")
    layout.write("etc/ssh/authorized_keys", configuration.authorized_keys(client_key))
    _install_gateway(layout, configuration, isolation, projects)
    _make_database(layout)
    return host_key


def _write_secrets(layout: Layout) -> None:
    """Write munge's key and the one that JWTs are signed with."""
    for name in ("etc/munge.key", "etc/jwt.key"):
        layout.write(name, "", 0o600).write_bytes(secrets.token_bytes(64))


def _key_pair(path: Path) -> str:
    """Make an SSH key pair; return the public half, type and key."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "idf-compute-test", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def _install_gateway(layout: Layout, configuration: Configuration, isolation: str, projects: tuple[str, ...]) -> None:
    """Install the gateway as a site's administrator does: beside its settings, writable to nobody else."""
    inside = layout.root / "site" / "idf-gateway"
    if GATEWAY.exists():
        layout.write("site/idf-gateway", GATEWAY.read_text(), 0o755)
    elif isolation == "accounts":
        layout.write("site/idf-gateway", STAND_IN.format(account=projects[0], gateway=inside), 0o755)
    else:
        layout.write("site/idf-gateway", "#!/bin/sh\nid -un\n", 0o755)
    layout.write("site/idf-pyslurm", PYSLURM_CHILD.read_text(), 0o755)
    settings = {
        "isolation": isolation,
        "python": "/usr/bin/python3",
        "slurm_conf": str(layout.root / "etc/slurm.conf"),
        "path": (f"{daemons.SLURM}/bin:" if daemons.SLURM else "") + "/usr/bin:/bin",
        "accounts": list(projects),
        "slurm_user": configuration.user,
    }
    if isolation == "shared":  # everything lies in the cluster's folder, nothing in the home of whoever started it
        settings["home"] = str(layout.root / "home")
    layout.write("site/idf-gateway.json", json.dumps(settings, indent=2) + "\n")


def _make_database(layout: Layout) -> None:
    """Make MariaDB's system tables; `root@localhost` gets in by its Unix account over the socket only."""
    user = accounts.current().name
    command = [
        shutil.which("mariadb-install-db") or "mariadb-install-db",
        "--no-defaults",
        f"--datadir={layout.folder / 'state/mariadb'}",
        f"--tmpdir={layout.folder / 'state'}",  # in a shared one, two that start at once meet
        f"--user={user}",
        f"--auth-root-socket-user={user}",
        "--auth-root-authentication-method=socket",
        "--skip-test-db",
        "--skip-name-resolve",
        "--innodb-log-file-size=8M",
        "--innodb-flush-method=nosync",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"mariadb-install-db failed: {(done.stdout + done.stderr).strip()[-600:]}")
