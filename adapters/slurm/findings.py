"""What is wrong with a Slurm site, or could be better: facts in, findings out. Nothing here touches a network.

A problem keeps jobs away; advice does not. Each rule is one function over the facts that the gateway gathered
(`idf-upkeep.py`, `facts`), so that a canned answer tests it.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.upkeep import Expected, Finding, Severity

Json = dict[str, Any]

OLDEST, NEWEST = (22, 5), (26, 5)
"""The releases whose output was read (tests/recordings/slurm)."""
SKEW_ADVICE_S, SKEW_PROBLEM_S = 5, 60
"""munge refuses a request 300 s away; times of jobs are compared to the second long before that."""
MIN_JOB_AGE_S = 60
LOG_BYTES_MIN, LOG_FILES_MIN = 1 << 30, 10_000
"""Free in an account's home, where its logs, scripts and snapshots go: less, and jobs soon fail for want of room."""
SBATCH_ADVICE_S, SBATCH_PROBLEM_S = 2.0, 15.0
ROWS_ADVICE, ROWS_PROBLEM = 100, 10_000
"""Records that slurmctld keeps because slurmdbd did not take them; it drops them at MaxDBDMsgs, 10,000 by default."""
ZONES = ("Europe/Paris", "UTC", "Etc/UTC", "Etc/GMT", "GMT")
COORDINATES = "idf"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a site said, as its rules read it."""

    said: Json
    expected: Expected
    skew_s: float
    """The site's clock less ours."""
    uncertain_s: float
    """The skew may be so much less: the request's way there and back."""

    @property
    def configuration(self) -> dict[str, str]:
        """slurm.conf as slurmctld runs by it."""
        return configuration_of(self.output("configuration"))

    @property
    def array_size_max(self) -> int | None:
        """slurm.conf's MaxArraySize; None if it is not told."""
        size = self.configuration.get("MaxArraySize", "")
        return int(size) if size.isdigit() else None

    def output(self, what: str) -> str:
        """What one command wrote; empty when it failed or was not asked."""
        return str(self.said.get(what, {}).get("out", ""))

    def failed(self, what: str) -> bool:
        """Whether one command failed."""
        return bool(self.said.get(what, {}).get("rc") != 0)

    def holds(self, key: str) -> set[str]:
        """The words of a setting that is a list."""
        return {word.strip().lower() for word in self.configuration.get(key, "").split(",")}


def findings(facts: Facts) -> Iterator[Finding]:
    """Yield everything that is to be said of a site."""
    for rule in RULES:
        yield from rule(facts)


