"""The port for a Slurm site that takes jobs through slurmrestd; what lies in its files comes over SSH as ever.

Nothing is sent twice: before a batch is sent, the gateway opens it in its journal and gives a token for it that soon
ends. Without the journal's yes no request goes out; adoption closes the journal, and after the token's end
slurmctld takes nothing more of the batch, wherever a request may have been held up (auth_jwt.c checks `exp`).
"""

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from adapters.errors import Rejected, SiteError, Uncertain, Unreachable
from adapters.port import Answer, JobSpec, Known, Observation, SiteFacts
from adapters.slurm.commands import Reply
from adapters.slurm.observation import Observe, Rows
from adapters.slurm.rest_client import Question, RestConnection, RestSettings, Said
from adapters.slurm.rest_jobs import KNOWN_VERSIONS, cancelled, job_asked, job_body, submitted
from adapters.slurm.rest_rows import Records, accounting_rows, at_work, exit_codes, of_ids, queue_rows
from adapters.slurm.rows import Row
from adapters.slurm.scheduler import SlurmSettings, SlurmSsh

Json = dict[str, Any]

ASKING = 4
"""Connections for questions, apart from those that submit, so that neither waits for the other."""
IDS_A_QUESTION = 1000
"""They stand in the address, of which slurmrestd takes some 80 KB (http_parser's bound of a head)."""
NOTHING_FOUND = 9003
"""ESLURM_REST_EMPTY_RESULT: up to v0.0.38 an empty list is told as an error."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch that an account may send now: its token and when that ends, and where and how its jobs start."""

    token: str = field(repr=False)
    end: float
    home: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Controller:
    """What slurmctld says of itself."""

    now: int
    rows_not_written: int


