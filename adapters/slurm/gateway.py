#!/usr/bin/python3 -IS
"""idf-gateway: the only thing that the broker's key can run at a Slurm site.

It lies root-owned at the site, is the forced command of the broker's login account, and is meant to be
read in five minutes by the people who run the site. Python 3.6 or later, standard library only.

Two faces:
- without argument, as the login account: reads one request from standard input, hands each project
  account's part to itself through sudo, then asks the queue and the accounting database;
- `account`, as a project account: sends, cancels, reads a log, keeps a snapshot, in that account's home.

A request is `IDF1 <bytes of JSON> <bytes of data>\\n`, the JSON, then the data. One that is not whole (a cut
connection can deliver a beginning) does nothing. No word of a request ever reaches a shell or a file name
without having matched a pattern below. An answer is lines `<account or *> <JSON>`, the last one
`* {"end": true}`: an account can only ever answer for itself.
"""

import fcntl
import hashlib
import json
import os
import pwd
import re
import select
import signal
import stat
import sys
import time

VERSION = 1
REQUEST_BYTES_MAX = 64 << 20
DATA_BYTES_MAX = 2 << 30
ANSWER_BYTES_MAX = 64 << 20
TEXT_BYTES_MAX = 2000
IDS_A_COMMAND = 2000
ACCOUNTS_AT_ONCE = 8
SLOW_S = 5.0  # a refusal that took longer than this comes from a controller that is away

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
JOB_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
FLAG = re.compile(
    r"--(ignore-pbs|no-requeue|exclusive|export=ALL|(dependency|job-name|open-mode|gpus|gpus-per-node|nodes|ntasks"
    r"|ntasks-per-node|cpus-per-gpu|cpus-per-task|mem|time|deadline|partition|qos|account)=[A-Za-z0-9:._-]{1,128})",
    re.ASCII,
)
SQUEUE_FIELDS = (
    "JobArrayID State RestartCnt UserName SubmitTime StartTime EndTime TimeUsed TimeLimit NumNodes NumCPUs"
    " tres-alloc Partition Reason NodeList WorkDir Name"
).split()
SACCT_FIELDS = (
    "JobID JobIDRaw DBIndex State User Submit Start End ElapsedRaw TimelimitRaw ExitCode AllocTRES Partition"
    " Reason NodeList WorkDir JobName"
).split()
SACCT_STATES = (
    "BOOT_FAIL,CANCELLED,COMPLETED,DEADLINE,FAILED,NODE_FAIL,OUT_OF_MEMORY,PENDING,PREEMPTED,RUNNING,REQUEUED,"
    "RESIZING,REVOKED,SUSPENDED,TIMEOUT"
)
ENDED = set("BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split())


class Refused(Exception):
    """A request that this gateway will not act on; nothing was done."""


# ── requests, answers, children ─────────────────────────────────────────────────────────────────────────


def read_exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise Refused("the request is not whole; nothing was done")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_request(fd: int) -> "tuple[dict, int]":
    """Return the request, and the number of bytes of data that still wait behind it."""
    head = b""
    while not head.endswith(b"\n"):
        head += read_exactly(fd, 1)
        if len(head) > 64:
            raise Refused("this is no request")
    match = re.match(rb"IDF1 ([0-9]{1,12}) ([0-9]{1,12})\n\Z", head)
    if not match or int(match.group(1)) > REQUEST_BYTES_MAX or int(match.group(2)) > DATA_BYTES_MAX:
        raise Refused("this is no request, or one too large")
    request = json.loads(read_exactly(fd, int(match.group(1))).decode())
    if request.get("version") != VERSION:
        raise Refused("this gateway speaks version %d" % VERSION)
    return request, int(match.group(2))


def say(line: bytes) -> bool:
    """Write a line to the caller; False when nobody listens any more."""
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:
        return False
    return True


def encode(answer: dict) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def text(data: bytes, limit: int = TEXT_BYTES_MAX) -> str:
    return data[:limit].decode("utf-8", "backslashreplace")


def matched(pattern: "re.Pattern", word: object) -> str:
    if not isinstance(word, str) or not pattern.fullmatch(word):
        raise Refused("not a word this gateway accepts: %.100r" % (word,))
    return word


def scratch(data: bytes = b"") -> int:
    """Return an open file without a name that holds `data`, at its beginning."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("idf")
    else:
        import tempfile

        with tempfile.TemporaryFile() as unnamed:
            fd = os.dup(unnamed.fileno())
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def contents(fd: int, limit: int = ANSWER_BYTES_MAX) -> bytes:
    """Return what was written to a scratch file, and close it."""
    data = os.pread(fd, limit, 0)
    os.close(fd)
    return data


def start(argv: "list[str]", env: "dict[str, str]", stdin: int, stdout: int, stderr: int) -> int:
    """Start a program found on the site's PATH with these three files; return its process id."""
    if not hasattr(os, "posix_spawnp"):  # before Python 3.8
        import subprocess

        return subprocess.Popen(argv, env=env, stdin=stdin, stdout=stdout, stderr=stderr, close_fds=False).pid
    files = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr))]
    return os.posix_spawnp(argv[0], argv, env, file_actions=files, setsigdef=[signal.SIGPIPE])