def configuration_of(text: str) -> dict[str, str]:
    """Read what `scontrol show config` prints."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _problem(code: str, sentence: str, remedy: str) -> Finding:
    return Finding(code, Severity.PROBLEM, sentence, remedy)


def _advice(code: str, sentence: str, remedy: str) -> Finding:
    return Finding(code, Severity.ADVICE, sentence, remedy)


# ── what answers at all ──


def silence(facts: Facts) -> Iterator[Finding]:
    """Say what does not answer at all."""
    if facts.failed("configuration"):
        yield _problem(
            "controller-silent",
            "slurmctld does not answer the login account",
            "start it, or open its port to this host",
        )
    if facts.failed("database"):
        yield _problem(
            "database-silent", "slurmdbd does not answer the login account", "start it, or open its port to this host"
        )
    if "gpu:" not in facts.output("nodes"):
        yield _problem("no-gpu", "no node has a GPU", "declare them in gres.conf and in the nodes' lines of slurm.conf")


def _release(facts: Facts) -> Iterator[Finding]:
    match = re.search(r"([0-9]{2})\.([0-9]{2})", facts.output("release"))
    if not match:
        return
    release = int(match[1]), int(match[2])
    if release < OLDEST:
        yield _problem(
            "release-too-old", f"Slurm {match[0]} is older than 22.05, the oldest that is known", "upgrade Slurm"
        )
    elif release > NEWEST:
        yield _advice(
            "release-unknown",
            f"Slurm {match[0]} is newer than 26.05, the newest that is known",
            "record its output with tests/recordings/slurm/record.py and compare",
        )


# ── what is counted ──


def accounting(facts: Facts) -> Iterator[Finding]:
    """Say what would not be counted, or not be enforced."""
    if "gres/gpu" not in facts.holds("AccountingStorageTRES"):
        yield _problem("gpus-not-accounted", "GPUs do not reach accounting", "add gres/gpu to AccountingStorageTRES")
    if "slurmdbd" not in facts.configuration.get("AccountingStorageType", ""):
        yield _problem(
            "no-database", "there is no accounting database", "set AccountingStorageType=accounting_storage/slurmdbd"
        )
    if missing := {"associations", "limits", "safe"} - facts.holds("AccountingStorageEnforce"):
        yield _problem(
            "limits-not-enforced", "limits are not enforced", f"add {_listed(missing)} to AccountingStorageEnforce"
        )
    if facts.expected.accounts and "multifactor" not in facts.configuration.get("PriorityType", "multifactor"):
        yield _advice(
            "use-not-counted",
            "Slurm does not add up what a project used, so GrpTRESMins binds single jobs only",
            "set PriorityType=priority/multifactor",
        )


def _database_lag(facts: Facts) -> Iterator[Finding]:
    rows = facts.said.get("rows_not_written", 0)
    about = f"slurmdbd is behind: {rows} records wait at slurmctld"
    if rows >= ROWS_PROBLEM:
        yield _problem("database-behind", about, "see to slurmdbd and its database before records are dropped")
    elif rows >= ROWS_ADVICE:
        yield _advice("database-behind", about, "look at slurmdbd's log and at its database's load")
    elif rows < 0:
        yield _advice(
            "database-lag-unknown", "sdiag does not tell how far slurmdbd is behind", "let the login account run sdiag"
        )


def _times(facts: Facts) -> Iterator[Finding]:
    """Our commands ask for whole seconds since 1970: a release that ignores this is read wrongly."""
    rows = [line.split("|") for line in facts.output("accounting").splitlines()]
    odd = [row[1] for row in rows if len(row) > 1 and row[1] and not row[1].isdigit()]
    if odd:
        yield _problem(
            "times-not-in-seconds",
            f"sacct wrote a time as {odd[0][:40]} where seconds were asked for",
            "take SLURM_TIME_FORMAT out of any wrapper around Slurm's commands",
        )


# ── clocks ──


def _clock(facts: Facts) -> Iterator[Finding]:
    skew_s = max(0.0, abs(facts.skew_s) - facts.uncertain_s)
    which = "ahead of" if facts.skew_s > 0 else "behind"
    about = f"the site's clock is {skew_s:.0f} s {which} the broker's"
    if skew_s >= SKEW_PROBLEM_S:
        yield _problem("clock-skewed", about, "run a time service on both; munge refuses 300 s")
    elif skew_s >= SKEW_ADVICE_S:
        yield _advice("clock-skewed", about, "run a time service on both")


def _zone(facts: Facts) -> Iterator[Finding]:
    zone = str(facts.said.get("zone", ""))
    if zone and zone not in ZONES:
        yield _advice(
            "time-zone-other",
            f"the site's time zone is {zone[:60]}: its logs and our reports show other hours",
            "nothing must change: our commands ask in UTC; tell the people who compare",
        )


# ── what jobs meet ──


def _job_age(facts: Facts) -> Iterator[Finding]:
    age = re.match(r"([0-9]+)", facts.configuration.get("MinJobAge", ""))
    if age and 0 < int(age[1]) < MIN_JOB_AGE_S:
        yield _advice(
            "jobs-forgotten-early",
            f"the queue forgets a job {age[1]} s after its end: all ends are then asked of slurmdbd",
            "set MinJobAge=300",
        )


def _requeues(facts: Facts) -> Iterator[Finding]:
    if facts.configuration.get("JobRequeue", "0").startswith("1"):
        yield _advice(
            "requeue-by-default",
            "jobs run again after a node failed unless they forbid it; ours do",
            "set JobRequeue=0, so that what bypasses the broker is not charged twice",
        )
    if "requeue" in facts.configuration.get("PreemptMode", "").lower():
        yield _advice(
            "preemption-requeues",
            "a preempted job runs again, and every run is charged",
            "set PreemptMode=CANCEL on the partition that jobs are sent to",
        )


def _escapes(facts: Facts) -> Iterator[Finding]:
    if "cgroup" not in facts.configuration.get("ProctrackType", ""):
        yield _advice(
            "processes-escape", "a job can leave processes behind on its nodes", "set ProctrackType=proctrack/cgroup"
        )
    if facts.configuration.get("ConstrainDevices", "no").lower() not in ("yes", "true"):
        yield _advice(
            "gpus-not-constrained",
            "a job may reach GPUs that it was not given",
            "set TaskPlugin=task/cgroup, and ConstrainDevices=yes in cgroup.conf",
        )


def _latency(facts: Facts) -> Iterator[Finding]:
    took = sorted(facts.said.get("sbatch_s", []))
    if not took:
        return
    median = took[len(took) // 2]
    about = f"sbatch takes {median:.1f} s to answer"
    if median >= SBATCH_PROBLEM_S:
        yield _problem("sbatch-slow", about, "see sdiag for what slurmctld is busy with; ours wait 30 s")
    elif median >= SBATCH_ADVICE_S:
        yield _advice("sbatch-slow", about, "see sdiag for what slurmctld is busy with")


# ── partitions ──


def _partition(facts: Facts) -> Iterator[Finding]:
    partition = _chosen(facts)
    wanted = facts.expected.partition
    if partition is None:
        if facts.output("partitions"):
            name = f"no partition {wanted}" if wanted else "no default partition"
            yield _problem("partition-missing", f"there is {name}", "name one that `scontrol show partition` lists")
        return
    name = partition["PartitionName"]
    if partition.get("State", "UP") != "UP":
        yield _problem("partition-down", f"partition {name} is {partition['State']}", "set its State=UP")
    longest_s = _seconds(partition.get("MaxTime", "UNLIMITED"))
    if longest_s is not None and longest_s < facts.expected.time_limit_s_max:
        yield _problem(
            "time-limit-too-long",
            f"the enrolment allows jobs of {facts.expected.time_limit_s_max // 60} min, "
            f"partition {name} at most {longest_s // 60}",
            f"time_limit_s_max = {longest_s} in the site's file, or a longer MaxTime",
        )
    if partition.get("OverSubscribe", "").upper() == "EXCLUSIVE":
        yield _advice(
            "whole-nodes",
            f"partition {name} gives whole nodes, and Slurm accounts for all of their GPUs",
            "`idf-compute rule add SITE --whole-nodes`, so that holds count them too",
        )


def _gpu_types(facts: Facts) -> Iterator[Finding]:
    partition = _chosen(facts)
    if partition is None:
        return
    name = partition["PartitionName"]
    rows = [line.split("|") for line in facts.output("nodes").splitlines()]
    there = {
        kind
        for row in rows
        if len(row) >= 3 and row[0].rstrip("*") == name
        for kind in re.findall(r"gpu:([A-Za-z0-9._-]+):[0-9]+", row[2])
    }
    if missing := set(facts.expected.gpu_types) - there:
        yield _problem(
            "gpu-type-missing",
            f"no node of partition {name} has GPUs of type {_listed(missing)}; there is {_listed(there) or 'none'}",
            "correct [gpu_types] in the site's file, or the Type in gres.conf",
        )


def _chosen(facts: Facts) -> dict[str, str] | None:
    partitions = [
        dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
        for line in facts.output("partitions").splitlines()
    ]
    for partition in partitions:
        default = facts.expected.partition is None and partition.get("Default") == "YES"
        if default or partition.get("PartitionName") == facts.expected.partition:
            return partition
    return None


def _seconds(text: str) -> int | None:
    """Read Slurm's time, `[days-]hours:minutes:seconds`; None for no limit."""
    match = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+):([0-9]+):([0-9]+)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


