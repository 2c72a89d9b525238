"""Jobs: submit, plan, list, show, log, cancel."""

import time
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection, Select
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from accounting.models import ChargeValue, UsageRecord
from accounting.newest import attempts_of
from accounting.refund_values import job_euros, posted_refunds
from accounting.tariffs import Euros
from adapters.arrays import INDEX_MAX, parse_array, task_name
from adapters.port import LogChunk
from broker.accounts import owns
from broker.after import links_of
from broker.api.edge import (
    ANYBODY,
    At,
    Edge,
    GuardedRoute,
    Question,
    allow,
    answered,
    is_kept,
    json_response,
    kept_answers,
)
from broker.api.pages import Cursor, Limit, after, page
from broker.api.refunds import refunds_out
from broker.auth import project_role, project_roles, readable_project
from broker.cancel import request_cancel
from broker.choice import best, table
from broker.errors import BadRequest, BrokerError, Crowded, NotAllowed, NotFound, PlacementRefused
from broker.known import job_name
from broker.lifecycle import ENDED, JobState
from broker.memberships import LOG_READERS, SUBMITTERS
from broker.models import JobEvent, JobPayload, Person, Project, Site
from broker.moves import jobs
from broker.problems import problem_of
from broker.progress import progress_in_detail, progress_of
from broker.schemas import (
    AfterOut,
    EventOut,
    JobDetail,
    JobIn,
    JobOut,
    Page,
    PlanOut,
    SiteIn,
    Slug,
    UsageOut,
    WhyOut,
    Worth,
)
from broker.snapshots import require_snapshot
from broker.submit import PLACEMENT_TRIES_MAX, Choices, Plan, hold, job_out, plan, plan_out, weigh
from broker.tasks import by_state, rows_of_tasks, state_of
from quotas.errors import QuotaError
from quotas.writer import RowClash
from storage.tables import utcnow

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

NOT_SETTLED = "it is not settled yet"
LOG_BYTES_MAX = 1024 * 1024
LOG_WAIT_S_MAX = 20
LOG_STEP_S = 1.0
"""How long one look at the site waits for new text, before the job's state is looked at again."""
_log_threads = CapacityLimiter(64)
"""Apart from the other routes' threads, so that people who watch logs never keep anybody from submitting."""


class Outrun(Exception):
    """What the plan found was taken by others meanwhile: another award or contract may still do."""

    def __init__(self, refusal: QuotaError) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@router.post("/jobs", status_code=201, response_model=JobOut, openapi_extra=allow("engineer"))
def submit(body: JobIn, at: At) -> Response:
    """Submit a job: its hold is committed before you get the answer, and nothing runs without it."""
    question = at.question(body)
    require_snapshot(at.services.settings, body.snapshot)
    last: BrokerError | QuotaError = Crowded(
        "others took the site's free accounts at the same moment; nothing was held", "submit it again"
    )
    for _ in range(PLACEMENT_TRIES_MAX):
        try:
            return _submit_once(at, body, question)
        except RowClash:  # the same request at this very moment, or the same free account
            continue
        except Outrun as outrun:
            last = outrun.refusal
    raise last


def _submit_once(at: Edge, body: JobIn, question: Question) -> Response:
    """Plan and hold.

    Raises:
        RowClash, Outrun: others were faster; planned again, it may go through another way.
    """
    with at.services.database.rows() as connection:
        known = is_kept(connection, question)
        plans = () if known else _weigh(connection, at, body).or_refuse()
    if known:
        return _again(at, body, question)
    decided = best(at.services, plans)
    content = ""

    def record(answer: JobOut) -> Any:
        nonlocal content
        content = answer.model_dump_json()
        return kept_answers, question.record(201, content, answer.id)

    try:
        hold(at.services, at.caller, decided, record)
    except QuotaError as refusal:
        raise Outrun(refusal) from refusal
    return json_response(content, 201)


def _plan(connection: Connection, at: Edge, body: JobIn) -> Plan:
    rules = at.services.settings
    most, needs = rules.array_tasks_max, rules.data_needs
    return plan(connection, at.caller, body, utcnow(), array_tasks_max=most, needs=needs)


