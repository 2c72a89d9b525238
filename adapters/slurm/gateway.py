#!/usr/bin/python3 -IS
"""idf-gateway: the only thing that the broker's key can run at a Slurm site.

It lies root-owned at the site, is the forced command of the broker's login account, and is meant to be
read in a few minutes by the people who run the site. Python 3.6 or later, standard library only.

Three faces:
- without argument, as the login account: reads one request from standard input, hands each project
  account's part to itself through sudo, then asks the queue and the accounting database;
- `account`, as a project account: sends, cancels, reads a log, keeps a snapshot, in that account's home;
- `token`, as SlurmUser, only where slurmrestd is used: mints a JWT of at most 15 minutes for one of these accounts.

A request is `IDF1 <bytes of JSON> <bytes of data>\\n`, the JSON, then the data. One that is not whole (a cut
connection can deliver a beginning) does nothing. No word of a request reaches a command or a file name
without having matched a pattern below, and none reaches a shell. An answer is lines `<account or *> <JSON>`,
the last one `* {"end": true}`: an account can only ever answer for itself.
"""

import fcntl
import json
import os
import pwd
import re
import select
import signal
import stat
import sys
import time
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Pattern, Tuple

    Json = Dict[str, Any]

VERSION = 1
REQUEST_BYTES_MAX = 64 << 20
DATA_BYTES_MAX = 2 << 30
ANSWER_BYTES_MAX = 64 << 20
TEXT_BYTES_MAX = 2000
WORDS_A_COMMAND = 2000  # Linux takes 128 KiB in one argument
ACCOUNTS_AT_ONCE = 8
TOKEN_S_MAX = 900
SLOW_S = 5.0  # a refusal that took longer than this comes from a controller that is away

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
JOB_ID = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
TOKEN = re.compile(r"SLURM_JWT=([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)\s*", re.ASCII)
PART = re.compile(r"[^/\x00-\x1f\x7f-\x9f]{1,255}")
FLAG = re.compile(
    r"--(ignore-pbs|no-requeue|requeue|exclusive|export=ALL|(job-name|open-mode|gpus|gpus-per-node|nodes|ntasks"
    r"|ntasks-per-node|cpus-per-gpu|cpus-per-task|mem|time|deadline|partition|qos|account|nodelist)=[A-Za-z0-9:._-]{1,128}"
    r"|dependency=singleton(,after(ok|any|notok):[0-9]{1,10}(_[0-9]{1,10})?){0,16}|kill-on-invalid-dep=yes"
    r"|begin=[0-9T:-]{19}|signal=B:[A-Z0-9]{3,4}@[0-9]{1,5}|array=[0-9,:%-]{1,20000})",
    re.ASCII,
)
QUEUE_FIELDS = "JobArrayID,State,RestartCnt,UserName,SubmitTime,StartTime,EndTime,TimeUsed,TimeLimit"
QUEUE_FIELDS += ",tres-alloc,Reason,NodeList,WorkDir,Name"
ACCOUNTING_FIELDS = "JobID,State,User,Submit,Start,End,ElapsedRaw,TimelimitRaw,ExitCode,AllocTRES"
ACCOUNTING_FIELDS += ",Reason,NodeList,WorkDir,JobName"
OUTPUTS_MAX, DEPTH_MAX, LEFT_OUT_MAX = 10000, 16, 100
ENDED = "BOOT_FAIL,CANCELLED,COMPLETED,DEADLINE,FAILED,NODE_FAIL,OUT_OF_MEMORY,PREEMPTED,REVOKED,TIMEOUT"
NOT_ENDED = "PENDING,REQUEUED,RESIZING,RUNNING,SUSPENDED"


class Refused(Exception):
    """A request that this gateway will not act on; nothing was done."""


# ── requests and answers ────────────────────────────────────────────────────────────────────────────────