class Killer:
    """Kills children that overstay; a tick each second interrupts `os.wait`, which then goes on waiting."""

    def __init__(self) -> None:
        self.ends = {}  # type: dict[int, float]
        signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def tick(self, *_: object) -> None:
        for pid, end in list(self.ends.items()):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)

    def wait(self, pid: int = -1) -> "tuple[int, int]":
        """Wait for a child, or any; return its process id and its exit status, negative for a signal."""
        pid, status = os.waitpid(pid, 0)
        self.ends.pop(pid, None)
        return pid, -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def run(argv: "list[str]", env: "dict[str, str]", killer: Killer, limit_s: float = 60) -> dict:
    """Run one command to its end; return its exit status and what it wrote."""
    stdin, out, err = scratch(), scratch(), scratch()
    pid = start(argv, env, stdin, out, err)
    killer.ends[pid] = time.monotonic() + limit_s
    code = killer.wait(pid)[1]
    os.close(stdin)
    return {"rc": code, "out": text(contents(out), ANSWER_BYTES_MAX), "err": text(contents(err))}


# ── as a project account ────────────────────────────────────────────────────────────────────────────────


def own_folder(name: str) -> str:
    """Return the path of one of our folders in this account's home, made if need be."""
    path = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".idf")
    os.makedirs(os.path.join(path, name), 0o700, exist_ok=True)
    return os.path.join(path, name)


def open_batch(batch: str) -> int:
    """Open a batch's journal. The descriptor is inherited by every sbatch: its lock lasts while one lives."""
    path = os.path.join(own_folder("batches"), matched(NAME, batch))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.set_inheritable(fd, True)
    return fd


def locked(fd: int, wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)


def submit(request: dict, env: "dict[str, str]", killer: Killer) -> "object":
    """Send the jobs of a batch that was never begun nor closed; yield an answer for each."""
    own_folder("logs")
    own_folder("jobs")
    journal = open_batch(request["batch"])
    for job in request["jobs"]:
        for flag in job["args"]:
            matched(FLAG, flag)
        matched(NAME, job["name"])
    if not locked(journal, 0) or os.fstat(journal).st_size:
        yield {"refused": "this batch was begun or closed before"}
        return
    os.write(journal, b"begun\n")
    yield {"begun": True}
    for answer in send(request, journal, env, killer):
        os.write(journal, b"< " + encode(answer))
        yield answer


def send(request: dict, journal: int, env: "dict[str, str]", killer: Killer) -> "object":
    """Run sbatch for each job, `parallel` at a time; once the time is up, or the controller away, start no more."""
    home = env["HOME"]
    last_start = time.monotonic() + request["timeout_s"]
    waiting, running = list(reversed(request["jobs"])), {}
    while running or waiting:
        while waiting and len(running) < request["parallel"] and time.monotonic() < last_start:
            job = waiting.pop()
            os.write(journal, b"> " + job["name"].encode() + b"\n")
            files = scratch(job["script"].encode()), scratch(), scratch()
            folders = ["--chdir=" + home, "--output=" + home + "/.idf/logs/%x.log"]
            pid = start(["sbatch", "--parsable"] + job["args"] + folders, env, *files)
            running[pid] = job["name"], time.monotonic(), files
            killer.ends[pid] = time.monotonic() + request["sbatch_s"]
        if not running:
            break
        pid, code = killer.wait()
        name, began, (script, out, err) = running.pop(pid)
        os.close(script)
        if code and time.monotonic() - began > SLOW_S:
            last_start = 0
        yield {"name": name, "rc": code, "out": text(contents(out)), "err": text(contents(err))}
    for job in reversed(waiting):
        yield {"name": job["name"], "unsent": "no time was left, or the controller did not answer"}