def _weigh(connection: Connection, at: Edge, body: JobIn, *, priced: bool = False) -> Choices:
    rules = at.services.settings
    most, needs = rules.array_tasks_max, rules.data_needs
    return weigh(connection, at.caller, body, utcnow(), array_tasks_max=most, needs=needs, priced=priced)


def _again(at: Edge, body: JobIn, question: Question) -> Response:
    """Give the kept answer, to a caller who may still submit to that job's project."""
    with at.services.database.write() as session:
        kept = answered(session, question)
    if kept is None:  # it was older than 24 h and is forgotten now
        return _submit_once(at, body, question)
    with at.read() as session:
        job_of(session, at, question.kept_resource(session), SUBMITTERS)
    return kept


@router.post("/jobs/plan", response_model=PlanOut, openapi_extra=allow("engineer"))
def dry_run(body: JobIn, at: At) -> Any:
    """Say where a job would run and what it would hold, without submitting it, and why not elsewhere."""
    at.question(body)
    with at.services.database.rows() as connection:
        choices = _weigh(connection, at, body, priced=True)
    if not choices.plans:
        return problem_of(choices.refusal, table(at.services, choices, None))
    decided = best(at.services, choices.plans)
    sites = table(at.services, choices, decided)
    shown = {name: getattr(sites[0], name) for name in ("expected_start_at", "expected_start_unknown")}
    return plan_out(decided).model_copy(update={**shown, "sites": sites})


@router.post("/quota/why", response_model=WhyOut, openapi_extra=allow("engineer"), tags=["quota"])
def why(body: JobIn, at: At) -> WhyOut:
    """Say which budget, contract or ceiling would refuse a job, and what would pass."""
    at.question(body)
    with at.services.database.rows() as connection:
        try:
            decided = _plan(connection, at, body)
        except (PlacementRefused, QuotaError) as refusal:
            said = {"code": refusal.code, "detail": refusal.detail, "remedy": refusal.remedy}
            return WhyOut(passes=False, plan=None, **said)
        return WhyOut(passes=True, plan=plan_out(decided), code=None, detail=None, remedy=None)


