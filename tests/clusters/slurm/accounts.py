"""Who exists on a cluster: the login account and the project accounts.

With accounts of its own, a cluster has private copies of the system's account files, bound over the real
ones in its mount namespace only: the machine never learns of these accounts.
"""

import os
import pwd
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from clusters.slurm.layout import INSIDE, PARTED, Layout

LOGIN = "idf-broker"
GROUP = "idf-projects"
PROJECTS = ("idf001", "idf002", "idf003")
FIRST_UID = 47000
GROUP_GID = 47999
PYTHON = os.environ.get("IDF_TEST_PYSLURM", sys.executable)
"""The Python whose pyslurm is tried."""
ACCOUNT_FILES = ("passwd", "group", "shadow", "gshadow", "sudoers")


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
    names = (LOGIN, *PROJECTS)
    return tuple(Account(name, FIRST_UID + number, INSIDE / "home" / name) for number, name in enumerate(names))


def write_files(layout: Layout, slurm_user: str) -> None:
    """Write the copies of the account files with the cluster's accounts added."""
    accounts = of_cluster()
    added = {
        "passwd": [f"{a.name}:x:{a.uid}:{a.uid}:idf-compute:{a.home}:{a.shell}" for a in accounts],
        "group": [f"{a.name}:x:{a.uid}:" for a in accounts] + [f"{GROUP}:x:{GROUP_GID}:{','.join(PROJECTS)}"],
        "shadow": [f"{a.name}:*:19000:0:99999:7:::" for a in accounts],
        "gshadow": [f"{a.name}:*::" for a in accounts] + [f"{GROUP}:*::{','.join(PROJECTS)}"],
    }
    for name, lines in added.items():
        mode = 0o600 if "shadow" in name else 0o644
        layout.write(f"etc/{name}", _without(Path("/etc", name), accounts) + "\n".join(lines) + "\n", mode)
    layout.write("etc/sudoers", _sudoers(slurm_user), 0o440)


def write_pam(layout: Layout) -> None:
    """Write what PAM does when slurmstepd opens a session for a job: give the account places of its own."""
    shutil.copytree("/etc/pam.d", layout.folder / "etc/pam.d")
    layout.write(
        "etc/pam.d/slurm",
        "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_namespace.so\n",
    )
    lines = (f"{place} {instances}/ user root\n" for place, instances in PARTED.items())
    layout.write("etc/namespace.conf", "".join(lines))


def make_homes(layout: Layout) -> None:
    """Make the homes; the login account's belongs to root, so that nobody can leave a profile there."""
    for account in of_cluster():
        home = layout.folder / "home" / account.name
        home.mkdir()
        home.chmod(0o755 if account.name == LOGIN else 0o700)
        if account.name != LOGIN:
            os.chown(home, account.uid, account.uid)


def _without(path: Path, accounts: tuple[Account, ...]) -> str:
    """Return the machine's file less lines of the same names, which a site on this machine might have."""
    names = {account.name for account in accounts} | {GROUP}
    lines = path.read_text().splitlines() if path.exists() else []
    return "".join(f"{line}\n" for line in lines if line.split(":")[0] not in names)


def _sudoers(slurm_user: str) -> str:
    """The whole sudoers: no terminal is needed or made, so that pipes pass; nothing is mailed or recorded."""
    return f"""\
Defaults env_reset, secure_path="/usr/bin:/bin", !use_pty, !requiretty, !syslog
Defaults lecture=never, !mail_badpass, !mail_no_user, !pam_session
root ALL=(ALL:ALL) ALL
{LOGIN} ALL=(%{GROUP}) NOPASSWD: {INSIDE}/site/idf-gateway account
{LOGIN} ALL=(%{GROUP}) NOPASSWD: {PYTHON} -I {INSIDE}/site/idf-pyslurm account
{LOGIN} ALL=({slurm_user}) NOPASSWD: {INSIDE}/site/idf-gateway token
"""