# ── who may do and see what ──


def privacy(facts: Facts) -> Iterator[Finding]:
    """Say who sees what he should not, by the site's configuration."""
    if leaks := facts.holds("AccountingStoreFlags") & {"job_env", "job_script"}:
        yield _problem(
            "accounting-keeps-secrets",
            "accounting keeps what jobs hold",
            f"take {_listed(leaks)} out of AccountingStoreFlags",
        )
    if not facts.expected.accounts:
        yield _advice(
            "account-shared",
            "all projects share one account: one of them at a time is let in, with public data only",
            "ask the site for a pool of accounts: adapters/slurm/site/install-gateway.sh",
        )
        return
    if missing := {"jobs", "usage", "users", "accounts"} - facts.holds("PrivateData"):
        yield _problem("projects-see-each-other", "projects see each other", f"add {_listed(missing)} to PrivateData")
    if "disable_token_creation" not in facts.holds("AuthAltParameters"):
        yield _problem("tokens-by-anyone", "anyone can mint a token", "add disable_token_creation to AuthAltParameters")


def _login(facts: Facts) -> Iterator[Finding]:
    if not facts.expected.accounts or "me" not in facts.said:
        return
    level, _, coordinates = facts.output("me").strip().partition("|")
    if level not in ("", "None"):
        yield _problem(
            "login-too-powerful",
            f"the login account is Slurm's {level[:40]}: it could see and change what is not ours",
            "sacctmgr modify user where name=LOGIN set adminlevel=None",
        )
    if COORDINATES not in coordinates.split(","):
        yield _problem(
            "not-coordinator",
            f"the login account is no coordinator of Slurm's account {COORDINATES}",
            f"sacctmgr add coordinator account={COORDINATES} names=LOGIN",
        )