def burn(request: dict, env: "dict[str, str]", killer: Killer) -> "object":
    """Close batches, so that none can begin any more; yield what the journal says of the names asked about."""
    for batch, names in sorted(request["batches"].items()):
        journal = open_batch(batch)
        if not locked(journal, request["wait_s"]):
            yield {"batch": batch, "busy": True}
            continue
        lines = contents_of_journal(journal)
        closed = [line[7:] for line in lines if line.startswith("closed ")]
        if not closed:
            closed = [str(int(time.time()))]
            os.write(journal, ("closed %s\n" % closed[0]).encode())
        answers = [json.loads(line[2:]) for line in lines if line.startswith("< ")]
        yield {
            "batch": batch,
            "closed_s_ago": int(time.time()) - int(closed[0]),
            "begun": sorted({line[2:] for line in lines if line.startswith("> ")} & set(names)),
            "answers": [answer for answer in answers if answer["name"] in names],
        }
        os.close(journal)


def contents_of_journal(journal: int) -> "list[str]":
    """Return the journal's lines; a last one that was cut while being written is left out."""
    written = text(os.pread(journal, ANSWER_BYTES_MAX, 0), ANSWER_BYTES_MAX)
    if written and not written.endswith("\n"):
        os.write(journal, b"\n")
    return written.split("\n")[:-1]


def cancel(request: dict, env: "dict[str, str]", killer: Killer) -> "object":
    yield run(["scancel"] + [matched(JOB_ID, job) for job in request["ids"][:IDS_A_COMMAND]], env, killer)


