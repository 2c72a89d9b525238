"""One class per thing asked of a site: what to ask, and how to read the answer. Nothing here touches a network.

The counterpart is gateway.py, which runs the commands; its docstring describes the shape of both sides.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from adapters.errors import Rejected, SiteError, Uncertain, Unreachable
from adapters.port import Absent, Accepted, Adoption, Answer, JobSpec, Known, Sent, SiteFacts
from adapters.slurm.findings import Facts, accounting, privacy, silence
from adapters.slurm.refusals import DEPENDENCY_PROBLEM, why_not
from adapters.slurm.rows import Row, accounting_rows, queue_rows
from adapters.slurm.wrapper import batch_script, sbatch_flags
from adapters.upkeep import Expected, Severity

VERSION = 1
CLOCK_SKEW_S = 86_400
"""How far the broker's clock may be from the site's. Names are unique for ever and ids for years, so a wide margin
costs nothing; with a narrow one, a broker whose clock was an hour fast did not know its own jobs again."""
TOKEN_MARGIN_S = 10
"""A request that slurmctld has accepted at the token's last moment is in its queue by then."""

Json = dict[str, Any]


def frame(request: Json, data_bytes: int = 0) -> bytes:
    """Return a request as the gateway reads it; `data_bytes` of data follow."""
    body = json.dumps({"version": VERSION, **request}, separators=(",", ":")).encode()
    return b"IDF1 %d %d\n" % (len(body), data_bytes) + body


@dataclass(frozen=True, slots=True)
class Reply:
    """What a gateway said: per account, for the site as a whole, and whether it came to its end."""

    accounts: Mapping[str, Sequence[Json]]
    site: Json
    whole: bool
    error: str = ""
    """The beginning of what was written to standard error, such as sudo's refusal."""

    @classmethod
    def read(cls, output: bytes, error: bytes = b"") -> "Reply":
        """Read the lines that came; one that is no JSON makes its account's answer end there.

        Raises:
            Unreachable: the gateway refused the request, or was none; nothing was done.
        """
        accounts: dict[str, list[Json]] = defaultdict(list)
        site: Json = {}
        for line in output.split(b"\n")[:-1]:
            account, _, text = line.partition(b" ")
            said = _json(text)
            if account == b"*":
                site.update(said)
            else:
                accounts[account.decode("utf-8", "replace")].append(said)
        if "refused" in site:
            raise Unreachable(f"the site's gateway refused: {str(site['refused'])[:300]}")
        complaint = error.decode("utf-8", "replace").strip()[:300]
        if not site and not accounts and complaint:
            raise Unreachable(f"the site's gateway did not start: {complaint}")
        complaint = complaint or str(site.get("error", ""))[:300]
        return cls(accounts, site, "end" in site and "error" not in site, complaint)

    def broken(self) -> Unreachable:
        """What is raised for a question whose answer is not whole."""
        return Unreachable(f"the site gave no whole answer: {self.error or 'the connection broke'}")

    def of(self, account: str) -> Sequence[Json]:
        """Return the lines of one account."""
        return self.accounts.get(account, ())

    def only(self, account: str) -> Json:
        """Return an account's one answer.

        Raises:
            Rejected: the gateway refused.
            Unreachable: there is no answer.
        """
        for said in self.of(account):
            if "refused" in said:
                raise Rejected(str(said["refused"])[:300])
            if "error" in said:
                raise Unreachable(f"the site's gateway failed: {str(said['error'])[:300]}")
            return said
        raise Unreachable(f"the site's gateway gave no answer for {account}: {self.error}")