def read_exactly(fd: int, size: int) -> bytes:
    """Return so many bytes."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise Refused("the request is not whole; nothing was done")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_request() -> "Tuple[Json, int]":
    """Return the request, and the number of bytes of data that still wait behind it."""
    head = b""
    while not head.endswith(b"\n"):
        head += read_exactly(0, 1)
        if len(head) > 64:
            raise Refused("this is no request")
    match = re.match(rb"IDF1 ([0-9]{1,12}) ([0-9]{1,12})\n\Z", head)
    if not match or int(match.group(1)) > REQUEST_BYTES_MAX or int(match.group(2)) > DATA_BYTES_MAX:
        raise Refused("this is no request, or one too large")
    request = json.loads(read_exactly(0, int(match.group(1))).decode())  # type: Json
    if not isinstance(request, dict) or request.get("version") != VERSION:
        raise Refused(f"this gateway speaks version {VERSION}")
    return request, int(match.group(2))


def frame(request: "Json", data_bytes: int) -> bytes:
    """Return a request as `read_request` reads it."""
    body = encode(dict(request, version=VERSION))
    return b"IDF1 %d %d\n" % (len(body), data_bytes) + body


def encode(answer: "Json") -> bytes:
    """Return one line of JSON."""
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def say(line: bytes) -> bool:
    """Write a line to the caller; False when nobody listens any more."""
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:
        return False
    return True


def speak(answers: "Iterator[Json]", mark: bytes) -> None:
    """Say an account's answers, some together: each on its own woke up four processes for every job.

    Where nobody listens, it is better not to begin a batch.
    """
    held = b""
    for answer in answers:
        held += mark + encode(answer)
        if "begun" in answer or len(held) > 4096:
            if not say(held) and "begun" in answer:
                return
            held = b""
    say(held)


def text(data: bytes, limit: int = TEXT_BYTES_MAX) -> str:
    """Return what a command wrote, fit for JSON whatever it wrote."""
    return data[:limit].decode("utf-8", "backslashreplace")


def matched(pattern: "Pattern[str]", word: object) -> str:
    """Return the word if it has the pattern's shape."""
    if not isinstance(word, str) or not pattern.fullmatch(word):
        raise Refused(f"not a word that this gateway accepts: {str(word)[:100]!r}")
    return word


def chunks(words: "List[str]") -> "Iterator[List[str]]":
    """Yield the words in portions that fit one command."""
    for first in range(0, len(words), WORDS_A_COMMAND):
        yield words[first : first + WORDS_A_COMMAND]


# ── running commands ────────────────────────────────────────────────────────────────────────────────────


def scratch(data: bytes = b"") -> int:
    """Return an open file without a name that holds `data`, at its beginning."""
    if hasattr(os, "memfd_create"):  # Python 3.8
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


def contents(fd: int, limit: int = TEXT_BYTES_MAX) -> str:
    """Return what was written to a scratch file, and close it."""
    data = os.pread(fd, limit, 0)
    os.close(fd)
    return text(data, limit)


class Site:
    """What this gateway knows of its site, and the children that it runs there.

    Children inherit no environment: a SLURM_, SBATCH_ or SQUEUE_ variable would change what commands do and
    say. A tick each second kills those that overstay; it interrupts `os.waitpid`, which then goes on waiting.
    """

    def __init__(self) -> None:
        with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "idf-gateway.json")) as file:
            known = json.load(file)
        me = pwd.getpwuid(os.getuid())
        self.shared = known["isolation"] == "shared"
        self.me, self.home = me.pw_name, known.get("home", me.pw_dir) if self.shared else me.pw_dir
        self.accounts = [self.me] if self.shared else list(known["accounts"])
        self.slurm_user = known.get("slurm_user", "slurm")
        self.caller = self.me
        self.env = {
            "PATH": known["path"], "SLURM_CONF": known["slurm_conf"], "SLURM_TIME_FORMAT": "%s", "TZ": "UTC",
            "SLURM_BITSTR_LEN": "0",  # the tasks of an array are named whole
            "LC_ALL": "C.UTF-8", "HOME": self.home, "USER": me.pw_name, "LOGNAME": me.pw_name, "SHELL": "/bin/bash",
        }  # fmt: skip
        os.environ.clear()
        os.environ.update(self.env)
        self.program = [os.path.realpath(__file__)]
        self.ends = {}  # type: Dict[int, float]
        signal.signal(signal.SIGALRM, self.tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def tick(self, *_: object) -> None:
        """Kill the children whose time is over."""
        for pid, end in list(self.ends.items()):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)

    def start(self, argv: "List[str]", limit_s: float, *files: int) -> int:
        """Start a program found on the site's PATH with these three files; return its process id."""
        if hasattr(os, "posix_spawnp"):  # Python 3.8: a tenth of subprocess's cost
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(files)]
            pid = os.posix_spawnp(argv[0], argv, self.env, file_actions=actions, setsigdef=[signal.SIGPIPE])
        else:
            import subprocess

            stdin, stdout, stderr = files
            pid = subprocess.Popen(
                argv, env=self.env, stdin=stdin, stdout=stdout, stderr=stderr, close_fds=False
            ).pid  # fmt: skip
        self.ends[pid] = time.monotonic() + limit_s
        return pid

    def wait(self, pid: int = -1) -> "Tuple[int, int]":
        """Wait for a child, or any; return its process id and its exit status, negative for a signal."""
        pid, status = os.waitpid(pid, 0)
        self.ends.pop(pid, None)
        return pid, -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def run(self, argv: "List[str]", limit_s: float = 60) -> "Json":
        """Run one command to its end; return its exit status and what it wrote."""
        stdin, out, err = scratch(), scratch(), scratch()
        code = self.wait(self.start(argv, limit_s, stdin, out, err))[1]
        os.close(stdin)
        return {"rc": code, "out": contents(out, ANSWER_BYTES_MAX), "err": contents(err)}