class SlurmRest(SlurmSsh):
    """A Slurm site through slurmrestd, its gateway over SSH. Safe to share between threads."""

    def __init__(self, settings: SlurmSettings, rest: RestSettings) -> None:
        super().__init__(settings)
        self._rest, self._login = rest, settings.ssh.user
        self._sending = RestConnection(rest, rest.parallel)
        self._asking = RestConnection(rest, ASKING)
        self._tokens: dict[str, tuple[str, float]] = {}
        """Those that ask and cancel, by account, each with the time when it ends."""
        self._sending_tokens: dict[str, tuple[str, float]] = {}
        self._minting = threading.Lock()
        self._version = ""

    def submit(self, batch: str, specs: Sequence[JobSpec]) -> Mapping[str, Answer]:
        """See the port."""
        answers: dict[str, Answer] = {}
        asked: dict[str, Json] = {}
        try:
            version = self._version_offered() if specs else ""
            for spec in specs:
                try:
                    asked[spec.name] = job_asked(spec, version)
                except Rejected as refusal:
                    answers[spec.name] = refusal
            rest = [spec for spec in specs if spec.name in asked]
            opened = self._begin(batch, {spec.account for spec in rest}) if rest else {}
        except Unreachable as error:
            return {spec.name: answers.get(spec.name, error) for spec in specs}
        questions: dict[str, Question] = {}
        for spec in rest:
            place = opened[spec.account]
            if isinstance(place, Opened):
                body = partial(job_body, asked[spec.name], version, place.home, place.environment)
                path = f"/slurm/{version}/job/submit"
                questions[spec.name] = Question("POST", path, spec.account, place.token, body=body)
            else:
                answers[spec.name] = place
        end = min((place.end for place in opened.values() if isinstance(place, Opened)), default=0.0)
        return answers | self._post(questions, end)

    def _post(self, questions: Mapping[str, Question], tokens_end: float) -> dict[str, Answer]:
        """Send what can be answered before the first token ends."""
        settings = self._settings
        start_s = min(float(settings.submit_s_max), tokens_end - time.monotonic() - settings.sbatch_s_max)
        outcomes = self._sending.ask_all(list(questions.values()), start_s, settings.sbatch_s_max)
        return {name: submitted(outcome) for name, outcome in zip(questions, outcomes, strict=True)}

    def observe(self, known: Sequence[Known]) -> Observation:
        """See the port: the queue, the controller, and accounting, each asked once (accounting for 1,000 jobs).

        Arrays are asked about through the gateway: slurmrestd cuts a long list of waiting tasks off with `...`.
        """
        arrays, others = _parted(known)
        return _both(super().observe(arrays), self._observe(others))

    def _observe(self, known: Sequence[Known]) -> Observation:
        if not known:
            return Observation({}, frozenset())
        ids = {job.site_job_id for job in known}
        records, odd = of_ids(self._queue(), ids)
        controller = self._controller()
        rows, more = queue_rows(records, controller.now)
        shared = {job.site_job_id for job in known if job.namesakes}
        rest = sorted((ids - at_work(records)) | shared)
        accounting, silent = self._accounting(rest, records)
        warnings = [f"the accounting database did not answer: {silent}"] if silent else []
        complete = not silent and (controller.rows_not_written == 0 or not rest)
        observed = Observe(known, self._settings.cluster)
        return observed.decide((rows, odd + more), accounting, complete=complete, warnings=warnings)

    def cancel(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        """See the port; arrays, whole or some of their tasks, through the gateway."""
        arrays, others = _parted(known)
        return {**super().cancel(arrays), **self._cancel(others)}

    def _cancel(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        if not known:
            return {}
        answers: dict[str, Answer] = {}
        try:
            version = self._version_offered()
            tokens = self._tokens_of({job.account for job in known})
        except Unreachable as error:
            return {job.name: error for job in known}
        asked = [job for job in known if job.account in tokens]
        for job in known:
            answers[job.name] = Unreachable(f"the site mints no token for {job.account}")
        questions = [
            Question("DELETE", f"/slurm/{version}/job/{job.site_job_id}", job.account, tokens[job.account])
            for job in asked
        ]
        limit_s = self._settings.answer_s_max
        outcomes = self._sending.ask_all(questions, limit_s, self._settings.sbatch_s_max)
        return answers | {job.name: cancelled(outcome, job) for job, outcome in zip(asked, outcomes, strict=True)}

    def check(self) -> SiteFacts:
        """See the port."""
        facts = super().check()
        return replace(facts, problems=(*facts.problems, *self._problems()))

    def close(self) -> None:
        """See the port."""
        super().close()
        self._sending.close()
        self._asking.close()

    def _problems(self) -> Iterable[str]:
        self._version = ""
        try:
            self._version_offered()
            self._controller()
        except SiteError as error:
            yield f"slurmrestd is of no use: {error.reason}. See adapters/slurm/README.md for what it needs."
            return
        silent = self._accounting(["1"], [])[1]
        if silent:
            yield f"slurmrestd does not reach accounting: {silent}. Give slurmdbd AuthAltTypes=auth/jwt and its key."

    # ── the gateway's part ──────────────────────────────────────────────────────────────────────────────

    def _begin(self, batch: str, accounts: Iterable[str]) -> dict[str, Opened | Answer]:
        """Open a batch for each account; a token that lives long enough for one more batch is used again.

        Raises:
            Unreachable: no account may send; nothing was sent.
        """
        wanted, now = sorted(accounts), time.monotonic()
        needed_s = self._settings.submit_s_max + self._settings.sbatch_s_max
        kept = {account: (token, end) for account, (token, end) in self._sending_tokens.items() if end - now > needed_s}
        life_s = self._rest.sending_token_s
        missing = [account for account in wanted if account not in kept]
        reply = self._learn(
            {"do": "begin", "batch": batch, "opened_for": wanted, "minted_for": missing, "life_s": life_s}
        )
        if not reply.whole:
            raise reply.broken()
        minted = {account: (token, now + life_s) for account, token in reply.site.get("tokens", {}).items()}
        self._sending_tokens = kept | minted
        return {account: _opened(reply, account, *(kept | minted).get(account, ("", now))) for account in wanted}

    def _tokens_of(self, accounts: Iterable[str]) -> dict[str, str]:
        """Return tokens that still live for a while, of those accounts that the site has.

        Raises:
            Unreachable: none could be minted.
        """
        with self._minting:
            now = time.monotonic()
            fresh = {a: token for a, (token, end) in self._tokens.items() if end - now > self._rest.renew_s}
            missing = sorted(set(accounts) - set(fresh))
            if missing:
                life_s = self._rest.token_s
                reply = self._learn({"do": "tokens", "minted_for": missing, "life_s": life_s})
                if not reply.whole:
                    raise reply.broken()
                minted = reply.site.get("tokens", {})
                good = {a: minted[a] for a in missing if _TOKEN.fullmatch(str(minted.get(a, "")))}
                self._tokens |= {account: (token, now + life_s) for account, token in good.items()}
                fresh |= good
            return {account: fresh[account] for account in accounts if account in fresh}

    def _token(self) -> str:
        """Return the login account's: Slurm's coordinator sees all projects.

        Raises:
            Unreachable: none could be minted.
        """
        try:
            return self._tokens_of([self._login])[self._login]
        except KeyError:
            raise Unreachable(f"the site mints no token for {self._login}") from None

    # ── slurmrestd's part ───────────────────────────────────────────────────────────────────────────────

    def _get(self, path: str, parameters: Mapping[str, str] | None = None) -> Said:
        """Ask as the login account.

        Raises:
            Unreachable: there is no whole answer, or one of another status than 200.
        """
        question = Question("GET", path, self._login, self._token(), parameters or {})
        try:
            said = self._asking.ask(question, self._settings.answer_s_max)
        except Uncertain as error:
            raise Unreachable(error.reason) from error
        if said.status != 200:
            self._version = ""  # slurmrestd may be another release by now, and Slurm's key another one
            self._forget_tokens()
            raise Unreachable(f"slurmrestd did not answer: {said.sentence()}")
        return said

    def _forget_tokens(self) -> None:
        with self._minting:
            self._tokens.clear()
            self._sending_tokens = {}

    def _version_offered(self) -> str:
        """Return the newest version that we know and slurmrestd offers.

        Raises:
            Unreachable: it did not answer, or offers none of them.
        """
        if not self._version:
            paths = self._get("/openapi/v3").body.get("paths")
            offered = {str(path).rstrip("/") for path in paths} if isinstance(paths, dict) else set()
            both = [v for v in KNOWN_VERSIONS if {f"/slurm/{v}/job/submit", f"/slurmdb/{v}/jobs"} <= offered]
            if not both:
                raise Unreachable(f"slurmrestd offers none of the versions {', '.join(KNOWN_VERSIONS)}")
            self._version = both[-1]
        return self._version

    def _queue(self) -> object:
        return self._get(f"/slurm/{self._version_offered()}/jobs").body.get("jobs")

    def _controller(self) -> Controller:
        said = self._get(f"/slurm/{self._version_offered()}/diag").body.get("statistics")
        statistics = said if isinstance(said, dict) else {}
        now, behind = (_plain(statistics.get(key)) for key in ("req_time", "dbd_agent_queue_size"))
        if now is None or behind is None:
            raise Unreachable("slurmrestd does not tell the controller's time and its rows for accounting")
        return Controller(now, behind)

    def _accounting(self, ids: Sequence[str], records: Records) -> tuple[Rows, str]:
        """Return accounting's rows of these jobs, and a sentence if it could not tell all of them."""
        rows: list[Row] = []
        odd: list[str] = []
        codes = exit_codes(records)
        for first in range(0, len(ids), IDS_A_QUESTION):
            asked = {"step": ",".join(ids[first : first + IDS_A_QUESTION]), "skip_steps": "true"}
            try:
                some, strange = accounting_rows(self._accounted(asked), codes)
            except Unreachable as error:
                return (rows, odd), error.reason
            rows += some
            odd += strange
        return (rows, odd), ""

    def _accounted(self, parameters: Json) -> object:
        version = self._version_offered()
        if version >= "v0.0.40":  # once a flag is given, those that were set before are not
            parameters = {**parameters, "show_duplicates": "true", "disable_truncate_usage_time": "true"}
        said = self._get(f"/slurmdb/{version}/jobs", parameters)
        if any(error.get("error_number") != NOTHING_FOUND for error in said.errors):
            raise Unreachable(said.sentence())
        if said.errors and any("jobs_get" not in str(error.get("source")) for error in said.errors):
            raise Unreachable(said.sentence())
        return said.body.get("jobs")


def _parted(known: Sequence[Known]) -> tuple[list[Known], list[Known]]:
    """Part the arrays, and single tasks of them, from all other jobs."""
    arrays: list[Known] = []
    others: list[Known] = []
    for job in known:
        (others if job.tasks is None and "_" not in job.site_job_id else arrays).append(job)
    return arrays, others


def _both(some: Observation, others: Observation) -> Observation:
    return Observation(
        {**some.attempts, **others.attempts},
        some.absent | others.absent,
        tuple(dict.fromkeys((*some.warnings, *others.warnings))),
        some.runaways | others.runaways,
    )


def _opened(reply: Reply, account: str, token: object, end: float) -> Opened | Answer:
    """Read what the gateway said of an account's batch: without its yes, nothing is sent."""
    for line in reply.of(account):
        if "used" in line:
            return Uncertain("this batch was begun or closed before")
        if "begun" in line and isinstance(token, str) and _TOKEN.fullmatch(token):
            return Opened(token, end, str(line["home"]), {str(k): str(v) for k, v in line["environment"].items()})
        if "refused" in line or "error" in line:
            said = line.get("refused", line.get("error"))
            return Unreachable(f"the site's gateway refused: {str(said)[:300]}")
    return Unreachable(f"the site's gateway could not open the batch for {account}: {reply.error}")


def _plain(value: object) -> int | None:
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") else None
    return value if isinstance(value, int) else None