def _pool(facts: Facts) -> Iterator[Finding]:
    if "homes" not in facts.said:
        return
    homes: Mapping[str, Json] = facts.said["homes"]
    unknown = sorted(set(facts.expected.pool) - set(homes))
    if unknown and facts.expected.accounts:
        yield _problem(
            "account-unknown",
            f"the site's gateway does not know {_listed(unknown)}",
            "list the same accounts in idf-gateway.json and in the site's file",
        )
    for account in facts.expected.pool if facts.expected.accounts else ():
        found = homes.get(account, {})
        if "missing" in found:
            yield _problem(
                "account-incomplete",
                f"{account} has no {str(found['missing'])[:100]}",
                "run install-gateway.sh again, on every node",
            )
        elif found.get("mode", 0o700) & 0o077:
            yield _problem(
                "home-open", f"the home of {account} is open to others ({found['mode']:04o})", "chmod 0700 it"
            )
    if facts.expected.accounts and not facts.said.get("wipes"):
        yield _problem(
            "cannot-wipe",
            "no idf-wipe lies beside the gateway: no account could be given to a second project",
            "run install-gateway.sh again",
        )


def _log_folder(facts: Facts) -> Iterator[Finding]:
    homes: Mapping[str, Json] = facts.said.get("homes", {})
    full = {
        account
        for account, found in homes.items()
        if found.get("free_bytes", LOG_BYTES_MIN) < LOG_BYTES_MIN
        or 0 <= found.get("free_files", LOG_FILES_MIN) < LOG_FILES_MIN
    }
    if full:
        left = min(int(homes[account]["free_bytes"]) for account in full) >> 20
        yield _problem(
            "log-folder-full",
            f"{left} MiB or fewer than {LOG_FILES_MIN:,} files are left for logs and snapshots in the home of "
            f"{_listed(full)}",
            "make room on that file system, or raise the quota",
        )


def _listed(words: Collection[str]) -> str:
    return ", ".join(sorted(words))


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    silence, _release, accounting, _database_lag, _times, _clock, _zone, _job_age, _requeues, _escapes, _latency,
    _partition, _gpu_types, privacy, _login, _pool, _log_folder,
)  # fmt: skip