# ── as a project account ────────────────────────────────────────────────────────────────────────────────


def own_path(site: Site, folder: str, name: str = "") -> str:
    """Return a path in one of our folders in this account's home; the folder is made if need be."""
    path = os.path.join(site.home, ".idf", folder)
    os.makedirs(path, 0o700, exist_ok=True)
    return os.path.join(path, name)


class Journal:
    """A batch's file: `begun`, `> name` before each sbatch, `< answer` after it, `closed <time>` at adoption.

    Its lock is held for as long as the batch is being sent: the descriptor is inherited by every sbatch, so
    that a killed runner's last children hold it too. Of a batch that is sent through slurmrestd it says `until
    <time>`: when the token ends that it is sent with.
    """

    def __init__(self, site: Site, batch: str) -> None:
        path = own_path(site, "batches", matched(NAME, batch))
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.set_inheritable(self.fd, True)

    def lock(self, wait_s: float) -> bool:
        """Take the lock; False when it is held by another for all of this time."""
        end = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= end:
                    return False
                time.sleep(0.05)
            else:
                return True

    def write(self, line: bytes) -> None:
        """Add a line; it is there for others before this returns."""
        if os.write(self.fd, line) != len(line):
            raise OSError("no room for the batch's journal")

    def lines(self) -> "List[str]":
        """Return the whole lines; one that was cut while being written is ended here."""
        written = text(os.pread(self.fd, ANSWER_BYTES_MAX, 0), ANSWER_BYTES_MAX)
        if written and not written.endswith("\n"):
            self.write(b"\n")
        return written.split("\n")[:-1]


def submit(part: "Json", site: Site) -> "Iterator[Json]":
    """Send the jobs of a batch that was never begun nor closed; yield an answer for each."""
    for job in part["jobs"]:
        matched(NAME, job["name"])
        for flag in job["args"]:
            matched(FLAG, flag)
    journal = fresh_journal(part, site)
    if journal is None:
        yield {"used": True}
        return
    journal.write(b"begun\n")
    yield {"begun": True}
    for answer in send(dict(part, jobs=keep_safe(part["jobs"], site)), journal, site):
        journal.write(b"< " + encode(answer))
        yield answer


def fresh_journal(part: "Json", site: Site) -> "Journal | None":
    """Return the locked journal of a batch that was never begun nor closed; None if it was begun."""
    own_path(site, "logs")
    journal = Journal(site, part["batch"])
    if not journal.lock(0) or "begun" in journal.lines():
        return None
    if journal.lines():
        raise Refused("this batch was closed before it began")
    return journal


def open_batch(part: "Json", site: Site) -> "Iterator[Json]":
    """Begin a batch that the broker sends through slurmrestd; yield what its jobs need to start as sbatch's do."""
    journal = fresh_journal(part, site)
    if journal is None:
        yield {"used": True}
        return
    journal.write(b"begun\nuntil %d\n" % part["until"])
    yield {"begun": True, "home": site.home, "environment": site.env}


def keep_safe(jobs: "List[Json]", site: Site) -> "List[Json]":
    """Mark the jobs that run after one that the queue has no more, or that has ended there.

    Slurm takes a dependency on a job that it forgot for one that came true, whatever became of that (seen on 22.05).
    One that has not ended now is not forgotten within MinJobAge, which is longer than any sbatch.
    """
    wanted = {job["name"]: set(re.findall(r"after[a-z]+:([0-9]+)", " ".join(job["args"]))) for job in jobs}
    if not any(wanted.values()):
        return jobs
    there = set(site.run(["squeue", "--noheader", "--user=" + site.me, "--format=%F"])["out"].split())
    return [dict(job, late=not wanted[job["name"]] <= there) for job in jobs]


