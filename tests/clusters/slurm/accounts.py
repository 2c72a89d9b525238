"""Who exists on a cluster: the login account and the project accounts.

With accounts of its own, a cluster works on a private copy of /etc in its mount namespace, and there runs the script
that a site's root runs (adapters/slurm/site/install-gateway.sh): the machine never learns of these accounts.
"""

import os
import pwd
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from clusters.slurm import daemons
from clusters.slurm.layout import INSIDE, PARTED, Layout

LOGIN = "idf-broker"
GROUP = "idf-projects"
PROJECTS = ("idf001", "idf002", "idf003")
"""Those that may run jobs from the start, for tests without a broker."""
POOL = (*PROJECTS, "idf004", "idf005", "idf006")
"""The last ones are left for a broker: it proves the isolation with two of them, and opens them to projects."""
FIRST_UID = 47000
PYTHON = os.environ.get(
    "IDF_TEST_PYSLURM", sys.executable if any(distributions(name="pyslurm")) else "/usr/bin/python3"
)
"""The Python whose pyslurm is tried; without one the system's, which the cluster sees wherever the repository lies."""
ACCOUNT_FILES = ("passwd", "group", "shadow", "gshadow")


@dataclass(frozen=True)
class Account:
    """A Unix account; its group has the same number."""

    name: str
    uid: int
    home: Path
    shell: str = "/bin/bash"


def current() -> Account:
    """The account that runs this process."""
    entry = pwd.getpwuid(os.geteuid())
    return Account(entry.pw_name, entry.pw_uid, Path(entry.pw_dir), entry.pw_shell)


def of_cluster() -> tuple[Account, ...]:
    """The login account first, then the project accounts."""
    names = (LOGIN, *POOL)
    return tuple(Account(name, FIRST_UID + number, INSIDE / "home" / name) for number, name in enumerate(names))


def write_sudoers(layout: Layout) -> None:
    """Write a sudoers of the cluster's own: no word of the machine's, and nothing recorded; the rules are installed."""
    layout.write(
        "etc/sudoers",
        "Defaults !syslog, !pam_session\nroot ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
        0o440,
    )


def write_pam(layout: Layout) -> None:
    """Write what PAM does when slurmstepd opens a session for a job: give the account places of its own."""
    shutil.copytree("/etc/pam.d", layout.folder / "etc/pam.d")
    layout.write(
        "etc/pam.d/slurm",
        "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_namespace.so\n",
    )
    lines = (f"{place} {instances}/ user root\n" for place, instances in PARTED.items())
    layout.write("etc/namespace.conf", "".join(lines))


def forget(etc: Path) -> None:
    """Take lines of the cluster's names out of account files, which a site on this machine might have."""
    names = {account.name for account in of_cluster()} | {GROUP}
    for name in ACCOUNT_FILES:
        path = etc / name
        if path.exists():
            lines = path.read_text().splitlines()
            path.write_text("".join(f"{line}\n" for line in lines if line.split(":")[0] not in names))


def installer(public_key: str, slurm_conf: str) -> list[str]:
    """Return what a site's root would type for all three ways in, as the cluster sees the paths."""
    at = f"{INSIDE}/installer/slurm/site"
    return [
        "/bin/sh", f"{at}/install-gateway.sh", "--key", public_key, "--accounts", str(len(POOL)),
        "--uid", str(FIRST_UID), "--homes", f"{INSIDE}/home", "--into", f"{INSIDE}/site",
        "--slurm-conf", slurm_conf, "--slurm-path", daemons.COMMANDS, "--places", f"{INSIDE}/etc/places",
        "--token-user", current().name, "--pyslurm", PYTHON,
    ]  # fmt: skip