def read_log(request: dict, env: "dict[str, str]", killer: Killer) -> "object":
    """Yield what a job's log holds from an offset, waiting a while for something new."""
    import base64

    path = os.path.join(own_folder("logs"), matched(NAME, request["name"]) + ".log")
    end = time.monotonic() + request["wait_s"]
    while True:
        data = None
        try:
            # O_NONBLOCK: opening a fifo that someone put there must not hang.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Refused("the log cannot be read: %s" % error.strerror)
        else:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Refused("the log is no regular file")
            data = os.pread(fd, min(request["limit_bytes"], ANSWER_BYTES_MAX // 2), request["offset"])
            os.close(fd)
        if data or time.monotonic() >= end:
            yield {"exists": data is not None, "data": base64.b64encode(data or b"").decode()}
            return
        time.sleep(0.1)


def snapshot(request: dict, env: "dict[str, str]", killer: Killer) -> "object":
    """Keep the data behind the request under its SHA-256, if it has that; without data, say whether it is there."""
    path = os.path.join(own_folder("snapshots"), matched(DIGEST, request["digest"]) + ".tar.gz")
    if os.path.exists(path) or not request["data_bytes"]:
        yield {"there": os.path.exists(path)}
        return
    half, digest, left = "%s.%d" % (path, os.getpid()), hashlib.sha256(), request["data_bytes"]
    try:
        with open(half, "xb") as file:
            while left:
                part = read_exactly(0, min(left, 1 << 20))
                digest.update(part)
                file.write(part)
                left -= len(part)
        if digest.hexdigest() != request["digest"]:
            raise Refused("the snapshot's bytes do not have the digest that was promised")
        os.rename(half, path)
    except OSError as error:
        raise Refused("the snapshot cannot be kept: %s" % error.strerror)
    finally:
        if os.path.exists(half):
            os.unlink(half)
    yield {"there": True}


AS_ACCOUNT = {f.__name__: f for f in (submit, burn, cancel, read_log, snapshot)}


def serve_account(request: dict, env: "dict[str, str]", killer: Killer) -> "object":
    """Yield the answers to one account's part of a request."""
    try:
        for answer in AS_ACCOUNT[request["do"]](request, env, killer):
            yield answer
    except Refused as refusal:
        yield {"refused": str(refusal)}
    except (KeyError, TypeError, ValueError, OSError) as error:
        yield {"error": "%s: %s" % (type(error).__name__, error)}
    yield {"done": True}


# ── as the login account ────────────────────────────────────────────────────────────────────────────────


def ask_accounts(parts: dict, data_bytes: int, site: dict, env: "dict[str, str]", killer: Killer) -> None:
    """Hand each account its part and pass its answers on under its name."""
    me = pwd.getpwuid(os.getuid()).pw_name
    for account in sorted(parts):
        if account not in site["accounts"]:
            say(account_line(matched(NAME, account), encode({"refused": "not an account of this site"})))
    mine = sorted(account for account in parts if account in site["accounts"])
    if site["isolation"] == "shared":
        for account in mine:
            if account == me:
                speak(serve_account(parts[account], env, killer), account_line(account, b""))
        return
    listening = {}
    while mine or listening:
        while mine and len(listening) < ACCOUNTS_AT_ONCE:
            account = mine.pop(0)
            listening[start_account(account, parts[account], data_bytes, env)] = [account, b"", 0]
        for fd in select.select(list(listening), [], [])[0]:
            if not pass_on(fd, listening[fd]):
                del listening[fd]


def account_line(account: str, line: bytes) -> bytes:
    return account.encode() + b" " + line


def start_account(account: str, part: dict, data_bytes: int, env: "dict[str, str]") -> int:
    """Start this gateway as a project account; return the end of the pipe where its answers come out."""
    body = encode(dict(part, version=VERSION))
    frame = b"IDF1 %d %d\n" % (len(body), data_bytes) + body
    answers, theirs = os.pipe()
    argv = ["sudo", "-n", "-u", account, os.path.realpath(__file__), "account"]
    if not data_bytes:
        stdin = scratch(frame)
        start(argv, env, stdin, theirs, 2)
    else:
        stdin, ours = os.pipe()
        start(argv, env, stdin, theirs, 2)
        pump(frame, data_bytes, ours)
    os.close(stdin)
    os.close(theirs)
    return answers


def pump(frame: bytes, data_bytes: int, to: int) -> None:
    """Pass the data behind the request on; if it ends early, or nobody reads, the account sees a part and drops it."""
    try:
        os.write(to, frame)
        while data_bytes:
            part = memoryview(read_exactly(0, min(data_bytes, 1 << 16)))
            data_bytes -= len(part)
            while part:
                part = part[os.write(to, part) :]
    except (OSError, Refused):
        pass
    os.close(to)


def pass_on(fd: int, listener: list) -> bool:
    """Pass whole lines on; False at the end, or when there was too much."""
    account, rest, total = listener
    part = os.read(fd, 1 << 18)
    lines = (rest + part).split(b"\n")
    for line in lines[:-1]:
        say(account_line(account, line + b"\n"))
    listener[1:] = lines[-1], total + len(part)
    if part and total < ANSWER_BYTES_MAX:
        return True
    os.close(fd)
    say(account_line(account, encode({"left": True})))
    return False


def users(site: dict) -> str:
    if site["isolation"] == "shared":
        return pwd.getpwuid(os.getuid()).pw_name
    return ",".join(site["accounts"])


def ask_queue(site: dict, env: "dict[str, str]", killer: Killer, extra: "list[str]") -> dict:
    # Size 0 prints a field whole; what follows is the mark between fields. Free text comes last.
    form = ",".join(field + ":0|" for field in SQUEUE_FIELDS[:-1]) + "," + SQUEUE_FIELDS[-1] + ":0"
    argv = ["squeue", "--noheader", "--array", "--states=all", "--user=" + users(site), "--Format=" + form]
    return run(argv + extra, env, killer)


def ask_accounting(site: dict, env: "dict[str, str]", killer: Killer, extra: "list[str]") -> dict:
    argv = ["sacct", "--noheader", "--parsable2", "--duplicates", "--allocations", "--user=" + users(site)]
    return run(argv + ["--format=" + ",".join(SACCT_FIELDS)] + extra, env, killer)


def cluster_name(env: "dict[str, str]", killer: Killer) -> str:
    match = re.search(r"^ClusterName *= *(\S+)", run(["scontrol", "show", "config"], env, killer)["out"], re.MULTILINE)
    return match.group(1) if match else ""


def rows_not_written(env: "dict[str, str]", killer: Killer) -> int:
    """Return how many records the controller still keeps for the accounting database; -1 when unknown."""
    match = re.search(r"DBD Agent queue size: *([0-9]+)", run(["sdiag"], env, killer)["out"])
    return int(match.group(1)) if match else -1


def observe(request: dict, site: dict, env: "dict[str, str]", killer: Killer) -> dict:
    """The queue's rows of the jobs asked about, and accounting's of those that the queue does not show at work."""
    asked = {matched(JOB_ID, job) for job in request["ids"]}
    queue = ask_queue(site, env, killer, [])
    rows = [row for row in queue["out"].split("\n") if row.split("|", 1)[0] in asked or row.count("|") < 2]
    queue["out"] = "\n".join(rows)
    answer = {
        "queue": queue,
        "queue_fields": SQUEUE_FIELDS,
        "accounting": [],
        "accounting_fields": SACCT_FIELDS,
    }
    if queue["rc"] == 0:
        answer["cluster"] = cluster_name(env, killer)
        at_work = set()
        for row in rows:
            job, state, restarts = (row.split("|", 3) + ["", ""])[:3]
            if state not in ENDED and restarts == "0":
                at_work.add(job)
        rest = sorted(asked - at_work)
        answer["rows_not_written"] = rows_not_written(env, killer) if rest else 0
        for first in range(0, len(rest), IDS_A_COMMAND):
            ids = ["--jobs=" + ",".join(rest[first : first + IDS_A_COMMAND])]
            answer["accounting"].append(ask_accounting(site, env, killer, ids))
    return answer


def look_up(request: dict, site: dict, env: "dict[str, str]", killer: Killer) -> dict:
    """Everything that the queue and the accounting database know under these names."""
    names = [matched(NAME, name) for name in request["names"]]
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(request["since"])))
    answer = {"queue": [], "accounting": [], "queue_fields": SQUEUE_FIELDS, "accounting_fields": SACCT_FIELDS}
    for first in range(0, len(names), IDS_A_COMMAND):
        some = ",".join(names[first : first + IDS_A_COMMAND])
        answer["queue"].append(ask_queue(site, env, killer, ["--name=" + some]))
        answer["rows_not_written"] = max(answer.get("rows_not_written", 0), rows_not_written(env, killer))
        extra = ["--name=" + some, "--starttime=" + since, "--endtime=now", "--state=" + SACCT_STATES]
        answer["accounting"].append(ask_accounting(site, env, killer, extra))
    answer["homes"] = {account: pwd.getpwnam(account).pw_dir for account in users(site).split(",")}
    return answer