def send(part: "Json", journal: Journal, site: Site) -> "Iterator[Json]":
    """Run sbatch for each job, `parallel` at a time; when time is up, or the controller away, start no more."""
    last_start = time.monotonic() + part["timeout_s"]
    waiting, running = list(reversed(part["jobs"])), {}  # type: List[Json], Dict[int, Any]
    logs = site.home + "/.idf/logs/%x"
    while running or waiting:
        while waiting and len(running) < part["parallel"] and time.monotonic() < last_start:
            job = waiting.pop()
            if job.get("late"):
                yield {"name": job["name"], "unsent": "a job that it runs after is not in the queue any more"}
                continue
            journal.write(b"> " + job["name"].encode() + b"\n")
            files = scratch(job["script"].encode()), scratch(), scratch()
            tasks = "_%a" if any(flag.startswith("--array=") for flag in job["args"]) else ""
            argv = ["sbatch", "--parsable", *job["args"], "--chdir=" + site.home, "--output=" + logs + tasks + ".log"]
            pid = site.start(argv, part["sbatch_s"], *files)
            running[pid] = job["name"], time.monotonic(), files
        if not running:
            break
        pid, code = site.wait()
        name, began, (script, out, err) = running.pop(pid)
        os.close(script)
        if code and time.monotonic() - began > SLOW_S:
            last_start = 0
        yield {"name": name, "rc": code, "out": contents(out), "err": contents(err)}
    for job in reversed(waiting):
        yield {"name": job["name"], "unsent": "no time was left, or the controller did not answer"}


def burn(part: "Json", site: Site) -> "Iterator[Json]":
    """Close batches, so that none can begin any more; yield what each journal says of the names asked about."""
    for batch, names in sorted(part["batches"].items()):
        journal = Journal(site, batch)
        if not journal.lock(part["wait_s"]):
            yield {"batch": batch, "busy": True}
            continue
        lines, now = journal.lines(), int(time.time())
        closed = [int(line[7:]) for line in lines if line.startswith("closed ")]
        if not closed:
            journal.write(b"closed %d\n" % now)
        answers = [json.loads(line[2:]) for line in lines if line.startswith("< ")]
        until = [int(line[6:]) for line in lines if line.startswith("until ")]
        token = {"open_s": max(until) - now} if until else {}
        yield {
            **token,
            "batch": batch,
            "closed_s_ago": now - min(closed, default=now),
            "begun": sorted({line[2:] for line in lines if line.startswith("> ")} & set(names)),
            "answers": [answer for answer in answers if answer["name"] in names],
        }
        os.close(journal.fd)


def cancel(part: "Json", site: Site) -> "Iterator[Json]":
    """Run scancel; yield what it said."""
    for ids in chunks([matched(JOB_ID, job) for job in part["ids"]]):
        yield site.run(["scancel", *ids])