def _json(text: bytes) -> Json:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class Submit:
    """sbatch, many jobs in one go."""

    def __init__(self, batch: str, specs: Iterable[JobSpec], *, parallel: int, timeout_s: int, sbatch_s: int):
        self.refused: dict[str, Answer] = {}
        self._after: set[str] = set()
        self._accounts: dict[str, list[str]] = defaultdict(list)
        jobs: dict[str, list[Json]] = defaultdict(list)
        for spec in specs:
            try:
                job = {"name": spec.name, "args": sbatch_flags(spec), "script": batch_script(spec)}
            except Rejected as refusal:
                self.refused[spec.name] = refusal
                continue
            self._accounts[spec.account].append(spec.name)
            self._after |= {spec.name} if spec.after else set()
            jobs[spec.account].append(job)
        common = {"do": "submit", "batch": batch, "timeout_s": timeout_s, "sbatch_s": sbatch_s}
        share = max(1, parallel // max(1, len(jobs)))
        self.request: Json = {"accounts": {a: {**common, "parallel": share, "jobs": jobs[a]} for a in jobs}}

    def read(self, reply: Reply) -> dict[str, Answer]:
        """Return one answer per job that was to be sent; silence is Uncertain."""
        answers: dict[str, Answer] = {}
        for account, names in self._accounts.items():
            said = reply.of(account)
            rest = self._silence(said, reply.error)
            given = {line["name"]: line for line in said if isinstance(line.get("name"), str)}
            for name in names:
                answers[name] = self._in_time(name, submitted(given[name])) if name in given else rest
        return answers

    def _in_time(self, name: str, answer: Answer) -> Answer:
        """A job that another runs after may be forgotten by the queue meanwhile: its end is told soon, so not now."""
        if name in self._after and isinstance(answer, Rejected) and DEPENDENCY_PROBLEM in answer.reason:
            return Unreachable("a job that it runs after has ended a while ago")
        return answer

    def all(self, answer: Answer) -> dict[str, Answer]:
        """Return the same answer for each job that was to be sent."""
        return {name: answer for names in self._accounts.values() for name in names}

    @staticmethod
    def _silence(said: Sequence[Json], error: str) -> Answer:
        """What it means that a job's answer is missing.

        An account says `begun` before its first sbatch, so without it, once it has ended, nothing was sent.
        """
        for line in said:
            if "used" in line:
                return Uncertain("this batch was begun or closed before")
            if "refused" in line:
                return Unreachable(f"the site's gateway refused: {str(line['refused'])[:300]}")
        begun = any("begun" in line for line in said)
        ended = any("done" in line or "left" in line for line in said)
        if ended and not begun:
            return Unreachable(f"the site's gateway could not act as this project's account: {error}")
        return Uncertain("the connection broke before the site's answer came")


def submitted(said: Json) -> Answer:
    """Read how one sbatch ended."""
    if "unsent" in said:
        return Unreachable(str(said["unsent"])[:300])
    code, out, err = said.get("rc"), str(said.get("out", "")), str(said.get("err", ""))
    if not isinstance(code, int):
        return Uncertain("the site's answer cannot be read")
    if code != 0:
        failure = why_not(code, err)
        assert isinstance(failure, Rejected | Unreachable | Uncertain)  # noqa: S101 (for the type checker)
        return failure
    job = out.strip().split(";")[0]  # `id;cluster` on a federation
    return Accepted(job) if job.isascii() and job.isdigit() else Uncertain(f"sbatch gave no job id: {out[:100]!r}")


class Adopt:
    """Close the batches, then look the names up in the queue and in the accounting database."""

    def __init__(self, sent: Sequence[Sent], *, wait_s: float, settle_s: int):
        self._sent, self._settle_s = sent, settle_s
        batches: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for job in sent:
            batches[job.account][job.batch].append(job.name)
        accounts = {a: {"do": "burn", "batches": b, "wait_s": wait_s} for a, b in batches.items()}
        since = min(_epoch(job.sent_after) for job in sent) - CLOCK_SKEW_S
        self.request: Json = {
            "accounts": accounts, "do": "look_up", "names": [job.name for job in sent], "since": since,
        }  # fmt: skip

    def read(self, reply: Reply) -> dict[str, Adoption]:
        """Return one answer per job asked about."""
        if not reply.whole:
            return {job.name: reply.broken() for job in self._sent}
        found, silent = _found(reply.site)
        homes = reply.site.get("homes", {})
        return {job.name: self._one(job, reply, found.get(job.name, ()), homes, silent) for job in self._sent}

    def _one(self, job: Sent, reply: Reply, rows: Sequence[Row], homes: Json, silent: str) -> Adoption:
        ids = sorted({row.job for row in rows if _is_ours(row, job, homes.get(job.account))})
        if len(ids) == 1:
            return Accepted(ids[0])
        if ids:
            return Uncertain(f"several jobs bear the name {job.name}: {', '.join(ids[:5])}")
        burnt = next((line for line in reply.of(job.account) if line.get("batch") == job.batch), None)
        if burnt is None:
            return Unreachable("the site's gateway could not close the batch")
        if "busy" in burnt:
            return Uncertain("the batch is still being sent at the site")
        answer = self._journal(job, burnt)
        return Unreachable(silent) if silent and isinstance(answer, Absent) else answer

    def _journal(self, job: Sent, burnt: Json) -> Adoption:
        """What the site's own journal of the batch says, given that no job of that name can be found.

        An sbatch that gave no clear answer may have left a request at a controller that was asleep; munge
        lets it be taken for 300 s. A batch sent through slurmrestd can be taken until its token ends.
        """
        given = [submitted(line) for line in burnt.get("answers", []) if line.get("name") == job.name]
        answer: Answer | None = given[-1] if given else None
        if isinstance(answer, Accepted):
            return answer
        if isinstance(answer, Rejected | Unreachable):
            return Absent()  # sent again, a refusal is told with its reason
        left_s = 0
        if job.name in burnt.get("begun", []):
            left_s = self._settle_s - int(burnt.get("closed_s_ago", 0))
        if burnt.get("open_s") is not None:
            left_s = max(left_s, int(burnt["open_s"]) + TOKEN_MARGIN_S)
        if left_s > 0:
            return Uncertain(f"its sending was cut short: the controller may still take it for {left_s} s")
        return Absent()


def _is_ours(row: Row, job: Sent, home: object) -> bool:
    """A name can be taken by another user: the user, the work folder and the time must be ours as well."""
    submitted_at = row.submitted_at
    late_enough = submitted_at is None or _epoch(submitted_at) >= _epoch(job.sent_after) - CLOCK_SKEW_S
    return row.user == job.account and row.work_folder == home and late_enough


def _found(site: Json) -> tuple[dict[str, list[Row]], str]:
    """Return the rows by job name, and a sentence if the queue or accounting could not tell everything."""
    found: dict[str, list[Row]] = defaultdict(list)
    silent = ""
    for part in site.get("queue", [{}]):
        rows, odd = queue_rows(part.get("out", ""), fields(site, "queue"))
        silent = silent or _silence("the queue", part, odd)
        for row in rows:
            found[row.name].append(row)
    for part in site.get("accounting", [{}]):
        rows, odd = accounting_rows(part.get("out", ""), fields(site, "accounting"))
        silent = silent or _silence("the accounting database", part, odd)
        for row in rows:
            found[row.name].append(row)
    if not silent and site.get("rows_not_written") != 0:
        silent = "the accounting database has not been told of everything yet"
    return found, silent


def fields(site: Json, source: str) -> Sequence[str]:
    """Return the names of a source's fields, in the order of the rows."""
    return str(site.get(f"{source}_fields", "")).split(",")


def _silence(what: str, part: Json, odd: Sequence[str]) -> str:
    if part.get("rc") != 0:
        return f"{what} did not answer: {str(part.get('err', '')).strip()[:300]}"
    return f"{what} gave a row that cannot be read: {odd[0][:200]}" if odd else ""


class Cancel:
    """scancel; that a job is already gone is as good."""

    _GONE = (
        "Invalid job id specified",
        "Job/step already completing or completed",
        "Job has already finished",
    )

    def __init__(self, known: Iterable[Known]):
        self._known = list(known)
        accounts: dict[str, Json] = {}
        for job in self._known:
            accounts.setdefault(job.account, {"do": "cancel", "ids": []})["ids"].append(job.site_job_id)
        self.request: Json = {"accounts": accounts}

    def read(self, reply: Reply) -> dict[str, Answer]:
        """Return one answer per job."""
        return {job.name: self._one(job, reply) for job in self._known}

    def all(self, answer: Answer) -> dict[str, Answer]:
        """Return the same answer for each job."""
        return {job.name: answer for job in self._known}

    def _one(self, job: Known, reply: Reply) -> Answer:
        try:
            said = reply.only(job.account)
        except (Rejected, Unreachable) as error:
            return error
        errors = str(said.get("err", "")).splitlines()
        about = [line for line in errors if f"job id {job.site_job_id}:" in line]
        if said.get("rc") == 0 or any(gone in line for line in about for gone in self._GONE):
            return Accepted(job.site_job_id)
        reason = "; ".join(about or errors)[:300] or "scancel was ended"
        if "permission denied" in reason:
            return Rejected(reason)
        if "connect failure" in reason:
            return Unreachable(reason)
        return Accepted(job.site_job_id) if errors and not about and "Kill job error" in reason else Uncertain(reason)


class PutSnapshot:
    """A snapshot of a user's folder; without data it asks whether it is there."""

    def __init__(self, account: str, digest: str, data_bytes: int):
        self._account = account
        part = {"do": "snapshot", "digest": digest, "data_bytes": data_bytes}
        self.request: Json = {"accounts": {account: part}}

    def read(self, reply: Reply) -> bool:
        """Return whether it is there.

        Raises:
            Rejected: it was refused.
            Unreachable: there is no answer.
        """
        return bool(reply.only(self._account).get("there"))


class Check:
    """What a scheduler says of itself: a beginning of what an audit looks at (adapters/slurm/upkeep.py)."""

    def __init__(self) -> None:
        self.request: Json = {"do": "check"}

    def read(self, reply: Reply) -> SiteFacts:
        """Return what was found.

        Raises:
            Unreachable: there is no whole answer.
        """
        if not reply.whole or "configuration" not in reply.site:
            raise reply.broken()
        expected = Expected(reply.site.get("isolation") == "accounts", (), (), (), None, 0)
        facts = Facts(reply.site, expected, 0.0, 0.0)
        return SiteFacts(
            scheduler=facts.output("release").strip(),
            cluster=facts.configuration.get("ClusterName", ""),
            problems=tuple(
                f"{finding.sentence}: {finding.remedy}"
                for rule in (silence, accounting, privacy)
                for finding in rule(facts)
                if finding.severity is Severity.PROBLEM
            ),
            array_size_max=facts.array_size_max,
        )


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())


__all__ = [
    "Adopt",
    "Cancel",
    "Check",
    "PutSnapshot",
    "Reply",
    "SiteError",
    "Submit",
    "frame",
    "submitted",
]