def check(request: dict, site: dict, env: "dict[str, str]", killer: Killer) -> dict:
    """What enrolment looks at."""
    return {
        "isolation": site["isolation"],
        "accounts": site["accounts"],
        "release": run(["sinfo", "--version"], env, killer),
        "configuration": run(["scontrol", "show", "config"], env, killer),
        "nodes": run(["sinfo", "--noheader", "--Node", "--Format=NodeList:0|,Gres:0"], env, killer),
        "accounting": run(["sacctmgr", "--noheader", "--parsable2", "show", "cluster", "format=cluster"], env, killer),
    }


AS_LOGIN = {f.__name__: f for f in (observe, look_up, check)}


def environment(site: dict) -> "dict[str, str]":
    """Nothing is inherited: a SLURM_, SBATCH_ or SQUEUE_ variable would change what commands do and say."""
    me = pwd.getpwuid(os.getuid())
    return {
        "PATH": site["path"], "SLURM_CONF": site["slurm_conf"], "SLURM_TIME_FORMAT": "%s", "TZ": "UTC",
        "LC_ALL": "C.UTF-8", "HOME": me.pw_dir, "USER": me.pw_name, "LOGNAME": me.pw_name, "SHELL": "/bin/bash",
    }  # fmt: skip


def read_site() -> dict:
    path = os.path.join(os.path.dirname(os.path.realpath(__file__)), "idf-gateway.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main(argv: "list[str]") -> int:
    os.umask(0o077)
    site = read_site()
    env = environment(site)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(env["HOME"])
    as_account = argv[1:] == ["account"]
    mark = b"" if as_account else b"* "
    killer = Killer()
    try:
        request, data_bytes = read_request(0)
        if as_account:
            return speak(serve_account(request, env, killer), b"")
        ask_accounts(request.get("accounts", {}), data_bytes, site, env, killer)
        if "do" in request:
            say(b"* " + encode(AS_LOGIN[request["do"]](request, site, env, killer)))
    except (Refused, KeyError, ValueError) as refusal:
        say(mark + encode({"refused": "%s: %s" % (type(refusal).__name__, refusal)}))
    return 0 if say(mark + encode({"end": True})) else 1


def speak(answers: "object", mark: bytes) -> int:
    """Say an account's answers; where nobody listens, it is better not to begin a batch."""
    for answer in answers:
        if not say(mark + encode(answer)) and "begun" in answer:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