def read_logs(part: "Json", site: Site) -> "Iterator[Json]":
    """Yield what several logs hold from an offset of each, as soon as one holds something, at the latest after a while.

    All who follow a log of this account share one such call.
    """
    import base64

    asked = []
    for log in part["logs"]:
        path = own_path(site, "logs", matched(NAME, log["name"]) + ".log")
        asked.append((path, log["offset"], min(log["limit_bytes"], ANSWER_BYTES_MAX // (2 * len(part["logs"])))))
    end = time.monotonic() + part["wait_s"]
    while True:
        answers, news = [], False  # type: List[Json], bool
        for path, offset, limit_bytes in asked:
            try:
                data = read_regular(path, offset, limit_bytes)
            except Refused as refusal:
                answers.append({"refused": str(refusal)})
            else:
                answers.append({"exists": data is not None, "data": base64.b64encode(data or b"").decode()})
            news = news or "refused" in answers[-1] or bool(answers[-1]["data"])
        if news or time.monotonic() >= end:
            yield {"logs": answers}
            return
        time.sleep(0.1)


def read_regular(path: str, offset: int, limit_bytes: int, folder: "int | None" = None) -> "bytes | None":
    """Return a piece of a regular file, None if there is none; a link, a pipe or a device is refused."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"the file cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused("what lies there is no regular file")
        return os.pread(fd, limit_bytes, offset)
    finally:
        os.close(fd)


def open_folder(site: Site, names: "List[str]") -> "int | None":
    """Open a folder below the home, name by name and through no link; None if there is none."""
    fd = os.open(site.home, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        above = fd
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"the folder cannot be opened: {error.strerror}") from error
        finally:
            os.close(above)
    return fd


def list_outputs(part: "Json", site: Site) -> "Iterator[Json]":
    """Yield the regular files of a job's output folder, bounded in number and depth, and what was left out.

    Of an array those of the tasks asked about, each path led by its task.
    """
    found, exists = Found(), False
    for task in part.get("tasks", [None]):
        fd = open_folder(site, folder_of(part["name"], task))
        if fd is not None:
            exists = True
            found.walk(fd, *(("", 1) if task is None else ("%d/" % task, 2)))
    some = found.left_out[:LEFT_OUT_MAX]
    yield {"exists": exists, "files": found.files, "left_out": some, "left_out_count": len(found.left_out)}


def folder_of(name: str, task: "int | None") -> "List[str]":
    """Return where a job's outputs lie, or those of one task of an array."""
    return [".idf", "jobs", matched(NAME, name), *([] if task is None else ["%d" % task]), "outputs"]


class Found:
    """What lies in an output folder: at most so many entries of all kinds are looked at, and no link is followed."""

    def __init__(self) -> None:
        self.files, self.left_out, self.more = [], [], OUTPUTS_MAX  # type: List[Any], List[str], int

    def walk(self, fd: int, above: str, depth: int) -> None:
        """Look at one folder and at those in it; nothing is opened but folders."""
        with os.scandir("/proc/self/fd/%d" % fd) as entries:  # Python 3.6 scans no descriptor
            names = [entry.name for entry in islice(entries, self.more + 1)]
        if len(names) > self.more:
            self.left_out.append("some of what lies there: more than %d files and folders" % OUTPUTS_MAX)
            del names[self.more :]
        self.more -= len(names)
        taken = set(names[:0])
        for name in sorted(names, key=os.fsencode):
            why_not = self.take(fd, above, name, depth) if name.casefold() not in taken else "differs by case alone"
            if why_not:
                self.left_out.append(ascii(above + name) + ": it " + why_not)
            taken.add(name.casefold())
        os.close(fd)

    def take(self, fd: int, above: str, name: str, depth: int) -> str:
        """Add an entry; return why it is left out, or nothing."""
        if not PART.fullmatch(name) or name.encode("utf-8", "replace").decode() != name:
            return "has a name with characters that no name here may have"
        kind = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(kind.st_mode):
            self.files.append([above + name, kind.st_size, int(kind.st_mtime)])
        elif not stat.S_ISDIR(kind.st_mode):
            return "is no regular file"
        elif depth >= DEPTH_MAX:
            return "lies too deep"
        else:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self.walk(os.open(name, flags, dir_fd=fd), above + name + "/", depth + 1)
        return ""


def read_output(part: "Json", site: Site) -> "Iterator[Json]":
    """Yield a piece of one file of a job's output folder, and the size of the whole."""
    import base64

    names = part["path"].split("/")
    if any(name in (".", "..") or not PART.fullmatch(name) for name in names) or len(names) > DEPTH_MAX:
        raise Refused("this is no path of a job's outputs")
    fd = open_folder(site, [*folder_of(part["name"], part.get("task")), *names[:-1]])
    limit_bytes = min(part["limit_bytes"], ANSWER_BYTES_MAX // 2)
    data = None if fd is None else read_regular(names[-1], part["offset"], limit_bytes, fd)
    if fd is None or data is None:
        raise Refused("there is no such file")
    size = os.stat(names[-1], dir_fd=fd, follow_symlinks=False).st_size
    yield {"data": base64.b64encode(data).decode(), "size_bytes": size}


def expected_start(part: "Json", site: Site) -> "Iterator[Json]":
    """Yield what `sbatch --test-only` says of a job that is not sent."""
    for flag in part["args"]:
        matched(FLAG, flag)
    files = scratch(b"#!/bin/sh\n"), scratch(), scratch()
    code = site.wait(site.start(["sbatch", "--test-only", *part["args"]], part["limit_s"], *files))[1]
    yield {"rc": code, "out": contents(files[1]), "err": contents(files[2])}


def snapshot(part: "Json", site: Site) -> "Iterator[Json]":
    """Keep the data behind the request under its SHA-256, if it has that; without data, say whether it is there."""
    path = own_path(site, "snapshots", matched(DIGEST, part["digest"]) + ".tar.gz")
    if part["data_bytes"] and not os.path.exists(path):
        half = f"{path}.{os.getpid()}"
        try:
            write_verified(half, part["data_bytes"], part["digest"])
            os.rename(half, path)
        except OSError as error:
            raise Refused(f"the snapshot cannot be kept: {error.strerror}") from error
        finally:
            if os.path.exists(half):
                os.unlink(half)
    yield {"there": os.path.exists(path)}


def write_verified(path: str, size: int, promised: str) -> None:
    """Write the data behind the request to a new file."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "xb") as file:
        while size:
            some = read_exactly(0, min(size, 1 << 20))
            digest.update(some)
            file.write(some)
            size -= len(some)
    if digest.hexdigest() != promised:
        raise Refused("the snapshot's bytes do not have the digest that was promised")


AS_ACCOUNT = {
    "submit": submit, "open": open_batch, "burn": burn, "cancel": cancel, "read_logs": read_logs, "snapshot": snapshot,
    "list_outputs": list_outputs, "read_output": read_output, "expected_start": expected_start,
}  # fmt: skip


def serve_account(part: "Json", site: Site) -> "Iterator[Json]":
    """Yield the answers to one account's part of a request."""
    try:
        for answer in AS_ACCOUNT[part["do"]](part, site):
            yield answer
    except Refused as refusal:
        yield {"refused": str(refusal)}
    except (KeyError, TypeError, ValueError, OSError) as error:
        yield {"error": f"{type(error).__name__}: {error}"}
    yield {"done": True}


# ── as the login account ────────────────────────────────────────────────────────────────────────────────


def ask_accounts(parts: "Dict[str, Json]", data_bytes: int, site: Site) -> None:
    """Hand each account its part and pass its answers on under its name."""
    for account in set(parts) - set(site.accounts):
        say(matched(NAME, account).encode() + b" " + encode({"refused": f"{account} is no account of this site"}))
    mine = sorted(set(parts) & set(site.accounts))
    if site.shared:
        for account in mine:
            speak(serve_account(parts[account], site), account.encode() + b" ")
        return
    listening = {}  # type: Dict[int, List[Any]]
    while mine or listening:
        while mine and len(listening) < ACCOUNTS_AT_ONCE:
            account = mine.pop(0)
            listening[start_account(account, parts[account], data_bytes, site)] = [account.encode() + b" ", b"", 0]
        for fd in select.select(list(listening), [], [])[0]:
            if not pass_on(fd, listening[fd]):
                del listening[fd]


def start_account(account: str, part: "Json", data_bytes: int, site: Site) -> int:
    """Start this gateway as a project account; return the end of the pipe where its answers come out."""
    argv = ["sudo", "-n", "-u", account, *site.program, "account"]
    answers, theirs = os.pipe()
    request = frame(part, data_bytes)
    stdin, ours = os.pipe() if data_bytes else (scratch(request), -1)
    site.ends.pop(site.start(argv, 0, stdin, theirs, 2))  # nothing of ours may kill what runs as another
    if data_bytes:
        pump(request, data_bytes, ours)
    os.close(stdin)
    os.close(theirs)
    return answers


def pump(request: bytes, data_bytes: int, to: int) -> None:
    """Pass data on; if it ends early, or nobody reads, the account gets a part of it and drops that."""
    try:
        os.write(to, request)
        while data_bytes:
            some = memoryview(read_exactly(0, min(data_bytes, 1 << 16)))
            data_bytes -= len(some)
            while some:
                some = some[os.write(to, some) :]
    except (OSError, Refused):
        pass
    os.close(to)


def pass_on(fd: int, listener: "List[Any]") -> bool:
    """Pass whole lines on; False at the end, or when there was too much."""
    mark, rest, total = listener
    some = os.read(fd, 1 << 18)
    lines = (rest + some).split(b"\n")
    for line in lines[:-1]:
        say(mark + line + b"\n")
    listener[1:] = lines[-1], total + len(some)
    if some and total < ANSWER_BYTES_MAX:
        return True
    os.close(fd)
    say(mark + encode({"left": True}))
    return False


def ask_queue(site: Site, *extra: str) -> "Json":
    """Run squeue. Size 0 prints a field whole; what follows is the mark between fields; free text comes last."""
    form = QUEUE_FIELDS.replace(",", ":0|,") + ":0"
    users = "--user=" + ",".join(site.accounts)
    return site.run(["squeue", "--noheader", "--array", "--states=all", users, "--Format=" + form, *extra])


def ask_accounting(site: Site, *extra: str) -> "Json":
    """Run sacct, with every attempt of a job that was requeued."""
    users = "--user=" + ",".join(site.accounts)
    argv = ["sacct", "--noheader", "--parsable2", "--duplicates", "--allocations", users]
    return site.run([*argv, "--format=" + ACCOUNTING_FIELDS, *extra])


def rows_not_written(site: Site, wait_s: float = 0) -> int:
    """Return how many records the controller still keeps for the accounting database; -1 when unknown.

    There always are some for a moment, so it may be worth waiting for none.
    """
    end = time.monotonic() + wait_s
    while True:
        match = re.search(r"DBD Agent queue size: *([0-9]+)", site.run(["sdiag"])["out"])
        if not match or match.group(1) == "0" or time.monotonic() >= end:
            return int(match.group(1)) if match else -1
        time.sleep(0.1)


def observe(request: "Json", site: Site) -> "Json":
    """Return the queue's rows of the jobs asked about, and accounting's of those that are not wholly at work there.

    `tasks` says of arrays how many of their tasks are asked about; where it does not, accounting is asked too.
    """
    asked = {matched(JOB_ID, job) for job in request["ids"]}
    tasks = request.get("tasks", {})
    queue = ask_queue(site)
    rows = [row for row in queue["out"].split("\n") if base(row) in asked or (row and row.count("|") < 3)]
    queue["out"] = "\n".join(rows)
    answer = {"queue": queue, "accounting": []}  # type: Json
    if queue["rc"] == 0:
        working = at_work(rows, tasks)
        rest = sorted(job for job in asked if working.get(job, 0) < tasks.get(job, 1))
        answer["rows_not_written"] = rows_not_written(site) if rest else 0
        answer["accounting"] = [ask_accounting(site, "--jobs=" + ",".join(ids)) for ids in chunks(rest)]
    return answer


def base(row: str) -> str:
    """Return the job that a row of the queue is of; a task's (`123_4`) is that of its array."""
    return row.split("|", 1)[0].split("_", 1)[0]


def at_work(rows: "List[str]", tasks: "Dict[str, int]") -> "Dict[str, int]":
    """Return how many tasks of each job wait or run for the first time: accounting has nothing to add to these."""
    working = {}  # type: Dict[str, int]
    for row in rows:
        fields = row.split("|", 3)
        if len(fields) > 3 and fields[2] == "0" and fields[1] not in ENDED.split(","):
            job = base(row) if base(row) in tasks else fields[0]
            working[job] = working.get(job, 0) + 1
    return working


def look_up(request: "Json", site: Site) -> "Json":
    """Return everything that the queue and the accounting database know under these names."""
    since = time.strftime("--starttime=%Y-%m-%dT%H:%M:%S", time.gmtime(int(request["since"])))
    queue, accounting, behind = [], [], [0]
    for names in chunks([matched(NAME, name) for name in request["names"]]):
        some = "--name=" + ",".join(names)
        queue.append(ask_queue(site, some))
        behind.append(rows_not_written(site, wait_s=3))
        accounting.append(ask_accounting(site, some, since, "--endtime=now", f"--state={ENDED},{NOT_ENDED}"))
    lag = -1 if -1 in behind else max(behind)
    return dict(homes(request, site), queue=queue, accounting=accounting, rows_not_written=lag)


def homes(request: "Json", site: Site) -> "Json":
    """Return where each account's jobs work."""
    folders = {account: pwd.getpwnam(account).pw_dir for account in site.accounts}
    folders[site.me] = site.home
    return {"homes": folders}


def check(request: "Json", site: Site) -> "Json":
    """Return what enrolment looks at."""
    return {
        "isolation": "shared" if site.shared else "accounts",
        "release": site.run(["sinfo", "--version"]),
        "configuration": site.run(["scontrol", "show", "config"]),
        "nodes": site.run(["sinfo", "--noheader", "--Node", "--Format=NodeList:0|,Gres:0"]),
        "database": site.run(["sacctmgr", "--noheader", "--parsable2", "show", "cluster", "format=cluster"]),
    }


def upkeep(request: "Json", site: Site) -> "Json":
    """Serve what is no matter of jobs by the file that lies beside this one, where the site has it."""
    import runpy

    path = os.path.join(os.path.dirname(os.path.realpath(__file__)), "idf-upkeep.py")
    if not os.path.exists(path):
        raise Refused("no idf-upkeep.py lies beside this gateway")
    return dict(runpy.run_path(path, {"gateway": sys.modules[__name__]})["upkeep"](request, site))


# ── slurmrestd's tokens ─────────────────────────────────────────────────────────────────────────────────


def mint(request: "Json", site: Site) -> "Json":
    """As SlurmUser: return a token for each account named that is of this site, or the broker's own."""
    if not 0 < request["life_s"] <= TOKEN_S_MAX:
        raise Refused(f"a token lives at most {TOKEN_S_MAX} s")
    tokens, life = {}, "lifespan=%d" % request["life_s"]
    for account in set(request["minted_for"]) & {site.caller, *site.accounts}:
        done = site.run(["scontrol", "token", "username=" + matched(NAME, account), life], 20)
        match = TOKEN.fullmatch(done["out"])
        if not match:
            raise Refused("Slurm minted no token: " + done["err"].strip()[:300])
        tokens[account] = match.group(1)
    return {"tokens": tokens}


def tokens(request: "Json", site: Site) -> "Json":
    """Have tokens minted by this gateway's face `token`; SlurmUser itself needs nobody else for it."""
    if site.me == site.slurm_user:
        return mint(request, site)
    asked = {key: request[key] for key in ("minted_for", "life_s")}
    stdin, out, err = scratch(frame(asked, 0)), scratch(), scratch()
    argv = ["sudo", "-n", "-u", site.slurm_user, os.path.realpath(__file__), "token"]
    pid = site.start(argv, 0, stdin, out, err)
    site.ends.pop(pid)  # nothing of ours may kill what runs as another; it ends by itself
    site.wait(pid)
    os.close(stdin)
    said, complaint = contents(out, ANSWER_BYTES_MAX), contents(err).strip()[:300]
    answer = json.loads(said) if said else {}
    if "tokens" not in answer:
        raise Refused(answer.get("refused") or f"nobody mints tokens here: {complaint}")
    return {"tokens": answer["tokens"]}


def begin(request: "Json", site: Site) -> "Json":
    """Open a batch that the broker sends through slurmrestd, and return tokens for the accounts that lack one.

    Minted before the batch is opened and never for longer, a token ends before the time that the journal tells,
    by this machine's clock: from then on nothing of the batch can be taken any more.
    """
    mine = [account for account in request["minted_for"] if account in site.accounts]
    answer = tokens(dict(request, minted_for=mine), site) if mine else {"tokens": {}}
    until = int(time.time()) + request["life_s"] + 1
    part = {"do": "open", "batch": request["batch"], "until": until}
    ask_accounts(dict.fromkeys(request["opened_for"], part), 0, site)
    return answer


AS_LOGIN = {
    "observe": observe, "look_up": look_up, "check": check, "tokens": tokens, "begin": begin,
    "upkeep": upkeep,
}  # fmt: skip


def main_of_slurm_user() -> int:
    """Serve one request for tokens, made by this gateway as the login account."""
    caller = os.environ.get("SUDO_USER", "")
    site = Site()
    site.caller = caller or site.me
    os.chdir("/")
    try:
        answer = mint(read_request()[0], site)
    except (Refused, KeyError, TypeError, ValueError, OSError) as error:
        answer = {"refused": f"{type(error).__name__}: {error}"}
    return 0 if say(encode(answer)) else 1


def main(as_account: bool, its_site: "Callable[[], Site]" = Site) -> int:
    """Serve one request. A program that does a site's commands in another way brings its own `Site`."""
    os.umask(0o077)
    site = its_site()
    os.chdir(site.home)
    mark, failed = b"" if as_account else b"* ", "refused"
    try:
        request, data_bytes = read_request()
        failed = "error"  # from here on, something may have been done
        if as_account:
            speak(serve_account(request, site), b"")
            return 0
        ask_accounts(request.get("accounts", {}), data_bytes, site)
        if "do" in request:
            answer = AS_LOGIN[request["do"]](request, site)
            say(mark + encode(dict(answer, queue_fields=QUEUE_FIELDS, accounting_fields=ACCOUNTING_FIELDS)))
    except (Refused, KeyError, TypeError, ValueError, OSError) as error:
        say(mark + encode({failed: f"{type(error).__name__}: {error}"}))
    return 0 if say(mark + encode({"end": True})) else 1


if __name__ == "__main__":
    sys.exit(main_of_slurm_user() if sys.argv[1:] == ["token"] else main(sys.argv[1:] == ["account"]))
