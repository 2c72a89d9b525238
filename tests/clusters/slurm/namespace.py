"""A cluster's own view of the machine: its accounts, its processes, its /tmp, and nothing changed outside."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from clusters.slurm import accounts
from clusters.slurm.daemons import SLURM
from clusters.slurm.layout import INSIDE, PARTED

UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PRIVATE = ("/run", "/tmp", "/var/tmp", "/dev/shm")


def refusal() -> str:
    """Say why this process cannot have namespaces of its own; empty when it can."""
    if os.geteuid() != 0:
        return "not started by root, so there is one Unix account for all projects"
    trial = "mount --bind /srv /srv && mount -o remount,hidepid=2 /proc && mount -t tmpfs none /run"
    done = subprocess.run([*UNSHARE, "sh", "-c", trial], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"this machine refuses new namespaces: {done.stderr.strip() or 'unshare failed'}"
    return ""


def enter(folder: Path) -> None:
    """Make the view, as process 1 of fresh mount and pid namespaces.

    The folder is bound first, since it may itself lie in one of the places that become private.
    """
    _mount("--bind", str(folder), str(INSIDE))
    for place in PRIVATE:
        mode = "0755" if place == "/run" else "1777"
        _mount("-t", "tmpfs", "-o", f"nosuid,nodev,mode={mode}", "none", place)
    Path("/run/sshd").mkdir(mode=0o755)
    _own_etc()
    accounts.forget(Path("/etc"))
    shutil.copy(INSIDE / "etc/sudoers", "/etc/sudoers")
    _part_jobs()
    _one_slurm()
    _mount("-o", "remount,hidepid=2", "/proc")


def _own_etc() -> None:
    """Work on a copy of /etc in memory: when the machine replaces a file (`useradd`, apt), the kernel takes away
    what is mounted over that file, in every namespace, and the accounts would be gone.
    """
    copy = Path("/run/etc")
    copy.mkdir()
    _mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=0755", "none", str(copy))
    subprocess.run(["cp", "--archive", "/etc/.", str(copy)], check=True)
    _mount("--move", str(copy), "/etc")
    with Path("/etc/hosts").open("a") as hosts:  # newer controllers look their own machine's name up
        hosts.write(f"\n127.0.0.1 {socket.gethostname()} localhost\n")


def _part_jobs() -> None:
    """Let jobs of each account find a /tmp, /var/tmp and /dev/shm of their own, by PAM's namespaces.

    Slurm's own means, job_container/tmpfs, lost one job in five here (22.05, two slurmd on one machine).
    """
    _mount("--bind", str(INSIDE / "etc/pam.d"), "/etc/pam.d")
    _mount("--bind", str(INSIDE / "etc/namespace.conf"), "/etc/security/namespace.conf")
    for instances in PARTED.values():
        Path(instances).mkdir(parents=True)
        Path(instances).chmod(0)


def _one_slurm() -> None:
    """Put the commands of a Slurm built by hand where jobs find them, over those of the machine's own packages."""
    for folder in ("bin", "sbin") if SLURM else ():
        for program in (Path(SLURM) / folder).iterdir():
            usual = Path("/usr") / folder / program.name
            if usual.exists():
                _mount("--bind", str(program), str(usual))


def command_inside(init: int, uid: int, command: list[str]) -> list[str]:
    """Return what runs `command` within the namespaces of process `init`, as one of their accounts."""
    return [
        "nsenter", f"--target={init}", "--mount", "--pid", "--root", "--",
        "setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", *command,
    ]  # fmt: skip


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, stdin=subprocess.DEVNULL)
