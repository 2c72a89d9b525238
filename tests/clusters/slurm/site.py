"""What is laid into a cluster's folder before its first daemon starts: keys, configuration, the gateway."""

import json
import secrets
import shutil
import subprocess
from pathlib import Path

from clusters.slurm import accounts, daemons
from clusters.slurm.configuration import Configuration
from clusters.slurm.layout import PARTED, ClusterError, Layout

REPOSITORY = Path(__file__).resolve().parents[3]
SLURM = REPOSITORY / "adapters" / "slurm"
SITE = SLURM / "site"


def lay(layout: Layout, configuration: Configuration, isolation: str, projects: tuple[str, ...]) -> str:
    """Write all files; return sshd's host key as a `known_hosts` line without a host."""
    layout.make()
    if isolation == "accounts":
        accounts.write_sudoers(layout)
        accounts.write_pam(layout)
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
    if isolation == "accounts":
        _lay_installer(layout)
    else:
        layout.write("etc/ssh/authorized_keys", configuration.authorized_keys(client_key))
        _lay_shared_gateway(layout, configuration, projects)
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


def _lay_installer(layout: Layout) -> None:
    """Copy what a site's root gets, since the repository may lie where the cluster cannot see it."""
    shutil.copytree(SITE, layout.folder / "installer/slurm/site")
    for name in ("gateway.py", "pyslurm_child.py"):
        shutil.copy(SLURM / name, layout.folder / "installer/slurm" / name)
    places = ["# Where PAM keeps each account's temporary files.", *PARTED.values(), ""]
    layout.write("etc/places", "\n".join(places))
    shutil.copy(layout.folder / "client/id_ed25519.pub", layout.folder / "installer/broker.pub")


def _lay_shared_gateway(layout: Layout, configuration: Configuration, projects: tuple[str, ...]) -> None:
    """Lay the gateway of a site with one account, which no root installs."""
    layout.write("site/idf-gateway", (SLURM / "gateway.py").read_text(), 0o755)
    layout.write("site/idf-pyslurm", (SLURM / "pyslurm_child.py").read_text(), 0o755)
    layout.write("site/idf-upkeep.py", (SITE / "idf-upkeep.py").read_text())
    settings = {
        "isolation": "shared",
        "slurm_conf": str(layout.root / "etc/slurm.conf"),
        "path": daemons.COMMANDS,
        "slurm_user": configuration.user,
        "accounts": list(projects),
        "home": str(layout.root / "home"),  # nothing lies in the home of whoever started it
    }
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
