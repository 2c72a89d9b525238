"""The proof that two project accounts cannot cross into each other: what it runs, and how its words are read.

What a project can run at a site is a job, so the crossings are tried where they would be tried: by two jobs on one
node, as two accounts of the pool that no project has. Each tries on the other what `proof.sh` lists, so that three
jobs are sent: A's lies there as the first victim, B's tries A and is the second victim, A's second one tries B.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.port import JobSpec
from adapters.upkeep import Finding, Severity

SCRIPT = Path(__file__).with_name("site") / "proof.sh"
TIME_LIMIT_S = 600
GROUPS = ("idf-proof-a", "idf-proof-b")
"""The Slurm accounts that the two are opened on, and that are gone again afterwards."""

CROSSINGS: Mapping[str, tuple[str, str]] = {
    "read_home": ("read a file in the other's home", "chmod 0700 the homes"),
    "list_home": ("list the other's home", "chmod 0700 the homes"),
    "read_log": ("read the other's log", "chmod 0700 the homes"),
    "read_job_folder": ("read the other's script", "chmod 0700 the homes"),
    "read_tmp": ("read the other's file in /tmp", "give jobs their own /tmp: job_container/tmpfs or pam_namespace"),
    "read_var_tmp": (
        "read the other's file in /var/tmp", "give jobs their own /var/tmp: job_container/tmpfs or pam_namespace",
    ),
    "read_shared_memory": (
        "read the other's file in /dev/shm", "give jobs their own /dev/shm: job_container/tmpfs or pam_namespace",
    ),
    "see_process": ("see the other's processes", "mount /proc with hidepid=2 on every node"),
    "read_environment": ("read the other's environment", "mount /proc with hidepid=2 on every node"),
    "trace_process": ("open the memory of the other's process", "set kernel.yama.ptrace_scope=1, and separate uids"),
    "signal_process": ("signal the other's process", "give each project account a uid of its own"),
    "open_gpu": (
        "open a GPU that its job was not given", "set TaskPlugin=task/cgroup, and ConstrainDevices=yes in cgroup.conf",
    ),
    "see_in_queue": ("see the other's job in the queue", "add jobs to PrivateData"),
    "see_details": ("see the details of the other's job", "add jobs to PrivateData"),
    "see_in_accounting": ("see the other's job in accounting", "add jobs to PrivateData in slurmdbd.conf"),
    "ask_for_script": ("ask Slurm for the other's script", "make no project account an operator of Slurm"),
    "enter_allocation": ("enter the other's allocation", "make no project account an operator of Slurm"),
    "change_job": ("change the other's job", "make no project account an operator or a coordinator of Slurm"),
    "mint_token": ("mint a token for the other", "add disable_token_creation to AuthAltParameters"),
    "act_by_sudo": ("act as the other through sudo", "let only the login account use sudo"),
    "log_in": ("log in as the other over SSH", "let project accounts not log in: AllowUsers, or no keys between them"),
    "end_job": ("end the other's job", "make no project account an operator or a coordinator of Slurm"),
}  # fmt: skip
"""What each crossing of proof.sh would do, and what closes it."""

_WORD = re.compile(r"[A-Za-z0-9/._-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Victim:
    """Where a job of the proof lies, as it said itself."""

    node: str
    words: str
    """For the other one to aim at: token, account, home, name, id and process."""


def spec(account: str, token: str, theirs: str = "") -> JobSpec:
    """Return one job of the proof."""
    environment = {"IDF_PROOF_TOKEN": token, "IDF_PROOF_THEIRS": theirs}
    return JobSpec(
        name=f"idf-proof-{token}", account=account, gpus=0, gpu_type="", time_limit_s=TIME_LIMIT_S,
        script=SCRIPT.read_bytes(), environment=environment, cpus=1,
    )  # fmt: skip


def log_spec(account: str, token: str) -> JobSpec:
    """Return a job that does nothing but write to its log, for a site where there is nothing to prove."""
    return JobSpec(
        name=f"idf-proof-{token}", account=account, gpus=0, gpu_type="", time_limit_s=60,
        script=b"echo idf-proof done\n", environment={}, cpus=1,
    )  # fmt: skip


def said(log: bytes) -> Iterator[list[str]]:
    """Yield what a job of the proof wrote, split into words."""
    for line in log.decode("utf-8", "replace").splitlines():
        if line.startswith("idf-proof "):
            yield line.split()[1:]


def victim(log: bytes) -> Victim | None:
    """Return where the job lies; None while it has not said so."""
    for words in said(log):
        if words[0] == "ready" and len(words) == 8 and all(_WORD.fullmatch(word) for word in words):
            return Victim(words[1], " ".join(words[2:]))
    return None


def is_done(log: bytes) -> bool:
    """Whether the job has tried everything."""
    return ["done"] in list(said(log))


@dataclass(frozen=True, slots=True)
class Trial:
    """What one account's tries on the other came to."""

    account: str
    verdicts: Mapping[str, str]
    """`open`, `refused`, `untried` or `absent` by crossing."""

    @classmethod
    def read(cls, account: str, log: bytes) -> "Trial":
        """Read a log; of two verdicts on one crossing, an open one stands."""
        verdicts: dict[str, str] = {}
        for words in said(log):
            if len(words) >= 2 and words[0] in ("open", "refused", "untried", "absent") and words[1] in CROSSINGS:
                verdicts[words[1]] = "open" if "open" in (words[0], verdicts.get(words[1])) else words[0]
        return cls(account, verdicts)


def judge(trials: Iterable[Trial]) -> tuple[bool | None, list[Finding]]:
    """Say whether the isolation is proven: not by silence, and not when a single crossing succeeded."""
    trials = list(trials)
    found: list[Finding] = []
    for crossing, (what, remedy) in CROSSINGS.items():
        through = [trial.account for trial in trials if trial.verdicts.get(crossing) == "open"]
        if through:
            sentence = f"not isolated: {' and '.join(through)} could {what}"
            found.append(Finding("isolation-broken", Severity.PROBLEM, sentence, remedy))
    broken = bool(found)
    silent = sorted({c for t in trials for c in CROSSINGS if t.verdicts.get(c, "untried") == "untried"})
    if silent:
        found.append(unproven(f"these crossings could not be tried: {', '.join(silent)}"))
    absent = sorted({c for t in trials for c, verdict in t.verdicts.items() if verdict == "absent"})
    if absent:
        sentence = f"crossings were not tried, since the node lacks their program or a GPU: {', '.join(absent)}"
        remedy = "install Slurm's commands and an SSH client on nodes with GPUs, or prove these by hand"
        found.append(Finding("isolation-partly-tried", Severity.ADVICE, sentence, remedy))
    return (False if broken else None if silent else True), found


def unproven(why: str, remedy: str = "see to that, then `idf-compute site doctor`") -> Finding:
    """Return the finding of a proof that did not come to its end."""
    sentence = f"the isolation of project accounts is not proven: {why}"
    return Finding("isolation-not-proven", Severity.PROBLEM, sentence, remedy)