@router.get("/jobs", openapi_extra=allow(*ANYBODY))
def list_jobs(
    at: At,
    project: Annotated[Slug | None, Query()] = None,
    state: Annotated[JobState | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[JobOut]:
    """List jobs, newest first: those of your projects, or all for a role that sees all."""
    with at.read() as session:
        roles = project_roles(session, at.caller)
        wanted = _with_names()
        if project is not None:
            wanted = wanted.where(jobs.c.project_id == readable_project(session, at.caller, project).id)
        elif not at.caller.sees_all_projects:
            wanted = wanted.where(jobs.c.project_id.in_(roles))
        if state is not None:
            wanted = wanted.where(jobs.c.state == state.value)
        rows = session.execute(after(wanted, jobs.c.id, cursor, limit, newest_first=True)).mappings().all()
        seen = [(_out(row), roles.get(row["project_id"])) for row in rows]
        return page([job if sees_whole(at, role) else progress_of(job) for job, role in seen], limit, "id")


def _with_names() -> Select[Any]:
    names: tuple[Any, ...] = (
        col(Person.name).label("person"),
        col(Project.name).label("project"),
        col(Site.name).label("site"),
    )
    return (
        select_columns(*jobs.c, *names)
        .join(Person, col(Person.id) == jobs.c.person_id)
        .join(Project, col(Project.id) == jobs.c.project_id)
        .join(Site, col(Site.id) == jobs.c.site_id)
    )


def _out(row: Any) -> JobOut:
    return job_out(row, row["person"], row["project"], row["site"])


def sees_whole(at: Edge, role: str | None) -> bool:
    """Say whether the caller sees more of a job than its progress."""
    return at.caller.sees_all_projects or role in LOG_READERS


def visible_job(session: Session, at: Edge, job_id: str) -> tuple[Any, str | None]:
    """Return a job's row with names, and what the caller is in its project: None for one who sees all projects.

    Raises:
        NotFound: there is none, or it is somebody else's; the answer is the same.
    """
    row = session.execute(_with_names().where(jobs.c.id == job_id)).mappings().one_or_none()
    role = None if row is None else project_role(session, at.caller, row["project_id"])
    if row is None or (role is None and not at.caller.sees_all_projects):
        raise NotFound(f"no job {job_id} of yours", "`idf-compute jobs` lists them")
    return row, role


def job_of(session: Session, at: Edge, job_id: str, roles: tuple[str, ...]) -> Any:
    """Return a job's row to one who has one of the roles in its project.

    Raises:
        NotFound: there is none, or it is somebody else's; the answer is the same.
        NotAllowed: the caller may see it, and has none of the roles.
    """
    row, role = visible_job(session, at, job_id)
    if role not in roles:
        are = "no member" if role is None else f"its {role}"
        wanted = ", ".join(f"{each}s" for each in roles)
        raise NotAllowed(
            f"in the job's project this is for {wanted} only, and you are {are}",
            "ask the project's lead or a manager for that role",
        )
    return row


@router.get("/jobs/{job_id}", openapi_extra=allow(*ANYBODY))
def show_job(job_id: str, at: At) -> JobDetail:
    """Show a job with its timeline, its attempts and their charges."""
    with at.read() as session:
        row, role = visible_job(session, at, job_id)
        events = session.exec(select(JobEvent).where(col(JobEvent.job_id) == job_id).order_by(col(JobEvent.id))).all()
        refunds = posted_refunds(session, job_id)
        seen = JobDetail(
            **_out(row).model_dump(),
            **_asked(session, row),
            snapshot=row["snapshot"],
            script_sha256=row["script_sha256"],
            events=[EventOut.model_validate(event, from_attributes=True) for event in events],
            tasks_by_state=_by_state(session, row),
            usage=[] if row["array_words"] else [usage_out(*attempt) for attempt in attempts_of(session, job_id)],
            refunded_credits=sum(refund.amount_credits for refund in refunds),
            refunds=refunds_out(session, refunds),
            worth=_worth_out(job_euros(session, job_id) if row["settled_at"] else NOT_SETTLED),
        )
    return seen if sees_whole(at, role) else progress_in_detail(seen)


def _by_state(session: Session, row: Any) -> dict[str, int] | None:
    if row["array_words"] is None:
        return None
    return by_state(row["array_words"], row["state"], rows_of_tasks(session, [row["id"]])[row["id"]])


def _asked(session: Session, row: Any) -> dict[str, Any]:
    """Return what else was asked of a job: what it runs after, in which tools, with which signal."""
    payload = session.get_one(JobPayload, row["id"])
    waits = JobState(row["state"]) is JobState.QUEUED and row["expected_start_at"] is None
    return {
        "after": [AfterOut(job=link.id, kind=link.kind, state=link.state) for link in links_of(session, row["id"])],
        "signal": row["signal"],
        "signal_s": row["signal_s"],
        "named_environment": payload.named_environment,
        "modules": payload.modules,
        "container": payload.container,
        "expected_start_unknown": "the site's scheduler has not reckoned it yet" if waits else None,
    }


def usage_out(record: UsageRecord, value: ChargeValue) -> UsageOut:
    """Show an attempt with its charge and what that is worth."""
    valued = value.model_dump(include={*Worth.model_fields, "tariff_micro_euros"})
    same = set(UsageOut.model_fields) - {"charged_credits", *valued}
    return UsageOut(charged_credits=record.charge_credits, **valued, **record.model_dump(include=same))


def _worth_out(worth: Euros | str) -> Worth:
    if isinstance(worth, str):
        return Worth(unknown_reason=worth)
    return Worth(
        value_micro_euros=worth.value,
        region_micro_euros=worth.region,
        company_micro_euros=worth.company,
        partner_micro_euros=worth.partner,
    )


def task_row(session: Session, row: Any, task: int) -> Any:
    """Return the row of one task of an array, None while it has none.

    Raises:
        NotFound: the job is no array, or has no such task.
    """
    job_id, words = row["id"], row["array_words"]
    if words is None:
        raise NotFound(f"job {job_id} is no array and has no task {task}", f"leave the task out: {job_id}")
    if task not in parse_array(words).tasks:
        raise NotFound(f"the array {job_id} has no task {task}", f"one of its tasks: {words}")
    return rows_of_tasks(session, [job_id])[job_id].get(task)


@router.post("/jobs/{job_id}/cancel", response_model=JobOut, openapi_extra=allow("engineer", "operator"))
def cancel_job(job_id: str, at: At) -> Response:
    """Ask for a job's end; one that has ended already is answered with its final state."""

    def cancellable(session: Session) -> Any:
        if "operator" in at.caller.roles:
            return visible_job(session, at, job_id)[0]
        return job_of(session, at, job_id, SUBMITTERS)

    with at.read() as session:
        cancellable(session)

    def act(session: Session) -> JobOut:
        request_cancel(session, job_id, f"cancelled by {at.caller.name}")
        return _out(cancellable(session))

    answer = at.once(None, act, status=200)
    at.services.bell.ring()
    return answer


@router.get("/jobs/{job_id}/log", response_class=Response, openapi_extra=allow("engineer"))
async def read_log(
    job_id: str,
    request: Request,
    at: At,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit_bytes: Annotated[int, Query(ge=1, le=LOG_BYTES_MAX)] = LOG_BYTES_MAX,
    wait_s: Annotated[float, Query(ge=0, le=LOG_WAIT_S_MAX)] = 0,
    task: Annotated[int | None, Query(ge=0, le=INDEX_MAX)] = None,
) -> Response:
    """Read a job's log from an offset, as its project's account; waits for more text or another state.

    An array has one for each task.
    """
    until = time.monotonic() + wait_s
    first: JobState | None = None
    while True:
        left_s = max(0.0, min(LOG_STEP_S, until - time.monotonic()))
        chunk, state = await to_thread.run_sync(
            _log_chunk, at, (job_id, task), offset, limit_bytes, left_s, limiter=_log_threads
        )
        first = first or state
        done = chunk.data or state in ENDED or state is not first or time.monotonic() >= until
        if done or await request.is_disconnected():
            break
    headers = {
        "Idf-Next-Offset": str(chunk.next_offset),
        "Idf-Log-Exists": "true" if chunk.exists else "false",
        "Idf-Job-State": state.value,
    }
    return Response(chunk.data, media_type="application/octet-stream", headers=headers)


def _log_chunk(
    at: Edge, of: tuple[str, int | None], offset: int, limit_bytes: int, wait_s: float
) -> tuple[LogChunk, JobState]:
    """Look once; the state is read before the log, so that `ended` with no data means that there is no more."""
    job_id, task = of
    with at.read() as session:
        row = job_of(session, at, job_id, LOG_READERS)
        state = JobState(row["state"]) if task is None else state_of(row["state"], task_row(session, row, task))
        settings = SiteIn.model_validate(session.get_one(Site, row["site_id"]).settings)
        still_there = owns(session, row["site_id"], settings, row["account"], row["project_id"])
    if row["array_words"] is not None and task is None:
        first = task_name(job_id, parse_array(row["array_words"]).tasks[0])
        raise BadRequest(f"job {job_id} is an array, of which each task has a log", f"idf-compute logs {first}")
    if row["site_job_id"] is None:
        if state not in ENDED:
            time.sleep(min(wait_s, 0.1))  # not at a site yet: nothing to ask it for
        return LogChunk(b"", offset, exists=False), state
    if not still_there:  # what lies under that name now is another project's
        return LogChunk(b"", offset, exists=False), state
    scheduler = at.services.schedulers.at(row["site_id"], settings)
    wait_s = 0.0 if state in ENDED else wait_s
    name = task_name(job_name(job_id), task)
    return scheduler.read_log(row["account"], name, offset, limit_bytes, wait_s), state
