"""The daemons of a cluster: how each is started, in the foreground, and which port shows that it listens."""

import grp
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from clusters.slurm.layout import NODES, Layout, Ports

SLURM = os.environ.get("IDF_TEST_SLURM", "")
"""Where a Slurm was installed that is not the machine's own (`./configure --prefix`); empty for that one."""

PATH = (f"{SLURM}/sbin:{SLURM}/bin:" if SLURM else "") + "/usr/sbin:/usr/bin:/sbin:/bin"
COMMANDS = (f"{SLURM}/bin:" if SLURM else "") + "/usr/bin:/bin"
"""Where a gateway finds Slurm's commands."""
PROGRAMS = (
    "munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "slurmrestd",
    "sshd", "sacctmgr", "sinfo", "ssh-keygen", "setpriv",
)  # fmt: skip


@dataclass(frozen=True)
class Daemon:
    """A command that stays in the foreground, its whole environment, and its port if it has one."""

    argv: tuple[str, ...]
    env: dict[str, str]
    port: int | None = None


def of_cluster(layout: Layout, ports: Ports, user: str) -> dict[str, Daemon]:
    """Every daemon by its name, in the order in which they need each other."""
    root = layout.root
    env = {"PATH": PATH, "HOME": "/", "SLURM_CONF": f"{root}/etc/slurm.conf", "LANG": "C.UTF-8"}
    daemons = {
        "munged": Daemon(_munged(root), env),
        "mariadbd": Daemon(_mariadbd(root, ports.mariadbd, user), env, ports.mariadbd),
        "sshd": Daemon(("/usr/sbin/sshd", "-D", "-e", "-f", f"{root}/etc/ssh/sshd_config"), env, ports.sshd),
        "slurmdbd": Daemon(("slurmdbd", "-D"), env, ports.slurmdbd),
        "slurmctld": Daemon(("slurmctld", "-D", "-f", env["SLURM_CONF"]), env, ports.slurmctld),
    }
    for node in NODES:
        argv = ("slurmd", "-D", "-f", env["SLURM_CONF"], "-N", node)
        daemons[node] = Daemon(argv, env, getattr(ports, node))
    daemons["slurmrestd"] = _slurmrestd(env, ports.slurmrestd, user)
    return daemons


def jwt_available() -> bool:
    """Whether Slurm's JWT plugin is installed; Debian keeps it in a package of its own."""
    if SLURM:
        return any(Path(SLURM, "lib").glob("slurm*/auth_jwt.so"))
    return any(Path("/usr/lib").glob("*/slurm*/auth_jwt.so"))


def as_plan(daemons: dict[str, Daemon]) -> dict[str, dict]:
    """The daemons in a form that the supervisor reads."""
    return {name: asdict(daemon) for name, daemon in daemons.items()}


def _munged(root: Path) -> tuple[str, ...]:
    """munged wants safe parents of its socket; a throwaway folder may do without, hence --force."""
    return (
        "munged", "--foreground", "--force", "--num-threads=4",
        f"--socket={root}/run/munge.sock", f"--key-file={root}/etc/munge.key",
        f"--pid-file={root}/run/munged.pid", f"--seed-file={root}/run/munged.seed",
        f"--log-file={root}/log/munged.log",
    )  # fmt: skip


def _mariadbd(root: Path, port: int, user: str) -> tuple[str, ...]:
    """mariadbd without the machine's settings; nothing is flushed, for nothing must outlive a power cut."""
    return (
        "mariadbd", "--no-defaults", f"--user={user}", f"--datadir={root}/state/mariadb",
        f"--socket={root}/run/mariadb.sock", "--bind-address=127.0.0.1", f"--port={port}",
        f"--tmpdir={root}/state",
        f"--pid-file={root}/run/mariadbd.pid", f"--init-file={root}/etc/database.sql",
        "--skip-name-resolve", "--skip-log-bin", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M",
        "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync",
        "--innodb-lock-wait-timeout=900", "--max-allowed-packet=16M",
    )  # fmt: skip


def _slurmrestd(env: dict[str, str], port: int, user: str) -> Daemon:
    """Run slurmrestd as nobody under root; a plain user *is* SlurmUser, which it must be told to bear."""
    argv = ("slurmrestd", "-f", env["SLURM_CONF"], "-a", "rest_auth/jwt", f"127.0.0.1:{port}")
    if user == "root":
        group = grp.getgrnam("nogroup").gr_name
        argv = ("setpriv", "--reuid=nobody", f"--regid={group}", "--clear-groups", *argv)
        return Daemon(argv, env | {"SLURM_JWT": "daemon"}, port)
    return Daemon(argv, env | {"SLURM_JWT": "daemon", "SLURMRESTD_SECURITY": "disable_user_check"}, port)
