"""idf-upkeep: what keeping a site in order needs of the gateway, apart from jobs.

The gateway runs it as the login account, if it lies beside it, for requests of `{"do": "upkeep", "what": …}`; a site
that leaves it out serves jobs all the same. The login account is coordinator of Slurm's account `idf`: it can make
accounts and associations below that one, and nothing else. Only `wipe` needs root: sudo and idf-wipe see to that.

A request names a time after which it must not begin: one that was on its way when its connection was cut must not
undo what was done since. Python 3.6 or later, standard library only.
"""

import os
import pwd
import re
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

    Json = Dict[str, Any]
    gateway = None  # type: Any

PARENT = "idf"
GROUP = re.compile(r"idf-[a-z0-9][a-z0-9-]{0,40}", re.ASCII)
LATE_S_MAX = 900
END_S = 20.0
DONE_ALREADY = ("nothing new added", "nothing deleted", "already exist", "already a coordinator")
TRIALS = 3


class Failed(Exception):
    """A command of Slurm's that did not do what was asked: its words."""


def upkeep(request: "Json", site: "Any") -> "Json":
    """Serve one request."""
    if request["what"] == "facts":
        return facts(site)
    try:
        return change(request, site)
    except Failed as failure:
        return {"failed": str(failure)}
    except gateway.Refused as refusal:
        return {"refused": str(refusal)}


def change(request: "Json", site: "Any") -> "Json":
    """Make one change, unless it comes too late."""
    if site.shared:
        raise gateway.Refused("this site has one account for all: there is nothing to keep")
    left_s = float(request["not_after"]) - time.time()
    if not 0 < left_s < LATE_S_MAX:
        raise gateway.Refused("this request came too late, or one of the two clocks is wrong; nothing was done")
    return CHANGES[request["what"]](request, site)


# ── accounts and associations ───────────────────────────────────────────────────────────────────────────


def pooled(request: "Json", site: "Any") -> str:
    """Return the project account that the request names."""
    account = gateway.matched(gateway.NAME, request["account"])
    if account not in site.accounts:
        raise gateway.Refused(f"{account} is no account of this site")
    return str(account)


def grouped(name: object) -> str:
    """Return the Slurm account that stands for a project."""
    return str(gateway.matched(GROUP, name))


def sacctmgr(site: "Any", *words: str) -> str:
    """Run sacctmgr; that there is nothing left to do is as good."""
    done = site.run(["sacctmgr", "--immediate", "--noheader", "--parsable2", *words])
    said = f"{done['out']} {done['err']}"
    missed = done["rc"] != 0 or "nothing modified" in said.lower()  # of something that is not there, it says 0
    if missed and not any(fine in said.lower() for fine in DONE_ALREADY):
        raise Failed(f"sacctmgr {' '.join(words[:2])}: {' '.join(said.split())[:300]}")
    return str(done["out"])


def groups_of(site: "Any", account: str) -> "List[str]":
    """Return the Slurm accounts that an account may run on."""
    return sacctmgr(site, "show", "associations", f"user={account}", "format=account").split()


def open_account(request: "Json", site: "Any") -> "Json":
    """Let an account run jobs on the books of one group, and of no other.

    Slurm shows jobs of a new group only to who coordinates that very one. A coordinator may not choose a user's
    default account, but a user's first association becomes it: so all others go before.
    """
    account, group = pooled(request, site), grouped(request["group"])
    known = groups_of(site, account)
    if known != [group]:
        if known and "closed" not in close_account(request, site):
            return {"open": known}
        about = ["description=idf-compute", "organization=idf-compute"]
        sacctmgr(site, "add", "account", group, "parent=" + PARENT, *about)
        sacctmgr(site, "add", "coordinator", "account=" + group, "names=" + site.me)
        sacctmgr(site, "add", "user", account, "account=" + group)
    sacctmgr(site, "modify", "account", group, "set", "GrpSubmitJobs=-1")
    return {"open": groups_of(site, account)}


def close_account(request: "Json", site: "Any") -> "Json":
    """Let nothing new in, end what is there, then take the association away.

    The group stays, without anybody in it: only an operator of Slurm may delete one, and its use stays counted. The
    association stays until accounting knows the jobs whole: of one that it did not, it would write the rest for nobody,
    and show it to operators of Slurm only; it would never be charged.
    """
    account = pooled(request, site)
    known = groups_of(site, account)
    for name in known:
        sacctmgr(site, "modify", "account", name, "set", "GrpSubmitJobs=0")
    end = time.monotonic() + END_S
    while jobs_of(site, account) or (known and not_written(site, account)):
        if time.monotonic() > end:
            return {"left": jobs_of(site, account), "not_written": not_written(site, account)}
        site.run(["scancel", "--user=" + account])
        time.sleep(0.5)
    if known:
        sacctmgr(site, "delete", "user", "name=" + account)
    return {"closed": not groups_of(site, account)}


def jobs_of(site: "Any", account: str, *states: str) -> "List[str]":
    """Return the account's jobs that have not ended, the broker's or not; or those in the states named."""
    done = site.run(["squeue", "--noheader", "--array", "--user=" + account, "--format=%A", *states])
    if done["rc"] != 0:
        raise Failed(f"squeue: {done['err'][:300]}")
    return str(done["out"]).split()


def not_written(site: "Any", account: str) -> "List[str]":
    """Return the account's jobs that the queue still knows, and that accounting does not know whole.

    slurmctld writes a quick job in two goes, up to 5 s apart; the partition comes with the second one.
    """
    left = set(jobs_of(site, account, "--states=all"))
    for some in gateway.chunks(sorted(left)):
        asked = ["--jobs=" + ",".join(some), "--format=JobIDRaw,End,Partition"]
        done = site.run(["sacct", "--noheader", "--parsable2", "--allocations", *asked])
        if done["rc"] != 0:
            raise Failed(f"sacct: {done['err'][:300]}")
        rows = [line.split("|") for line in done["out"].splitlines()]
        left -= {row[0] for row in rows if len(row) == 3 and row[1].isdigit() and row[2]}
    return sorted(left)


def limit(request: "Json", site: "Any") -> "Json":
    """Set the GPU-minutes that groups may use, all in all; say which could not be set."""
    failed = {}
    for name, minutes in request["groups"].items():
        group, count = grouped(name), int(minutes)
        try:
            sacctmgr(site, "modify", "account", group, "set", f"GrpTRESMins=gres/gpu={count}")
        except Failed as failure:
            failed[group] = str(failure)
    return {"refused_groups": failed}


def wipe(request: "Json", site: "Any") -> "Json":
    """Remove what an account left, as root; only once Slurm takes nothing of it any more."""
    account = pooled(request, site)
    if groups_of(site, account) or jobs_of(site, account):
        raise gateway.Refused(f"{account} is still open at Slurm: it is closed first, then wiped")
    tool = os.path.join(os.path.dirname(os.path.realpath(gateway.__file__)), "idf-wipe")
    return {"wiped": site.run(["sudo", "-n", tool, account], 280)}


CHANGES = {"open": open_account, "limit": limit, "close": close_account, "wipe": wipe}


# ── what an audit looks at ──────────────────────────────────────────────────────────────────────────────


def facts(site: "Any") -> "Json":
    """Return what enrolment looks at; it is judged by the broker."""
    asked = {
        "release": ["sinfo", "--version"],
        "configuration": ["scontrol", "show", "config"],
        "nodes": ["sinfo", "--noheader", "--Node", "--Format=Partition:0|,NodeList:0|,Gres:0"],
        "partitions": ["scontrol", "show", "partition", "--oneliner"],
        "database": ["sacctmgr", "--noheader", "--parsable2", "show", "cluster", "format=cluster"],
        "me": [
            "sacctmgr", "--noheader", "--parsable2", "show", "user", site.me, "withcoord",
            "format=adminlevel,coordinators",
        ],
        "accounting": [
            "sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-1hour",
            "--user=" + ",".join(site.accounts), "--format=JobID,Submit",
        ],
    }  # fmt: skip
    answer = {what: site.run(argv, 30) for what, argv in asked.items()}  # type: Json
    answer["now"], answer["zone"] = time.time(), zone()
    answer["isolation"] = "shared" if site.shared else "accounts"
    answer["rows_not_written"] = gateway.rows_not_written(site, wait_s=5)
    answer["sbatch_s"] = latencies(site)
    answer["homes"] = {account: home(account, site) for account in site.accounts}
    tool = os.path.join(os.path.dirname(os.path.realpath(gateway.__file__)), "idf-wipe")
    answer["wipes"] = os.access(tool, os.X_OK)
    return answer


def zone() -> str:
    """Return the name of the machine's time zone, or nothing."""
    try:
        return os.path.realpath("/etc/localtime").split("zoneinfo/", 1)[1]
    except IndexError:
        return ""


def latencies(site: "Any") -> "List[float]":
    """Return how long Slurm took to answer a trial submission, some times over; nothing is submitted."""
    took = []
    for _ in range(TRIALS):
        began = time.monotonic()
        site.run(["sbatch", "--test-only", "--time=1", "--wrap=true"], 30)
        took.append(round(time.monotonic() - began, 3))
    return took


def home(account: str, site: "Any") -> "Json":
    """Say whether an account and its home are there, who may look in, and what room is left for logs."""
    try:
        path = site.home if site.shared else pwd.getpwnam(account).pw_dir
        room = os.statvfs(path)
        files = room.f_favail if room.f_files else -1  # some file systems do not count
        return {
            "mode": stat.S_IMODE(os.stat(path).st_mode),
            "free_bytes": room.f_bavail * room.f_frsize, "free_files": files,
        }  # fmt: skip
    except KeyError:
        return {"missing": "account"}
    except OSError as error:
        return {"missing": f"home: {error.strerror}"}
